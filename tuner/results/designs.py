"""The design of a comparison: the trials of each level of a factor, and those left out.

A grid with seeds is a complete design: each level has the same seeds in the same places, that
is, under the same values of the other factors. Only places in which every compared level
completed are used, and the trials left out are counted. If settings were sampled, as by a
random search, nothing is paired, and each setting is a separate unit.
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
"""More combinations than this are only ranked, not compared one by one."""
LEVELS_MOST = 12
"""A factor with more levels is treated as a range and not compared."""
SETTINGS_FEWEST = 8
"""The fewest sampled settings that `tuner influence` analyses."""

Level = Value | None
Picked = TypeVar("Picked")


@dataclass(frozen=True)
class PrunedMedians:
    """When pruned trials were pruned, as medians."""

    epoch: int
    val_loss: float


@dataclass(frozen=True)
class Standing:
    """The trials of one level by how they ended."""

    level: Level
    """None if the parameter was not active."""
    trials: int
    complete: int
    measured: int
    """The number of complete trials that have the figure."""
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int
    fell: PrunedMedians | None
    paused: int = 0

    @property
    def survivors_only(self) -> bool:
        """Whether trials are missing from its mean, not at random."""
        return self.lost > 0

    @property
    def lost(self) -> int:
        """How many of its trials were pruned, paused, diverged or failed."""
        return self.pruned + self.paused + self.diverged + self.failed

    @property
    def throughout(self) -> Literal["pruned", "diverged"] | None:
        """How all its trials ended if none completed; None if some did, or if endings were mixed.

        Failed trials are ignored here: they say nothing about the level.
        """
        if self.complete or self.paused or bool(self.pruned) == bool(self.diverged):
            return None
        return "pruned" if self.pruned else "diverged"


@dataclass(frozen=True)
class Design:
    """How one factor is compared: the trials of each level, by seed or as separate units."""

    factor: str
    standings: tuple[Standing, ...]
    """All levels of the study, compared or not."""
    levels: tuple[Level, ...]
    """The compared levels."""
    paired: bool
    units: tuple[tuple[tuple[int, ...], ...], ...]
    """By level and unit, the numbers of the trials that are averaged; units give the n of a mean.

    In a paired design, all levels have the same seeds as units, in the same order.
    """
    left_out: int
    """Complete trials in no mean, because their counterpart at another level did not complete."""
    reasons: Mapping[Level, str] = field(default_factory=dict)
    """Why levels are not compared, for reasons that their standing does not show."""
    notes: tuple[str, ...] = ()
    """Further remarks for the answer."""

    @property
    def uncompared(self) -> tuple[Standing, ...]:
        """The standings of levels that are not compared."""
        return tuple(standing for standing in self.standings if standing.level not in self.levels)


Measured = Callable[[TrialRow], bool]
"""Tells whether a complete trial has the compared figure."""


def design(
    rows: Sequence[TrialRow], spec: Spec, factor: str, measured: Measured = lambda _: True
) -> Design:
    """Return the design that compares a factor's levels; a UserError if there are too many.

    Several factors, joined by commas, act as one whose levels are their combinations.
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
            f"{factor} has {len(by_level)} values, too many to compare one by one; "
            f"{elsewhere(rows, spec, 'it matters')}."
        )
    usable = {row["trial"] for row in rows if row.complete and measured(row)}
    standings = tuple(
        standing_of(level, by_level[level], usable) for level in spec.in_order(factor, by_level)
    )
    if spec.search.sampler == "grid":
        return _paired(rows, spec, factor, standings, usable)
    return _unpaired(rows, spec, factor, standings, usable)


def elsewhere(rows: Sequence[TrialRow], spec: Spec, what: str) -> str:
    """Say which command answers how much `what` if values are too many to compare.

    With one parameter, or with too few settings, nothing can be said of how much it matters.
    """
    complete = len({row.configuration for row in rows if row.complete})
    if len(spec.varied) > 1 and complete >= SETTINGS_FEWEST:
        return f"`tuner influence {spec.name}` shows how much {what}"
    return f"`tuner table {spec.name}` ranks settings"


def _combined(
    rows: Sequence[TrialRow], spec: Spec, factors: Sequence[str], measured: Measured
) -> Design:
    factor = ",".join(factors)
    combinations = {tuple(row[name] for name in factors) for row in rows}
    if len(combinations) > COMBINATIONS_MOST:
        raise UserError(
            f"{factor} has {len(combinations)} combinations, too many to compare one by one; "
            f"`tuner table {spec.name}` ranks settings."
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
    # The combination becomes one more cell of each trial, as if it were a parameter.
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
    # Whole settings under the same seeds are paired, however their values were chosen.
    if spec.search.sampler == "grid" or set(factors) == set(spec.varied):
        return _paired(combined, spec, factor, standings, usable)
    return _unpaired(combined, spec, factor, standings, usable)


def combination_name(values: Mapping[str, Level]) -> str:
    """Return the name of a combination of levels: "scheduler=step lr=0.01"."""
    # A parameter that is not active in this combination is not part of its name.
    return " ".join(
        f"{name}={value_text(value)}" for name, value in values.items() if value is not None
    )


def comparable(rows: Sequence[TrialRow], spec: Spec) -> list[str]:
    """Return the factors with few enough levels to be compared one by one."""
    most = LEVELS_MOST
    if spec.search.sampler != "grid":
        # Values sampled from a range hardly ever repeat.
        most = min(most, max(2, len(rows) // 2))
    return [name for name in spec.varied if 2 <= len({row[name] for row in rows}) <= most]


def _paired(
    rows: Sequence[TrialRow],
    spec: Spec,
    factor: str,
    standings: Sequence[Standing],
    usable: Set[int],
) -> Design:
    # A parameter that is active only under some levels of the factor is part of the level.
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
    """Return these factors (joined by commas) and the parameters active only under their levels."""
    below = set(factor.split(","))
    for dimension in spec.space.ordered():
        if below & set(dimension.when):
            below.add(dimension.name)
    return below


def common_levels(
    levels: Sequence[Picked], places: Sequence[Mapping[Picked, Sequence[int]]]
) -> tuple[Picked, ...]:
    """Return the levels that completed in enough of the same places, seed by seed.

    A level that pruning or failures left in few places would reduce all others
    to these; it is set aside if it at least halves what the rest can be compared on.
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
    # A level with a single setting cannot be compared; the other levels still are.
    several = [level for level in levels if len(groups[level]) > 1]
    levels = several if len(several) > 1 else levels
    units = tuple(tuple(tuple(numbers) for numbers in groups[level].values()) for level in levels)
    return Design(factor, tuple(standings), tuple(levels), False, units, 0)


def standing_of(level: Level, rows: Sequence[TrialRow], usable: Set[int]) -> Standing:
    """Count a level's trials by how they ended; `usable` trials have the figure."""
    states = [row["state"] for row in rows]
    fallen = [row for row in rows if row["state"] == "PRUNED"]
    losses = [row["last_val_loss"] for row in fallen if row["last_val_loss"] is not None]
    epoch = int(median(row["epochs_run"] for row in fallen)) if fallen else 0
    fell = PrunedMedians(epoch, median(losses)) if losses else None
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
