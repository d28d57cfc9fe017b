"""Which (configuration, seed) comes next: pure functions over what exists."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tuner.spec.study import Spec


@dataclass(frozen=True)
class Assignment:
    """One cell of the study: a configuration under a seed."""

    configuration: int
    seed: int


@dataclass(frozen=True)
class Existing:
    """One trial as far as assigning the next one needs it."""

    configuration: int
    seed: int
    ended: bool
    value: float | None = None
    """The study's metric, smaller is better; None unless the trial is complete."""
    complete: bool = False
    fresh: bool = False
    """Whether it ended a moment ago, so that its last checkpoint may still be on its way."""


PENDING = "pending"
"""The next trial depends on trials that still run."""
WAITING = "waiting"
"""Whatever is left begins with epochs that a peer is training now."""
LOOK_AHEAD = 64
"""So many waiting trials are passed over, at most, in search of one that need not wait."""

Waits = Callable[[Assignment], bool]


def next_assignment(
    spec: Spec, existing: Collection[Existing], waits: Waits = lambda _: False
) -> Assignment | str | None:
    """Return what to train next, PENDING, WAITING, or None when the budget is spent.

    All configurations come under seed 0 first, then under seed 1, and so on, so
    that a study stopped half-way has seen everything once. One that would train
    what a peer is training already lets the others go first.
    """
    taken = {(trial.configuration, trial.seed) for trial in existing}
    if len(taken) >= spec.total_trials:
        return None
    explored = range(spec.configurations)
    if spec.replicates.of == "all":
        return _missing(taken, explored, range(spec.replicates.seeds), waits)
    first = _missing(taken, explored, [0], waits)
    if first is not None:
        return first
    if any(trial.seed == 0 and not trial.ended for trial in existing):
        return PENDING
    return _missing(taken, _contenders(spec, existing), range(1, spec.replicates.seeds), waits)


def _missing(
    taken: Collection[tuple[int, int]],
    configurations: Sequence[int],
    seeds: Sequence[int],
    waits: Waits,
) -> Assignment | str | None:
    waiting = 0
    for seed in seeds:
        for configuration in configurations:
            if (configuration, seed) in taken:
                continue
            assignment = Assignment(configuration, seed)
            if not waits(assignment):
                return assignment
            waiting += 1
            if waiting >= LOOK_AHEAD:
                return WAITING
    return WAITING if waiting else None


def _contenders(spec: Spec, existing: Collection[Existing]) -> list[int]:
    explored = [t for t in existing if t.seed == 0 and t.value is not None]
    # Ties fall to the older configuration, so that every worker sees one order.
    ranked = sorted(explored, key=lambda trial: (trial.value, trial.configuration))
    return [trial.configuration for trial in ranked[: spec.replicates.top]]
