"""The keys of the checkpoint tree: hashes of everything that determined a training so far.

Keys form a hash chain. The root hashes everything that is fixed before the first
epoch; each epoch's key hashes its parent and the rates of its steps, value by value.
So two settings share epochs as long as their rates are equal. Only a schedule that
follows the curve is hashed as its rule. Nothing here loads torch.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any

from tuner.records import Job, Value
from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import course

FORMAT = 2
"""Raised whenever the meaning of a key or the form of a checkpoint changes."""

RATE_PARAMETERS = frozenset(
    {"lr", "scheduler", "step_size", "decay", "warmup_epochs", "plateau_patience"}
)
"""Parameters that affect the weights only through the rates, and so are hashed as rates.

A parameter missing here is hashed as itself: that costs reuse, but is never wrong.
"""

NOMINAL_STEPS = 8
"""Steps per epoch assumed when schedules are compared without data."""

MARK_LENGTH = 20
"""Hexadecimal digits of each half of a mark: 80 bits, for some 10^5 marks of one grid."""
PLAIN = read_recipe({})

LENGTH_PARAMETERS = frozenset({"epochs", "patience"})
"""Parameters that only decide when a training ends; if a schedule uses them, rates cover that."""


@dataclass(frozen=True)
class Base:
    """Everything that determines a training before its first epoch."""

    source: str
    """Fingerprint of the trainer's and the objective's source."""
    data: str
    """Fingerprint of the data."""
    numerics: Mapping[str, str]
    """Device, threads, precision and versions: everything that affects the last bits."""
    seed: int
    metric: str
    """It chooses the best weights, which are part of a state."""
    parameters: Mapping[str, Value]
    """All except RATE_PARAMETERS and LENGTH_PARAMETERS."""
    metrics: tuple[str, ...] = ()
    """The further metrics that its epochs have. Their functions are part of `source`, so that no
    figure of older code is taken over: another function costs reuse, but is never wrong."""

    def plain(self) -> dict[str, Any]:
        """Return everything as JSON; without further metrics as before there were any."""
        plain = {**asdict(self), "metrics": list(self.metrics)}
        return plain if self.metrics else {name: plain[name] for name in plain if name != "metrics"}


def shaping(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Return the parameters that affect weights other than through rates, with defaults."""
    whole = {**parameters, **asdict(read_recipe(parameters))}
    apart = RATE_PARAMETERS | LENGTH_PARAMETERS
    return {name: whole[name] for name in sorted(whole) if name not in apart}


def root(base: Base) -> str:
    """Return the key of a training before its first epoch."""
    text = json.dumps({"format": FORMAT, **base.plain()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def extend(parent: str, rates: Sequence[float], rule: str = "") -> str:
    """Return the key after another epoch whose steps had these rates, or followed this rule."""
    values = ",".join(value.hex() for value in rates) + ";" + rule
    return hashlib.sha256(f"{parent}\0{values}".encode()).hexdigest()


def path(base: Base, recipe: Recipe, steps: int) -> list[str]:
    """Return the keys after epochs 1, 2, … of a training with this many steps per epoch."""
    keys: list[str] = []
    parent = root(base)
    for rates, rule in courses(recipe, steps):
        parent = extend(parent, rates, rule)
        keys.append(parent)
    return keys


def courses(recipe: Recipe, steps: int) -> Iterator[tuple[Sequence[float], str]]:
    """Yield what determines the rates of each epoch."""
    for number in range(1, recipe.epochs + 1):
        yield course(recipe, number, steps)


def shared_epochs(one: Recipe, other: Recipe) -> int:
    """Return how many first epochs two settings share, given equal seed and data."""
    if shaping(asdict(one)) != shaping(asdict(other)):
        return 0
    # The true number depends on the data; the comparison needs only equal numbers.
    pairs = zip(courses(one, NOMINAL_STEPS), courses(other, NOMINAL_STEPS), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def shared_epochs_of_jobs(one: Job, other: Job) -> int:
    """Return how many first epochs two jobs share on machines of one kind."""
    if _fixed(one) != _fixed(other):
        return 0
    return shared_epochs(read_recipe(one.parameters), read_recipe(other.parameters))


def marks(job: Job) -> list[str]:
    """Return a mark for each epoch of a job; jobs share the epochs with equal marks.

    Marks avoid comparing all pairs of jobs: like a key, a mark covers all epochs up to its own,
    but it needs no data and no machine.
    """
    fixed = hashlib.sha256(json.dumps(_fixed(job)).encode()).hexdigest()[:MARK_LENGTH]
    recipe = read_recipe(job.parameters)
    rates = {name: getattr(recipe, name) for name in RATE_PARAMETERS}
    return [fixed + mark for mark in _rate_marks(replace(PLAIN, **rates, epochs=recipe.epochs))]


@lru_cache(maxsize=4096)
def _rate_marks(recipe: Recipe) -> tuple[str, ...]:
    """Return a hash of all rates up to each epoch; cached, as a grid has few distinct courses."""
    found = [""]
    for rates, rule in courses(recipe, NOMINAL_STEPS):
        found.append(extend(found[-1], rates, rule)[:MARK_LENGTH])
    return tuple(found[1:])


def _fixed(job: Job) -> tuple[object, ...]:
    data = json.dumps(dict(job.data), sort_keys=True)
    parameters = json.dumps(shaping(job.parameters), sort_keys=True)
    metrics = [metric.name for metric in job.metrics]
    return job.objective, data, job.seed, job.metric, parameters, *metrics
