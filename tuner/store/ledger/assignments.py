"""Which (configuration, seed) comes next: pure functions over what exists."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tuner.spec.study import Spec
from tuner.store.ledger.race import Decided, Look, Race


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
RACING = "racing"
"""The contenders are compared with each other when their trials so far have ended."""
WAITING = "waiting"
"""Whatever is left begins with epochs that a peer is training now."""
LOOK_AHEAD = 64
"""This many waiting trials are passed over, at most, in search of one that need not wait."""

Waits = Callable[[Assignment], bool]


def next_assignment(
    spec: Spec,
    existing: Collection[Existing],
    waits: Waits = lambda _: False,
    decided: Sequence[Decided] = (),
    queued: Sequence[int] = (),
) -> Assignment | Look | str | None:
    """Return what to train next, a look that is due, why to wait, or None when nothing is left.

    All configurations come under seed 0 first, then under seed 1, and so on, so
    that a study stopped half-way has seen everything once. One that would train
    what a peer is training already lets the others go first. Cells of a grid that were `queued`
    come before the others.
    """
    taken = {(trial.configuration, trial.seed) for trial in existing}
    if len(taken) >= spec.total_trials:
        return None
    explored = _explored(spec, {trial.configuration for trial in existing}, queued)
    if spec.replicates.of == "all":
        return _missing(taken, explored, range(spec.replicates.seeds), waits)
    first = _missing(taken, explored, [0], waits)
    if first is not None:
        return first
    if any(trial.seed == 0 and not trial.ended for trial in existing):
        return PENDING
    return _next_of_race(race(spec, existing, decided), existing, waits)


def _explored(spec: Spec, begun: Collection[int], queued: Sequence[int]) -> Sequence[int]:
    """Return the configurations of the budget in the order in which they begin.

    The grid may have more cells than the budget: then a queued one takes the place of the last
    cell that has not begun, so that there are never more.
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
    """Return how the race of a study stands whose exploration has ended.

    The contenders are the best under seed 0. One that has had further seeds
    stays a contender when a longer exploration finds better ones.
    """
    seeds: dict[int, set[int]] = defaultdict(set)
    for trial in existing:
        if trial.seed > 0:
            seeds[trial.configuration].add(trial.seed)
    explored = [t for t in existing if t.seed == 0 and t.value is not None]
    # Ties fall to the older configuration, so that every worker sees one order.
    ranked = sorted(explored, key=lambda trial: (trial.value, trial.configuration))
    best = {trial.configuration for trial in ranked[: spec.replicates.top]}
    contenders = [t.configuration for t in ranked if t.configuration in best | seeds.keys()]
    each = spec.replicates.seeds - 1
    # Fewer than were asked for where fewer completed; never more than the study's total.
    room = min(spec.total_trials - spec.configurations, len(contenders) * each)
    return Race(tuple(contenders), dict(seeds), room, tuple(decided))


def _next_of_race(
    standing: Race, existing: Collection[Existing], waits: Waits
) -> Assignment | Look | str | None:
    if standing.over:
        return None
    look = standing.look()
    # Between looks workers go ahead; no seed beyond the next look is given before it.
    rounds = standing.affordable if look is None else look.rounds
    taken = {(one, seed) for one, seeds in standing.seeds.items() for seed in seeds}
    found = _missing(taken, standing.racing, range(1, rounds + 1), waits)
    if found is not None or look is None:
        return found
    looked_at = {(one, seed) for one in look.racing for seed in range(1, look.rounds + 1)}
    running = any(not t.ended and (t.configuration, t.seed) in looked_at for t in existing)
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
