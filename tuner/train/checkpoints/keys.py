"""The keys of the checkpoint tree: what shaped a training's weights so far, hashed.

A key is a chain. Its root hashes everything that is fixed before the first
epoch; each epoch's key hashes its parent and the rates of its own steps, value
by value. Two settings share epochs for as long as their rates are equal, and
no schedule needs a rule of its own. Nothing here loads torch.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import NoReturn, SupportsIndex

from tuner.records import Epoch, Job, Value
from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import Position, rate

FORMAT = 1
"""Raised whenever the meaning of a key or the form of a checkpoint changes."""

RATE_PARAMETERS = frozenset({"lr", "scheduler", "step_size", "decay"})
"""What reaches the weights through the rates alone, and so is hashed as rates.

A parameter forgotten here is hashed as itself: that costs reuse, never truth.
"""

LENGTH_PARAMETERS = frozenset({"epochs", "patience"})
"""What says only when a training ends; where a schedule reads it, it is in the rates."""


@dataclass(frozen=True)
class Base:
    """All that shapes a training before its first epoch."""

    source: str
    """Fingerprint of the trainer's and the objective's source."""
    data: str
    """Fingerprint of the data."""
    numerics: Mapping[str, str]
    """Device, threads, precision and versions: whatever decides the last bits."""
    seed: int
    metric: str
    """Chooses the best weights, which are part of a state."""
    parameters: Mapping[str, Value]
    """All but those of RATE_PARAMETERS and LENGTH_PARAMETERS."""


class CurveNeededError(Exception):
    """A schedule asked for epochs that have not been trained; ends a path, never leaves here."""


class _UnknownCurve(tuple[Epoch, ...]):
    """Stands for epochs to come: a schedule may hold it, but not look at it."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Epoch]:
        raise CurveNeededError

    def __len__(self) -> int:
        raise CurveNeededError

    def __bool__(self) -> bool:
        raise CurveNeededError

    def __getitem__(self, index: SupportsIndex | slice) -> NoReturn:
        raise CurveNeededError


def shaping(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Return the parameters that shape weights other than through rates, defaults filled in."""
    whole = {**parameters, **asdict(read_recipe(parameters))}
    apart = RATE_PARAMETERS | LENGTH_PARAMETERS
    return {name: whole[name] for name in sorted(whole) if name not in apart}


def root(base: Base) -> str:
    """Return the key of a training before its first epoch."""
    text = json.dumps({"format": FORMAT, **asdict(base)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def extend(parent: str, rates: Sequence[float], momenta: Sequence[float] = ()) -> str:
    """Return the key after one more epoch whose steps had these rates (and momenta)."""
    values = ",".join(value.hex() for value in rates) + ";"
    values += ",".join(value.hex() for value in momenta)
    return hashlib.sha256(f"{parent}\0{values}".encode()).hexdigest()


def path(base: Base, recipe: Recipe, curve: Sequence[Epoch] = ()) -> list[str]:
    """Return the keys after epochs 1, 2, … of a training, as far as its rates are known.

    A schedule that reads the curve is followed one epoch beyond the curve given.
    """
    keys: list[str] = []
    parent = root(base)
    for rates in rates_by_epoch(recipe, curve):
        parent = extend(parent, rates)
        keys.append(parent)
    return keys


def rates_by_epoch(recipe: Recipe, curve: Sequence[Epoch] = ()) -> Iterator[tuple[float, ...]]:
    """Yield the rates of each epoch's steps; a rate that holds for all of them is given once."""
    for number in range(1, recipe.epochs + 1):
        known = len(curve) >= number - 1
        so_far = tuple(curve[: number - 1]) if known else _UnknownCurve()
        try:
            yield (rate(recipe, Position(number, curve=so_far)),)
        except CurveNeededError:
            return


def shared_epochs(one: Recipe, other: Recipe) -> int:
    """Return how many first epochs two settings have in common, seed and data being equal."""
    if shaping(asdict(one)) != shaping(asdict(other)):
        return 0
    pairs: Iterable[tuple[tuple[float, ...], tuple[float, ...]]] = zip(
        rates_by_epoch(one), rates_by_epoch(other), strict=False
    )
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def shared_epochs_of_jobs(one: Job, other: Job) -> int:
    """Return how many first epochs two jobs have in common on machines of one kind."""
    if _fixed(one) != _fixed(other):
        return 0
    return shared_epochs(read_recipe(one.parameters), read_recipe(other.parameters))


def _fixed(job: Job) -> tuple[object, ...]:
    data = json.dumps(dict(job.data), sort_keys=True)
    parameters = json.dumps(shaping(job.parameters), sort_keys=True)
    return job.objective, data, job.seed, job.metric, parameters
