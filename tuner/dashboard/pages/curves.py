"""A study's training curves as data for its chart: settings or levels, and stopped trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers import words
from tuner.answers.columns import unit_of
from tuner.answers.plain import plain
from tuner.answers.settings import has_replicates, settings, short_names
from tuner.dashboard import rendering
from tuner.dashboard.desk import PATIENCE, Desk
from tuner.dashboard.pages.view import View, curve_kinds
from tuner.records import Unit
from tuner.results import Curve, Results, Stray, curves, setting_curves, strays
from tuner.store.studies import Study

CURVES_MOST = 8
"""The most settings whose curves are drawn, the best ones; there are no more colours."""
STRAYS_MOST = 24
"""The most stopped trials that are drawn."""
WIDE = 20.0
"""If a loss exceeds its minimum by this factor, its axis is logarithmic."""
POINTS_MOST = 600
"""The most points of a line sent to a browser; a screen cannot show more."""


@dataclass(frozen=True)
class Line:
    """One line of a chart: a mean over seeds, with a band from minimum to maximum."""

    name: str
    seeds: int
    stopped: int
    best_epoch: int
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class StrayLine:
    """A trial that was stopped early."""

    trial: int
    values: list[float | None]


@dataclass(frozen=True)
class Curves:
    """Lines over epochs."""

    label: str
    epochs: list[int]
    lines: tuple[Line, ...]
    note: str
    strays: tuple[StrayLine, ...] = ()
    range: tuple[float, float] | None = None
    """The range of the vertical axis, if diverged trials would otherwise dominate it."""
    log: bool = False
    """Whether the vertical axis is logarithmic."""
    scale: float = 1.0
    """The factor from values to displayed figures: 100 for accuracies, which are in per cent."""


def curves_data(request: Request) -> Response:
    """Return the lines of the study's chart as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    drawn = find_curves(desk, study, View.of(request, study))
    if drawn is None:
        return Response(status_code=202)
    if request.headers.get(rendering.HAVE) == drawn.mark:
        return Response(status_code=204)
    return JSONResponse(drawn.lines, headers={rendering.HAVE: drawn.mark})


@dataclass(frozen=True)
class CurveLines:
    """What a browser draws, and the hash by which it says that it has it."""

    lines: Any
    mark: str


def find_curves(
    desk: Desk, study: Study, view: View, patience: float = PATIENCE
) -> CurveLines | None:
    """Return the lines of the study's chart; None while they are computed for the first time."""
    kept = desk.think(("curves", view), lambda results: _drawn(results, view), study, patience)
    return None if kept is None else kept.value


def _drawn(results: Results, view: View) -> CurveLines:
    found = _curves(results, view)
    return CurveLines(plain(found), rendering.mark(repr(found)))


def _curves(results: Results, view: View) -> Curves:
    numbers = view.numbers(results)
    notes = []
    if view.group == "setting":
        named, note = _best_settings(results, numbers)
        notes += [note] if note else []
        found = {int(str(one.level)): one for one in setting_curves(results, list(named))}
        drawn = [(label, found[number]) for number, label in named.items() if number in found]
    else:
        chosen = None if not view.filtered else sorted(numbers)
        by_level = {curve.level: curve for curve in curves(results, view.group, chosen)}
        levels = results.spec.in_order(view.group, by_level)[:CURVES_MOST]
        if len(by_level) > len(levels):
            notes.append(f"{len(levels)} of {len(by_level)} levels of {view.group} are shown.")
        drawn = [(f"{view.group}={rendering.cell(level)}", by_level[level]) for level in levels]
    smaller = _smaller_is_better(results, view.curve)
    lines = [_line(label, one, view.curve, smaller=smaller) for label, one in drawn if one.epochs]
    stopped: Sequence[Stray] = ()
    if view.stopped:
        lost = [row["trial"] for row in results.rows if row.lost and row["trial"] in numbers]
        shown = _spread(lost, STRAYS_MOST)
        stopped = strays(results, shown)
        if len(shown) < len(lost):
            notes.append(f"{len(shown)} of {words.count(len(lost), 'stopped trial')} are drawn.")
    span, log = _range(lines, stopped, view.curve)
    unit = unit_of(view.curve, results.spec.metrics)
    lengths = [len(line.mean) for line in lines] + [len(one.values[view.curve]) for one in stopped]
    epochs = max(lengths, default=0)
    places = _places(epochs, [line.best_epoch for line in lines])
    return Curves(
        label=with_unit(curve_kinds(results.study)[view.curve], unit),
        epochs=[place + 1 for place in places],
        lines=tuple(_thinned(line, places) for line in lines),
        note=" ".join(notes),
        strays=tuple(
            StrayLine(one.trial, _at(_numbers(one.values[view.curve]), places)) for one in stopped
        ),
        range=span,
        log=log,
        scale=scale_of(unit),
    )


def with_unit(label: str, unit: Unit | None) -> str:
    """Return an axis label with per cent for shares; other labels contain their unit."""
    return label if scale_of(unit) == 1 or unit is None else f"{label} ({unit.label})"


def scale_of(unit: Unit | None) -> float:
    """Return the factor from a value to the displayed figure."""
    return 1.0 if unit is None else unit.scale


def _spread(items: Sequence[int], most: int) -> list[int]:
    """Return at most this many items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, most)]


def _range(
    lines: Sequence[Line], stopped: Sequence[Stray], name: str
) -> tuple[tuple[float, float] | None, bool]:
    """Return the range of the vertical axis, if not automatic, and whether it is logarithmic.

    It covers all lines, and stopped trials up to 1.5 times their range: otherwise an exploding loss
    would squeeze all others into one pixel.
    """
    kept = [value for line in lines for value in (*line.low, *line.high) if value is not None]
    strayed = np.array([value for one in stopped for value in one.values[name]])
    strayed = strayed[np.isfinite(strayed)]
    if not kept and len(strayed):
        kept = [float(np.quantile(strayed, share)) for share in (0.0, 0.9)]
    if not kept:
        return None, False
    log = min(kept) > 0 and max(kept) > WIDE * min(kept)
    if not len(strayed):
        return None, log
    ends = np.array([min(kept), max(kept)])
    if log:
        ends, strayed = np.log(ends), np.log(strayed[strayed > 0])
    room = 0.5 * (float(np.ptp(ends)) or abs(float(ends[1])) or 1.0)
    within = np.clip(strayed, ends[0] - room, ends[1] + room)
    low, high = min(ends[0], *within), max(ends[1], *within)
    edge = 0.03 * ((high - low) or 1.0)
    low, high = low - edge, high + edge
    return ((float(np.exp(low)), float(np.exp(high))) if log else (float(low), float(high))), log


def _best_settings(results: Results, numbers: frozenset[int]) -> tuple[dict[int, str], str]:
    """Return the best settings' names by number, and a remark on those left out."""
    chosen = {row.configuration for row in results.rows if row["trial"] in numbers}
    ranked = [
        setting
        for setting in settings(results)
        if setting.rank is not None and setting.configuration in chosen
    ]
    shown = ranked[:CURVES_MOST]
    names = short_names(shown, results.spec)
    note = ""
    if len(ranked) > len(shown):
        note = f"The best {len(shown)} of {len(ranked)} settings are shown."
    elif has_replicates(results.spec) and not ranked:
        note = "No setting has a complete seed yet."
    return {one.configuration: names[one.configuration] or "setting" for one in shown}, note


def _smaller_is_better(results: Results, name: str) -> bool:
    if name == results.metric:
        return results.spec.direction == "minimize"
    return name.endswith(("loss", "nll"))


def _line(label: str, curve: Curve, name: str, *, smaller: bool) -> Line:
    values = curve.by_seed[name]
    mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
    judged = mean if smaller else -mean
    best = int(np.nanargmin(judged)) + 1 if np.isfinite(judged).any() else 0
    return Line(label, curve.seeds, curve.stopped, best, *map(_numbers, (mean, low, high)))


def _numbers(values: Any) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _places(epochs: int, best: Sequence[int]) -> list[int]:
    """Return the epochs to draw: all, or as many as a screen can show, including the best ones."""
    if epochs <= POINTS_MOST:
        return list(range(epochs))
    spread = {round(place) for place in np.linspace(0, epochs - 1, POINTS_MOST)}
    return sorted(spread | {epoch - 1 for epoch in best if epoch})


def _at(values: list[float | None], places: Sequence[int]) -> list[float | None]:
    return [values[place] if place < len(values) else None for place in places]


def _thinned(line: Line, places: Sequence[int]) -> Line:
    return Line(
        line.name, line.seeds, line.stopped, line.best_epoch,
        _at(line.mean, places), _at(line.low, places), _at(line.high, places),
    )  # fmt: skip
