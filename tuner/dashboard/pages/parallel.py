"""Data for the chart of parallel coordinates: one line per trial, brushes from the address.

A brush is a set of conditions, `lr>=0.001 lr<=0.01 scheduler:step,cosine`, the same as those that
filter the table of trials. A browser gets no more lines than its pixels can show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers import words
from tuner.answers.plain import plain
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.view import View
from tuner.errors import UserError
from tuner.records import Unit, metric_of
from tuner.results import Condition, Level, Results, TrialRow
from tuner.spec.study import Spec

PIXELS = 240
"""Distinct positions on an axis; lines that share all positions are drawn once."""
CHOSEN_MOST, OTHERS_MOST = 800, 300
"""The most lines inside and outside the brush."""
BEST = 20
"""This many best trials are never left out."""
INACTIVE = -0.08
"""The position, below the axis, of a parameter that was not active."""
TICKS_MOST = 9
WIDE = 20.0
"""An axis is logarithmic if its high end is this many times its low end."""


@dataclass(frozen=True)
class Tick:
    """A value on an axis, with its text in a condition."""

    place: float
    label: str
    text: str | None = None
    """None on an axis of numbers, and for a text that cannot be in a list of values."""


@dataclass(frozen=True)
class ParallelAxis:
    """One parameter, or at the end the study's metric."""

    name: str
    column: str
    ticks: tuple[Tick, ...]
    low: float | None
    """The value at 0; None if the axis has levels."""
    high: float | None
    log: bool
    brush: tuple[float, float] | None
    """The selected part."""

    JSON: ClassVar = ("name", "column", "ticks", "low", "high", "log", "brush")


@dataclass(frozen=True)
class ParallelLine:
    """One trial."""

    trial: int
    state: str
    chosen: bool
    places: tuple[float | None, ...]
    """On each axis; None after the last one that it reached."""
    said: str


@dataclass(frozen=True)
class Parallel:
    """Everything that the chart shows."""

    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]
    """Best last, so that they are drawn on top."""
    larger: bool
    """Whether the best trials are at the high end of the metric's axis."""
    note: str


def parallel_data(request: Request) -> Response:
    """Return the lines of the study's chart as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    view = View.of(request, study)
    question = ("parallel", view.conditions, view.stopped)
    kept = desk.think(question, lambda results: _parallel(results, view), study)
    if kept is None:
        return Response(status_code=202)
    text = rendering.mark(repr(kept.value))
    if request.headers.get(rendering.HAVE) == text:
        return Response(status_code=204)
    return JSONResponse(plain(kept.value), headers={rendering.HAVE: text})


def _parallel(results: Results, view: View) -> Parallel:
    spec = results.spec
    if not spec.varied:
        raise UserError(f"{results.title} varies no parameter, so there is nothing to draw.")
    rows = [row for row in results.rows if row.ended and (view.stopped or not row.lost)]
    if not rows:
        raise UserError(f"No trial of {results.title} has ended yet.")
    chosen = view.numbers(results)
    axes = [
        *((name, name, [row[name] for row in rows]) for name in spec.varied),
        (spec.search.metric, results.prefix + spec.search.metric, [_value(row) for row in rows]),
    ]
    scales = [
        *(_scale(values, spec.in_order(name, set(values))) for name, _, values in axes[:-1]),
        _by_size(axes[-1][2], _unit(spec)),
    ]
    places = np.column_stack([scale.places for scale in scales])
    larger = spec.direction == "maximize"
    last = places[:, -1] if larger else 1 - places[:, -1]
    order = [int(place) for place in np.argsort(np.nan_to_num(last, nan=-1.0), kind="stable")]
    inside = [place for place in order if rows[place]["trial"] in chosen]
    outside = [place for place in order if rows[place]["trial"] not in chosen]
    shown = [*thinned(outside, places, OTHERS_MOST), *thinned(inside, places, CHOSEN_MOST)]
    marked = set(inside)
    return Parallel(
        axes=tuple(
            ParallelAxis(
                name, column, scale.ticks, scale.low, scale.high, scale.log,
                _brush(scale, [one for one in view.conditions if one.column == column]),
            )
            for (name, column, _), scale in zip(axes, scales, strict=True)
        ),
        lines=tuple(
            ParallelLine(
                rows[at]["trial"],
                rows[at]["state"].lower(),
                at in marked,
                tuple(None if math.isnan(one) else round(float(one), 4) for one in places[at]),
                _said(rows[at], spec),
            )
            for at in shown
        ),
        larger=larger,
        note=_note(len(shown), len(rows), len(inside), filtered=view.filtered),
    )  # fmt: skip


def _value(row: TrialRow) -> float | None:
    known = row.complete and row.value is not None and math.isfinite(row.value)
    return row.value if known else None


def _unit(spec: Spec) -> Unit:
    return metric_of(spec.search.metric, spec.metrics).read_in


def _said(row: TrialRow, spec: Spec) -> str:
    named = rendering.compact({name: row[name] for name in spec.varied})
    value = _value(row)
    end = row["state"].lower()
    if value is not None:
        end = f"{spec.search.metric} {words.figure(_unit(spec), value)}"
    return f"trial {row['trial']}: {named}, {end}"


def thinned(items: Sequence[int], places: NDArray[np.float64], most: int) -> list[int]:
    """Return the lines that a screen can distinguish, at most this many, in their order."""
    seen: dict[bytes, int] = {}
    pixels = np.nan_to_num(places * PIXELS, nan=-9999).astype(np.int16)
    for at in items:
        seen[pixels[at].tobytes()] = at
    apart = sorted(seen.values(), key={at: place for place, at in enumerate(items)}.__getitem__)
    if len(apart) <= most:
        return apart
    rest, best = apart[:-BEST], apart[-BEST:]
    return [*(rest[int(at)] for at in np.linspace(0, len(rest) - 1, most - BEST)), *best]


@dataclass(frozen=True)
class _Scale:
    places: NDArray[np.float64]
    ticks: tuple[Tick, ...]
    low: float | None = None
    high: float | None = None
    log: bool = False

    def place(self, value: float) -> float:
        """Return a number's position on a numerical axis, clamped to its ends."""
        assert self.low is not None
        assert self.high is not None
        if self.log and value <= 0:
            return 0.0
        least, most, here = (math.log(one) if self.log else one
                             for one in (self.low, self.high, value))  # fmt: skip
        return round(min(1.0, max(0.0, (here - least) / (most - least))), 4)


def _scale(values: Sequence[Level], levels: Sequence[Level]) -> _Scale:
    known = [value for value in values if value is not None]
    if len(set(known)) > 1 and all(map(_is_number, known)):
        return _by_size(values)
    # The first level of the study file is on top.
    span = max(1, len(levels) - 1)
    place = {level: 1 - at / span if len(levels) > 1 else 0.5 for at, level in enumerate(levels)}
    ticks = tuple(Tick(at, words.level_name(level), _text(level)) for level, at in place.items())
    return _Scale(np.array([place[value] for value in values]), ticks)


def _is_number(value: Level) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(level: Level) -> str | None:
    """Return a level's text in a condition; None if it cannot be in a list of values."""
    if level is None:
        return ""
    text = str(level).lower() if isinstance(level, bool) else str(level)
    return None if any(one.isspace() or one in ",\"'" for one in text) or not text else text


def _by_size(values: Sequence[Level], unit: Unit | None = None) -> _Scale:
    """Return an axis of numbers; `unit` is given for the metric."""
    numbers = [float(value) for value in values if value is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    if low == high:
        low, high = low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2
    log = low > 0 and high > WIDE * low
    scale = _Scale(np.empty(0), (), low, high, log)
    missing = INACTIVE if unit is None else math.nan
    places = np.array(
        [missing if value is None else scale.place(float(value)) for value in values], dtype=float
    )
    distinct = sorted(set(numbers))
    marks: Sequence[float] = distinct
    if len(distinct) > TICKS_MOST or unit is not None:
        spread = np.geomspace if log else np.linspace
        marks = [float(one) for one in spread(low, high, 5)]
    ticks = [Tick(scale.place(mark), _label(mark, unit)) for mark in marks]
    if unit is None and any(value is None for value in values):
        ticks.append(Tick(INACTIVE, words.level_name(None), ""))
    return _Scale(places, tuple(ticks), low, high, log)


def _label(mark: float, unit: Unit | None) -> str:
    return words.minus(f"{mark:.3g}") if unit is None else words.figure(unit, mark)


def _brush(scale: _Scale, conditions: Sequence[Condition]) -> tuple[float, float] | None:
    """Return the part of an axis that conditions select; None if they select all of it."""
    if not conditions:
        return None
    if scale.low is None or all(condition.text == "" for condition in conditions):
        fits = [
            tick.place
            for tick in scale.ticks
            if tick.text is not None
            and all(condition.holds(tick.text or None) for condition in conditions)
        ]
        return (min(fits), max(fits)) if fits else None
    # A brush cannot show a single value excluded by !=.
    bounds = [
        condition for condition in conditions if condition.sign != "!=" and _numbers(condition)
    ]
    if not bounds:
        return None
    low, high = 0.0, 1.0
    for one in bounds:
        places = [scale.place(number) for number in _numbers(one)]
        if one.sign not in ("<", "<="):
            low = max(low, min(places))
        if one.sign not in (">", ">="):
            high = min(high, max(places))
    return (low, high) if low <= high else None


def _numbers(condition: Condition) -> list[float]:
    """Return the numbers in a condition, all of them if it has a list."""
    each = condition.any_of if condition.sign == ":" else (condition,)
    return [one.number for one in each if one.number is not None]


def _note(shown: int, ended: int, chosen: int, *, filtered: bool) -> str:
    said = f"{words.count(ended, 'trial')} ended"
    if filtered:
        said += f"; {chosen:,} match the filter"
    if shown < ended:
        said += f"; {shown:,} lines are drawn; more could not be told apart"
    return f"{said}."
