"""Pictures of the search: parallel coordinates, and the history with pruning."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.compare import measure_named
from tuner.answers.influence import influence as measure_influence
from tuner.errors import UserError
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import Subject, level_label, named, sentence, shortened
from tuner.records import Value
from tuner.results import Results, TrialRow

Array = NDArray[np.float64]
TICKS_MOST = 8
DRAWN_PLAIN = 2_000
"""More lines than this are drawn as pixels, also in a file of vectors."""
INACTIVE = -0.08
"""Where a parameter that was not active is, below the axis."""
LINES_FEW = 300
"""More lines than this are drawn faint."""


def draw_parallel(subject: Subject) -> Picture:
    """Draw every complete trial as a line through its parameters to its result."""
    results = subject.results
    names = list(results.spec.varied)
    if not names:
        raise UserError(f"{subject.title} varies nothing, so there is nothing to plot.")
    metric = subject.metric or results.spec.search.metric
    measure = measure_named(results, metric)
    rows = [row for row in results.complete if metric in row.cells and row[metric] is not None]
    if not rows:
        raise UserError(f"No complete trial of {subject.title} has {metric} in its row.")
    values = np.array([row[metric] for row in rows], float)
    scales = [_scale([row[name] for row in rows]) for name in names]
    low, high = float(values.min()), float(values.max())
    last = (values - low) / (high - low) if high > low else np.full(len(rows), 0.5)
    heights = np.column_stack([*(one.heights for one in scales), last])
    with canvas.sheet(height=3.6) as sheet:
        (axis,) = sheet.axes
        _draw_lines(axis, heights, values, larger=measure.larger)
        for at, (name, scale) in enumerate(zip(names, scales, strict=True)):
            _draw_axis(axis, at, name, scale.ticks)
        ends = {0.0: f"{low:.4g}", 1.0: f"{high:.4g}"} if high > low else {0.5: f"{low:.4g}"}
        _draw_axis(axis, len(names), metric, ends)
        axis.set_xlim(-0.35, len(names) + 0.3)
        axis.set_ylim(-0.09, 1.2)
        axis.axis("off")
        shades = ScalarMappable(Normalize(low, high), _map(larger=measure.larger))
        sheet.figure.colorbar(shades, ax=axis, label=named(metric), fraction=0.03, pad=0.02)
    return Picture(sheet, _parallel_title(subject, metric), _parallel_note(results, rows))


@dataclass(frozen=True)
class _AxisScale:
    """Where each trial crosses one parameter's axis, and what is written beside it."""

    heights: Array
    ticks: Mapping[float, str]


def _scale(values: Sequence[Value | None]) -> _AxisScale:
    known = [value for value in values if value is not None]
    numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in known)
    if numeric and len(set(known)) > 1:
        return _by_size(values)
    distinct = sorted(dict.fromkeys(values), key=str)
    if len(distinct) == 1:
        return _AxisScale(np.full(len(values), 0.5), {0.5: level_label(distinct[0])})
    span = len(distinct) - 1
    place = {value: at / span for at, value in enumerate(distinct)}
    ticks = {at: level_label(value) for value, at in place.items()}
    return _AxisScale(np.array([place[value] for value in values]), ticks)


def _by_size(values: Sequence[Value | None]) -> _AxisScale:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    wide = low > 0 and high > 20 * low
    shown = np.log(numbers) if wide else numbers
    least, most = np.nanmin(shown), np.nanmax(shown)
    heights = (shown - least) / (most - least)
    # A parameter that was not active is below the axis, apart from the smallest value.
    heights = np.where(np.isnan(heights), INACTIVE, heights)
    distinct = np.unique(numbers[~np.isnan(numbers)])
    marks = np.linspace(least, most, 5)
    if len(distinct) <= TICKS_MOST:
        marks = np.log(distinct) if wide else distinct
    ticks = {
        float((mark - least) / (most - least)): f"{np.exp(mark) if wide else mark:.3g}"
        for mark in marks
    }
    if np.isnan(numbers).any():
        ticks[INACTIVE] = level_label(None)
    return _AxisScale(heights, ticks)


def _draw_lines(axis: Axes, heights: Array, results: Array, *, larger: bool) -> None:
    order = np.argsort(results if larger else -results, kind="stable")  # the best on top
    points = np.stack(np.broadcast_arrays(np.arange(heights.shape[1]), heights[order]), axis=-1)
    best = max(1, len(order) // 10)
    strong = np.arange(len(order)) >= len(order) - best
    lines = LineCollection(
        list(points), cmap=_map(larger=larger), linewidths=np.where(strong, 1.6, 0.7),
        alpha=np.where(strong, 0.95, 0.4 if len(order) < LINES_FEW else 0.12),
    )  # fmt: skip
    lines.set_array(results[order])
    lines.set_rasterized(len(order) > DRAWN_PLAIN)
    axis.add_collection(lines)


def _map(*, larger: bool) -> mpl.colors.Colormap:
    # Dark is good, and grey print keeps the order.
    shades = mpl.colormaps["cividis"](np.linspace(0.0, 0.88, 256))  # paler is lost on paper
    return ListedColormap(shades[::-1] if larger else shades)


def _draw_axis(axis: Axes, at: int, name: str, ticks: Mapping[float, str]) -> None:
    axis.plot((at, at), (0, 1), color="black", linewidth=0.9)
    # Every other name a little higher, so that long ones have room beside each other.
    axis.text(
        at, 1.06 + 0.07 * (at % 2), shortened(name), ha="center", va="bottom", weight="bold",
        size=8.5,
    )  # fmt: skip
    for height, label in ticks.items():
        axis.plot((at - 0.015, at), (height, height), color="black", linewidth=0.9)
        axis.text(
            at + (0.02 if at else -0.03), height, label, va="center", size=7.5, zorder=5,
            ha="left" if at else "right",
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _parallel_title(subject: Subject, metric: str) -> str:
    # With too few trials to say what matters, the lines can still be drawn.
    with suppress(UserError):
        for one in measure_influence(subject.results):
            if one.metric == metric:
                return one.headline[0].upper() + one.headline[1:]
    return f"{subject.title}: {named(metric)} by parameter"


def _parallel_note(results: Results, drawn: Sequence[TrialRow]) -> str:
    parts = [f"{words.count(len(drawn), 'complete trial')}; bold lines are the best 10%"]
    lost = sum(row.lost for row in results.rows)
    if lost:
        verb = "is" if lost == 1 else "are"
        parts.append(f"{words.lost_trials(lost, results.spec)} {verb} not shown")
    return sentence(parts)


def draw_history(subject: Subject) -> Picture:
    """Draw the study's metric trial by trial, the best so far, and where trials were stopped."""
    results = subject.results
    spec = results.spec
    metric = spec.search.metric
    complete = results.complete
    smaller = spec.direction == "minimize"
    with canvas.sheet(height=3.2) as sheet:
        (axis,) = sheet.axes
        rows = [row for row in complete if row.value is not None]
        at = np.array([row["trial"] for row in rows])
        values = np.array([row.value for row in rows], float)
        crowded = len(rows) > DRAWN_PLAIN
        axis.plot(at, values, linestyle="none", marker="o", color=canvas.colour(0),
                  alpha=0.3 if crowded else 0.8, markersize=2 if crowded else 4.5,
                  rasterized=crowded, label=f"complete ({len(rows)})")  # fmt: skip
        best = np.minimum.accumulate(values) if smaller else np.maximum.accumulate(values)
        axis.step(at, best, where="post", color="black", linewidth=1.2, label="best so far")
        _draw_stopped(axis, results.rows, metric)
        if smaller and values.min() > 0 and np.nanmax(values) > 20 * values.min():
            canvas.plain_log(axis)
        axis.set_xlabel("trial")
        axis.set_ylabel(named(metric))
        sheet.explain_labelled(axis)
    return Picture(sheet, _history_title(subject, at, best), _history_note(spec.search.at))


def _draw_stopped(axis: Axes, rows: Sequence[TrialRow], metric: str) -> None:
    bottom = axis.get_xaxis_transform()
    marks = (
        ("PAUSED", "1", canvas.colour(3)),
        ("PRUNED", "x", canvas.colour(1)),
        ("DIVERGED", "+", canvas.colour(2)),
        ("FAILED", "v", "#333333"),
    )
    for state, mark, shade in marks:
        mine = [row for row in rows if row["state"] == state]
        known = [
            row for row in mine
            if metric == "val_loss" and (loss := row["last_val_loss"]) is not None
            and math.isfinite(loss)
        ]  # fmt: skip
        label = f"{state.lower()} ({len(mine)})" if mine else None
        if known:
            axis.plot([row["trial"] for row in known], [row["last_val_loss"] for row in known],
                      linestyle="none", marker=mark, color=shade, label=label)  # fmt: skip
        rest = [row for row in mine if row not in known]
        if rest:
            axis.plot([row["trial"] for row in rest], [0.01] * len(rest), transform=bottom,
                      linestyle="none", marker=mark, color=shade, clip_on=False,
                      label=None if known else label)  # fmt: skip


def _history_title(subject: Subject, at: Array, best: Array) -> str:
    place = int(np.argmax(best == best[-1]))
    metric = subject.results.spec.search.metric
    unit = subject.results.measures[metric].unit
    after = len(at) - 1 - place
    return (
        f"The best {named(metric)} is {words.figure(unit, best[-1])} (trial {int(at[place])}); "
        f"{words.count(after, 'later trial')} did not improve on it"
    )


def _history_note(moment: str) -> str:
    where = (
        f"Each complete trial at its {moment} epoch; others at their last validation loss, or at "
        "the bottom edge if the metric is a different one or the loss is NaN"
    )
    bias = "The best of many looks better than it is: selection bias (`tuner gap`)"
    return sentence([where, bias])
