"""The evidence for the answer to a study's question, as charts and tables of its page.

Sentences and figures come from `tuner.answers`; here they are only laid out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tuner.answers import leaderboard, words
from tuner.answers.compare import Comparison, Row, table
from tuner.answers.gap import Gap, size
from tuner.answers.gap import gap as measure_gap
from tuner.answers.gap import table as gap_table
from tuner.answers.influence import Influence, basis
from tuner.answers.influence import influence as measure_influence
from tuner.answers.influence import table as influence_table
from tuner.answers.settings import has_replicates, settings
from tuner.answers.table import Table
from tuner.dashboard import rendering
from tuner.dashboard.drawing import Axis
from tuner.dashboard.pages.view import View
from tuner.errors import UserError
from tuner.records import SHARE
from tuner.results import Measure, Results, TrialRow
from tuner.results import shown as shown_figures
from tuner.statistics import Interval, Mean

POINTS_MOST = 600
"""The most settings in the chart of validation against test."""
TABLE_MOST = 50
PARTS_MOST = 12
"""The most parameters and interactions in a chart of influence."""


@dataclass(frozen=True)
class Bar:
    """One row of a chart of intervals, in fractions of its width."""

    name: str
    standing: str
    low: float
    mean: float
    high: float
    said: str
    """The same in words."""


@dataclass(frozen=True)
class Chart:
    """A chart of values with their intervals, one per row."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]


# Settings, and levels of factors


@dataclass(frozen=True)
class ComparedLevels:
    """Levels of a factor, or whole settings, compared by the study's metric."""

    comparison: Comparison
    on_test: str
    """A sentence on the leading level on test images; "" if there is none."""

    JSON: ClassVar = ("comparison", "on_test")

    whole: bool = False
    """Whether its levels are whole settings, which are shown best first."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The levels in the order of the study file; whole settings by their means."""
        sign = -1.0 if self.comparison.measure.larger else 1.0
        rows = self.comparison.rows
        if not self.whole:
            return rows
        return tuple(
            sorted(rows, key=lambda row: sign * row.mean.value if row.mean else float("inf"))
        )

    @property
    def table(self) -> Table:
        """The levels with means, differences and verdicts."""
        shown = table(replace(self.comparison, rows=self.rows))
        head = ("setting", *shown.head[1:]) if self.whole else shown.head
        return replace(shown, head=head)

    @property
    def chart(self) -> Chart | None:
        """The means with their intervals, as a chart."""
        measure = self.comparison.measure
        rows = [
            (name, mark, _within(measure, row.mean), _with_interval(measure, row.mean))
            for row, (name, *_, mark) in zip(self.rows, self.table.rows, strict=True)
            if row.mean is not None
        ]
        return intervals(rows, measure.unit.scale) if len(rows) > 1 else None


def _within(measure: Measure, mean: Interval) -> Interval:
    """Return an interval cut to the measure's range, as in the table."""
    unit = measure.unit
    if not mean.bounded:
        return Interval(mean.value, mean.value, mean.value)
    return Interval(mean.value, max(unit.low, mean.low), min(unit.high, mean.high))


def _with_interval(measure: Measure, mean: Interval) -> str:
    value = words.figure(measure.unit, mean.value)
    ends = words.ends(measure.unit, mean)
    return f"{value}, 95% interval {ends}" if mean.bounded else f"{value}, no interval"


def intervals(
    rows: Sequence[tuple[str, str, Interval | Mean, str]], scale: float = 1.0
) -> Chart | None:
    """Lay out values with their intervals; None if they cannot be drawn."""
    ends = [end for _, _, value, _ in rows for end in (value.low, value.high)]
    if any(end is None for end in ends):
        return None
    axis = Axis.over(float(end) for end in ends if end is not None)
    if axis is None:
        return None
    return Chart(
        tuple(
            Bar(name, mark, axis.place(value.low), axis.place(value.value),
                axis.place(value.high), said)
            for name, mark, value, said in rows
            if value.low is not None and value.high is not None
        ),
        axis.ticks(scale),
    )  # fmt: skip


# Validation against test


@dataclass(frozen=True)
class Point:
    """One setting, in fractions of the chart's width and height."""

    x: float
    y: float
    said: str
    """Its name and figures."""
    trial: int
    """One of its trials, to which it links."""
    best: bool
    apart: bool
    """Whether validation and test differ significantly."""


@dataclass(frozen=True)
class ValTest:
    """A chart of each setting's accuracy on validation and on test."""

    size: str
    """A sentence that states the gap."""
    gap: Gap | None
    points: tuple[Point, ...]
    """The best one last, so that it is drawn on top."""
    stopped: tuple[tuple[float, str, int], ...]
    """Trials without a test figure: position on validation, state, and number."""
    ticks: tuple[tuple[float, str], ...]
    table: Table | None
    note: str

    JSON: ClassVar = ("size", "gap")


def val_test(results: Results, view: View) -> ValTest:
    """Return the chart of validation against test accuracy."""
    if not results.tested:
        untested = f"No complete trial of {results.title} was measured on a test set."
        return ValTest(untested, None, (), (), (), None, "")
    try:
        found = measure_gap(results)
    except UserError as error:
        return ValTest(str(error), None, (), (), (), None, "")
    numbers = view.numbers(results)
    # At the judged epoch, like the settings.
    column = results.prefix + "val_acc"
    chosen = [setting for setting in found.settings if not numbers.isdisjoint(setting.trials)]
    lost = [
        row for row in results.rows
        if row["trial"] in numbers and row.lost and _finite(row[column]) is not None
    ]  # fmt: skip
    axis = Axis.over(
        [
            *(value for one in chosen for value in (one.val_acc, one.test_acc)),
            *(row[column] for row in lost),
        ]
    )
    if axis is None:
        nothing = "No setting that matches the filter has a test accuracy."
        return ValTest(size(found), found, (), (), (), None, nothing)
    points = [
        Point(
            x=axis.place(one.val_acc),
            y=axis.place(one.test_acc),
            said=f"{rendering.compact(one.values) or 'the only setting'}: "
            f"{words.percent(one.val_acc)} on validation, "
            f"{words.percent(one.test_acc)} on test, "
            f"gap {words.with_ends(SHARE.difference, one.gap)}",
            trial=one.trials[0],
            best=results.best in one.trials,
            apart=one.gap.low > 0 or one.gap.high < 0,
        )
        for one in chosen
    ]
    drawn = _apart_on_screen(points)
    notes = []
    if len(drawn) < len(points):
        notes.append(f"{len(drawn):,} of {len(points):,} settings are drawn.")
    return ValTest(
        size(found),
        found,
        tuple(sorted(drawn, key=lambda point: (point.best, point.apart))),
        _on_the_edge(lost, column, axis),
        axis.ticks(100.0),
        gap_table(replace(found, settings=tuple(chosen)), results.title, TABLE_MOST),
        " ".join(notes),
    )


def _apart_on_screen(points: Sequence[Point]) -> list[Point]:
    """Return the points that do not hide each other, at most as many as a screen can show."""
    seen: dict[tuple[int, int, bool], Point] = {}
    for point in points:
        seen.setdefault((round(point.x * 300), round(point.y * 300), point.apart), point)
    best = [point for point in points if point.best]
    rest = [point for point in seen.values() if not point.best]
    if len(rest) > POINTS_MOST:
        rest = [rest[int(at)] for at in np.linspace(0, len(rest) - 1, POINTS_MOST)]
    return [*rest, *best]


def _on_the_edge(
    lost: Sequence[TrialRow], column: str, axis: Axis
) -> tuple[tuple[float, str, int], ...]:
    """Return stopped trials' positions on validation, one per visible position."""
    places: dict[tuple[float, str], int] = {}
    for row in lost:
        place = (round(axis.place(row[column]), 2), row["state"].lower())
        places.setdefault(place, row["trial"])
    return tuple((x, state, trial) for (x, state), trial in places.items())


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


# Influence


@dataclass(frozen=True)
class InfluencePicture:
    """A chart of how much each parameter matters for one figure."""

    influence: Influence
    bars: tuple[Bar, ...]
    """Largest first; shares are fractions."""
    table: Table
    basis: str

    JSON: ClassVar = ("influence",)


@dataclass(frozen=True)
class Influences:
    """Charts of how much each parameter matters, or why there are none."""

    pictures: tuple[InfluencePicture, ...]
    remark: str


def influences(results: Results) -> Influences:
    """Return the share of variance that each parameter explains, for each figure."""
    try:
        found = measure_influence(results)
    except UserError as error:
        return Influences((), str(error))
    return Influences(tuple(map(_influence, found)), "")


def _influence(found: Influence) -> InfluencePicture:
    parts = sorted(found.parts, key=lambda part: -part.share.value)[:PARTS_MOST]
    whole = influence_table(found)
    said = {row[0]: f"{row[1]}, 95% interval {row[2]}%" for row in whole.rows}
    bars = []
    for part in parts:
        name = " × ".join(part.names) if part.names else "the rest"
        low, high = max(0.0, part.share.low), min(1.0, part.share.high)
        standing = "" if len(part.names) == 1 else "together"
        bars.append(Bar(name, standing, low, min(1.0, part.share.value), high, said[name]))
    last = len(whole.head) - 1
    return InfluencePicture(found, tuple(bars), whole.without([last]), basis(found))


# The leaderboard


@dataclass(frozen=True)
class Board:
    """The best settings, or trials if settings have one seed."""

    table: Table | None
    trials: tuple[int, ...]
    """The trial that each row links to: that of the median seed."""
    total: int
    """The number of all that match the filter."""
    remark: str

    JSON: ClassVar = ("total", "remark", "rows=records")

    @property
    def records(self) -> list[dict[str, str | int]]:
        """The rows by column head."""
        if self.table is None:
            return []
        return [
            {"trial": number, **dict(zip(self.table.head, row, strict=True))}
            for number, row in zip(self.trials, self.table.rows, strict=True)
        ]


def board(results: Results, view: View) -> Board:
    """Return the leaderboard of the settings, or trials, that match the filter."""
    study, spec = results.study, results.spec
    if not results.ranked:
        return Board(None, (), 0, f"No trial of {results.title} is complete yet.")
    numbers = view.numbers(results)
    if not has_replicates(spec):
        rows = [row for row in results.ranked if row["trial"] in numbers]
        shown = rows[: view.top]
        return Board(
            leaderboard.trials(study, shown, len(rows)),
            tuple(row["trial"] for row in shown),
            len(rows),
            matching(len(rows), words.count(len(results.ranked), "complete trial")),
        )
    chosen = {row.configuration for row in results.rows if row["trial"] in numbers}
    ranked = [
        setting
        for setting in settings(results)
        if setting.rank is not None and setting.configuration in chosen
    ]
    best = ranked[: view.top]
    metric = spec.search.metric
    others = [name for name in shown_figures(spec) if name != metric]
    kept = [metric, *(name for name in others if any(one.means[name] for one in best))]
    return Board(
        leaderboard.settings(study, len(ranked), best, kept, varied=spec.varied),
        tuple(one.median_trial or 0 for one in best),
        len(ranked),
        matching(len(ranked), words.count(len(results.ranked_settings), "setting")),
    )


def matching(shown: int, every: str) -> str:
    """Say how many match the filter; "" if all do."""
    return "" if every.startswith(f"{shown:,} ") else f"{shown:,} of {every} match the filter."
