"""Choosing the next (configuration, seed): pure functions over the existing trials."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tuner.spec.study import Spec
from tuner.store.ledger.looks import Decided, Look, Race
from tuner.store.ledger.promotion import Climb, Stretch


@dataclass(frozen=True)
class Assignment:
    """The next trial to create: a configuration under a seed."""

    configuration: int
    seed: int
    saw: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """If trials pause, the data on which the decision to start a new one is based, as JSON."""


@dataclass(frozen=True)
class Existing:
    """The fields of an existing trial on which the next assignment depends."""

    configuration: int
    seed: int
    ended: bool
    value: float | None = None
    """The study's metric, smaller is better; None unless the trial is complete."""
    complete: bool = False
    fresh: bool = False
    """Whether it ended so recently that its last checkpoint may still be being written."""
    paused: bool = False

    @property
    def under_way(self) -> bool:
        """Whether a worker is training it, or will take it over."""
        return not (self.ended or self.paused)


PENDING = "pending"
"""The next trial depends on trials that are still running."""
RACING = "racing"
"""The contenders are compared once their current trials have ended."""
WAITING = "waiting"
"""All remaining trials start with epochs that a peer is training now."""
LOOK_AHEAD = 64
"""How many waiting trials are skipped, at most, in search of one that can start now."""

Waits = Callable[[Assignment], bool]


def next_assignment(
    spec: Spec,
    existing: Collection[Existing],
    waits: Waits = lambda _: False,
    decided: Sequence[Decided] = (),
    queued: Sequence[int] = (),
    *,
    climb: Climb | None = None,
) -> Assignment | Stretch | Look | str | None:
    """Return the next assignment, a look that is due, a reason to wait, or None at the end.

    All configurations run under seed 0 first, then under seed 1, and so on, so that a study stopped
    half-way has tried every configuration. A configuration whose next epochs a peer is already
    training is postponed. `queued` grid cells come first. If trials pause, the rules of `promotion`
    decide when a paused one is resumed instead.
    """
    if climb is not None and (promoted := climb.promotion()) is not None:
        return promoted
    taken = {(trial.configuration, trial.seed) for trial in existing}
    if climb is None and len(taken) >= spec.total_trials:
        return None
    explored = _explored(spec, {trial.configuration for trial in existing}, queued)
    if climb is None and spec.replicates.of == "all":
        return _missing(taken, explored, range(spec.replicates.seeds), waits)
    first = then(_missing(taken, explored, [0], waits), climb)
    if first is not None or spec.replicates.of == "all":
        return first
    if any(trial.seed == 0 and trial.under_way for trial in existing):
        return PENDING
    return _next_of_race(race(spec, existing, decided), existing, waits)


def then(first: Assignment | str | None, climb: Climb | None) -> Assignment | Stretch | str | None:
    """Return the next new trial; if there is none, the paused one whose turn it is."""
    if climb is None:
        return first
    if isinstance(first, Assignment):
        return replace(first, saw=climb.saw)
    if first is None and not climb.is_enough:
        return climb.turn()
    return first


def _explored(spec: Spec, begun: Collection[int], queued: Sequence[int]) -> Sequence[int]:
    """Return the configurations of the budget in the order in which they start.

    If the grid has more cells than the budget, a queued cell replaces the last cell that has not
    started, so that the budget still holds.
    """
    if not queued:
        return range(spec.configurations)
    order = list(dict.fromkeys(queued))
    first = set(order)
    room = spec.configurations - len(first | set(begun))
    for cell in range(spec.grid_size):
        if cell in first:
            continue
        if cell in begun:
            order.append(cell)
        elif room > 0:
            order.append(cell)
            room -= 1
    return order


def race(spec: Spec, existing: Collection[Existing], decided: Sequence[Decided] = ()) -> Race:
    """Return the state of a study's race after its exploration has ended.

    The contenders are the best configurations under seed 0. One that has further seeds stays a
    contender even if a longer exploration finds better ones.
    """
    seeds: dict[int, set[int]] = defaultdict(set)
    for trial in existing:
        if trial.seed > 0:
            seeds[trial.configuration].add(trial.seed)
    explored = [t for t in existing if t.seed == 0 and t.value is not None]
    # The older configuration wins ties, so that every worker sees the same order.
    ranked = sorted(explored, key=lambda trial: (trial.value, trial.configuration))
    best = {trial.configuration for trial in ranked[: spec.replicates.top]}
    contenders = [t.configuration for t in ranked if t.configuration in best | seeds.keys()]
    each = spec.replicates.seeds - 1
    # Smaller than requested if fewer configurations completed; never above the study's total.
    room = min(spec.total_trials - spec.configurations, len(contenders) * each)
    return Race(tuple(contenders), dict(seeds), room, tuple(decided))


def _next_of_race(
    standing: Race, existing: Collection[Existing], waits: Waits
) -> Assignment | Look | str | None:
    if standing.over:
        return None
    look = standing.look()
    # Workers do not wait between looks, but no seed beyond the next look starts before it.
    rounds = standing.affordable if look is None else look.rounds
    taken = {(contender, seed) for contender, seeds in standing.seeds.items() for seed in seeds}
    assignment = _missing(taken, standing.racing, range(1, rounds + 1), waits)
    if assignment is not None or look is None:
        return assignment
    compared = {(racer, seed) for racer in look.racing for seed in range(1, look.rounds + 1)}
    running = any(t.under_way and (t.configuration, t.seed) in compared for t in existing)
    return RACING if running else look


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
