"""The design of a comparison: the trials of each level of a factor, and those left out.

A grid with seeds is a complete design: each level meets the same seeds in the same places, that
is, under the same values of the other factors. Only places in which every compared level
completed are used, and what is left out is counted. Where configurations were drawn, as by a
random search, nothing is paired, and each configuration stands for itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, TypeVar

from tuner.errors import UserError
from tuner.names import meant
from tuner.records import Value, value_text
from tuner.results.rows import TrialRow
from tuner.spec.study import Spec

COMBINATIONS_MOST = 50
"""More combinations of factors than this are ranked, not compared one by one."""
LEVELS_MOST = 12
"""More levels than this are a range, not a choice between settings."""

Level = Value | None
Picked = TypeVar("Picked")


@dataclass(frozen=True)
class Fall:
    """Where pruned trials fell, as medians."""

    epoch: int
    val_loss: float


@dataclass(frozen=True)
class Standing:
    """The trials of one level by how they ended."""

    level: Level
    """None where the parameter was not active."""
    trials: int
    complete: int
    measured: int
    """Of the complete ones those that have the figure."""
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int
    fell: Fall | None
    paused: int = 0

    @property
    def survivors_only(self) -> bool:
        """Whether trials are missing from its mean, and not at random."""
        return self.lost > 0

    @property
    def lost(self) -> int:
        """How many of its trials were pruned, paused, diverged or failed."""
        return self.pruned + self.paused + self.diverged + self.failed

    @property
    def throughout(self) -> Literal["pruned", "diverged"] | None:
        """How its trials ended where none completed; None where some did, or they ended both ways.

        Failures beside that do not count: they say nothing of the level.
        """
        if self.complete or self.paused or bool(self.pruned) == bool(self.diverged):
            return None
        return "pruned" if self.pruned else "diverged"


@dataclass(frozen=True)
class Design:
    """How one factor is compared: the trials of each level, by seed or each for itself."""

    factor: str
    standings: tuple[Standing, ...]
    """All levels that the study has, compared or not."""
    levels: tuple[Level, ...]
    """The levels that are compared."""
    paired: bool
    units: tuple[tuple[tuple[int, ...], ...], ...]
    """By level and seed the numbers of the trials that are averaged; the n of every mean.

    Paired, the units of all levels are the same seeds in the same order.
    """
    left_out: int
    """Complete trials that no mean is over, because a peer of theirs did not complete."""
    asides: Mapping[Level, str] = field(default_factory=dict)
    """The reason why a level is not compared, where its standing does not say it."""
    notes: tuple[str, ...] = ()
    """Further remarks about these trials."""

    @property
    def uncompared(self) -> tuple[Standing, ...]:
        """The levels that are not compared."""
        return tuple(standing for standing in self.standings if standing.level not in self.levels)


Measured = Callable[[TrialRow], bool]
"""Whether a complete trial has the figure that is compared."""


def design(
    rows: Sequence[TrialRow], spec: Spec, factor: str, measured: Measured = lambda _: True
) -> Design:
    """Return the design that compares a factor's levels; one with too many levels is refused.

    Several factors, joined by commas, are one whose levels are the combinations of theirs.
    """
    factors = factor.split(",")
    for name in factors:
        if name not in spec.varied:
            raise UserError(
                f"{spec.name} does not vary {name!r}; "
                f"it varies {', '.join(spec.varied) or 'nothing'}.{meant(name, spec.varied)}"
            )
    if len(factors) > 1:
        return _combined(rows, spec, factors, measured)
    by_level: dict[Level, list[TrialRow]] = defaultdict(list)
    for row in rows:
        by_level[row[factor]].append(row)
    if len(by_level) > LEVELS_MOST:
        raise UserError(
            f"{factor} took {len(by_level)} values, too many to be compared one by one; "
            f"`tuner influence {spec.name}` shows how much it matters."
        )
    usable = {row["trial"] for row in rows if row.complete and measured(row)}
    standings = tuple(
        standing_of(level, by_level[level], usable) for level in spec.in_order(factor, by_level)
    )
    if spec.search.sampler == "grid":
        return _paired(rows, spec, factor, standings, usable)
    return _unpaired(rows, spec, factor, standings, usable)


def _combined(
    rows: Sequence[TrialRow], spec: Spec, factors: Sequence[str], measured: Measured
) -> Design:
    factor = ",".join(factors)
    combinations = {tuple(row[name] for name in factors) for row in rows}
    if len(combinations) > COMBINATIONS_MOST:
        raise UserError(
            f"{factor} has {len(combinations)} combinations, too many to be compared one by one; "
            f"`tuner table {spec.name}` ranks settings, `tuner influence {spec.name}` shows how "
            "much each parameter matters."
        )
    places = [
        {value: at for at, value in enumerate(spec.in_order(name, {row[name] for row in rows}))}
        for name in factors
    ]

    def place(values: tuple[Level, ...]) -> tuple[int, ...]:
        return tuple(of[value] for of, value in zip(places, values, strict=True))

    ordered = sorted(combinations, key=place)
    names = {
        values: combination_name(dict(zip(factors, values, strict=True))) for values in ordered
    }
    # Each trial with its combination as one more cell, as if the study varied that.
    combined = [
        replace(row, cells={**row.cells, factor: names[tuple(row[name] for name in factors)]})
        for row in rows
    ]
    usable = {row["trial"] for row in combined if row.complete and measured(row)}
    standings = tuple(
        standing_of(
            names[values], [row for row in combined if row[factor] == names[values]], usable
        )
        for values in ordered
    )
    # Whole settings under the same seeds are pairs, however their values were chosen.
    if spec.search.sampler == "grid" or set(factors) == set(spec.varied):
        return _paired(combined, spec, factor, standings, usable)
    return _unpaired(combined, spec, factor, standings, usable)


def combination_name(values: Mapping[str, Level]) -> str:
    """Return what a combination of levels is called: "scheduler=step lr=0.01"."""
    # A parameter that is not active under this combination says nothing of it.
    return " ".join(
        f"{name}={value_text(value)}" for name, value in values.items() if value is not None
    )


def comparable(rows: Sequence[TrialRow], spec: Spec) -> list[str]:
    """Return the factors whose levels are few enough to be compared one by one."""
    most = LEVELS_MOST
    if spec.search.sampler != "grid":
        # Values that were drawn from a range are hardly ever drawn twice.
        most = min(most, max(2, len(rows) // 2))
    return [name for name in spec.varied if 2 <= len({row[name] for row in rows}) <= most]


def _paired(
    rows: Sequence[TrialRow],
    spec: Spec,
    factor: str,
    standings: Sequence[Standing],
    usable: Set[int],
) -> Design:
    # A parameter that is active only under some levels of the factor belongs to the level.
    others = [name for name in spec.varied if name not in _below(spec, factor)]
    places: dict[_Place, dict[Level, list[int]]] = defaultdict(lambda: defaultdict(list))
    expected: dict[_Place, dict[Level, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        place = (row["seed"], tuple(row[name] for name in others))
        expected[place][row[factor]] += 1
        if row["trial"] in usable:
            places[place][row[factor]].append(row["trial"])
    whole = {
        place: {
            level: of for level, of in numbers_by_level.items() if len(of) == expected[place][level]
        }
        for place, numbers_by_level in places.items()
    }
    levels = common_levels(
        [standing.level for standing in standings if standing.measured], list(whole.values())
    )
    shared = {at: of for at, of in whole.items() if all(level in of for level in levels)}
    seeds = sorted({seed for seed, _ in shared})
    units = tuple(
        tuple(
            tuple(
                number
                for (at, _), of in sorted(shared.items(), key=repr)
                if at == seed
                for number in of[level]
            )
            for seed in seeds
        )
        for level in levels
    )
    used = sum(len(numbers) for unit in units for numbers in unit)
    complete = sum(standing.measured for standing in standings if standing.level in levels)
    return Design(factor, tuple(standings), levels, True, units, complete - used)


_Place = tuple[int, tuple[Level, ...]]
"""A seed, and the values of the other factors."""


def _below(spec: Spec, factor: str) -> set[str]:
    """Return the factors, joined by commas, with all that is active only under their levels."""
    below = set(factor.split(","))
    for dimension in spec.space.ordered():
        if below & set(dimension.when):
            below.add(dimension.name)
    return below


def common_levels(
    levels: Sequence[Picked], places: Sequence[Mapping[Picked, Sequence[int]]]
) -> tuple[Picked, ...]:
    """Return the levels that completed in enough of the same places, seed by seed.

    A level that pruning or failing left in few places would drag all others
    down to those; it is set aside while it halves what the rest can be compared on.
    """
    remaining = list(levels)
    while len(remaining) > 1:
        shared = _shared(remaining, places)
        without = {
            level: _shared([other for other in remaining if other != level], places)
            for level in remaining
        }
        count = {level: sum(level in of for of in places) for level in remaining}
        rarest = max(remaining, key=lambda level: (without[level], -count[level]))
        if shared and 2 * shared >= without[rarest]:
            break
        remaining.remove(rarest)
    return tuple(remaining)


def _shared(levels: Sequence[Picked], places: Sequence[Mapping[Picked, Sequence[int]]]) -> int:
    return sum(all(level in of for level in levels) for of in places)


def _unpaired(
    rows: Sequence[TrialRow],
    spec: Spec,
    factor: str,
    standings: Sequence[Standing],
    usable: Set[int],
) -> Design:
    groups: dict[Level, dict[tuple[Level, ...], list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["trial"] in usable:
            configuration = tuple(row[name] for name in spec.varied)
            groups[row[factor]][configuration].append(row["trial"])
    levels = [standing.level for standing in standings if standing.measured]
    # One configuration says nothing of its level; it must not silence the others.
    several = [level for level in levels if len(groups[level]) > 1]
    levels = several if len(several) > 1 else levels
    units = tuple(tuple(tuple(numbers) for numbers in groups[level].values()) for level in levels)
    return Design(factor, tuple(standings), tuple(levels), False, units, 0)


def standing_of(level: Level, rows: Sequence[TrialRow], usable: Set[int]) -> Standing:
    """Count a level's trials by how they ended; usable ones have the figure."""
    states = [row["state"] for row in rows]
    fallen = [row for row in rows if row["state"] == "PRUNED"]
    losses = [row["last_val_loss"] for row in fallen if row["last_val_loss"] is not None]
    epoch = int(median(row["epochs_run"] for row in fallen)) if fallen else 0
    fell = Fall(epoch, median(losses)) if losses else None
    return Standing(
        level=level,
        trials=len(rows),
        complete=states.count("COMPLETE"),
        measured=sum(row["trial"] in usable for row in rows),
        pruned=states.count("PRUNED"),
        diverged=states.count("DIVERGED"),
        failed=states.count("FAILED"),
        running=states.count("RUNNING"),
        waiting=states.count("WAITING"),
        fell=fell,
        paused=states.count("PAUSED"),
    )
