"""Pictures of training: loss and accuracy by epoch, and the courses of the learning rate."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tuner.answers import words
from tuner.answers.compare import compare
from tuner.errors import UserError
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import Subject, level_label, sentence, shortened
from tuner.results import COURSES_MOST, Curve, Level, RateCourse, curves, rates
from tuner.spec.study import Spec

LEVELS_MOST = 12
PANELS = (
    ("train_nll", "training", "loss (nats)"),
    ("val_loss", "validation", "loss (nats)"),
    ("train_acc", "training", "accuracy"),
    ("val_acc", "validation", "accuracy"),
)
COURSES_MARKED = 16
"""More lines than this are drawn thin, without markers."""


def draw_curves(subject: Subject) -> Picture:
    """Draw training and validation, loss and accuracy, with a band over seeds."""
    results = subject.results
    by = results.factor(subject.by)
    if by is not None and len({row[by] for row in results.rows}) > LEVELS_MOST:
        raise UserError(f"{by} has too many levels for one picture; name another with --by.")
    curves = _curves(subject, by)
    if not any(curve.epochs or curve.strays for curve in curves):
        raise UserError(f"No trial of {subject.title} has ended yet, so there are no curves.")
    rows = 3 if results.own else 2
    with canvas.sheet(rows, 2, height=2.3 * rows) as sheet:
        axes = sheet.axes
        for at, (axis, (name, split, unit)) in enumerate(zip(axes, PANELS, strict=False)):
            for place, curve in enumerate(curves):
                _draw_curve(axis, curve, name, place)
            axis.set_title(f"{split} {unit.split(' ')[0]}", loc="left")
            axis.set_xlabel("epoch" if at >= 2 else "")
            axis.set_ylabel(unit if at % 2 == 0 else "")
            canvas.whole_numbers(axis.xaxis)
        for left, right in ((0, 1), (2, 3)):
            _share_range(axes[left], axes[right])
        for axis in axes[2:4]:
            canvas.percent(axis)
        if results.own:
            _draw_own(axes[4], subject, curves)
            axes[5].set_visible(False)
        alike = len({curve.seeds for curve in curves}) == 1
        for place, curve in enumerate(curves):
            sheet.explain(_handle(place), _curve_label(curve, by, alike=alike))
    return Picture(sheet, _curves_title(subject, by, curves), _curves_note(curves, results.spec))


def _draw_own(axis: Axes, subject: Subject, curves: Sequence[Curve]) -> None:
    """Draw the study's metric if it is not a built-in figure."""
    metric = subject.results.metric
    for place, curve in enumerate(curves):
        _draw_curve(axis, curve, metric, place)
    name = metric.removeprefix("val_").replace("_", " ")
    axis.set_title(f"validation {name}", loc="left")
    axis.set_xlabel("epoch")
    axis.set_ylabel(shortened(name))
    canvas.whole_numbers(axis.xaxis)
    if subject.results.measures[metric].unit.scale == 100:
        canvas.percent(axis)


def _curves(subject: Subject, by: str | None) -> list[Curve]:
    """Return the curves in the order of levels in tables."""
    results = subject.results
    found = {curve.level: curve for curve in curves(results, by)}
    if by is None:
        return list(found.values())
    return [found[level] for level in results.spec.in_order(by, found)]


def _draw_curve(axis: Axes, curve: Curve, name: str, place: int) -> None:
    shade = canvas.colour(place)
    values = curve.by_seed[name]
    if values.size and not np.isnan(values).all():
        at = np.arange(1, values.shape[1] + 1)
        if curve.seeds > 1:
            axis.fill_between(
                at, values.min(axis=0), values.max(axis=0), color=shade, alpha=0.16, linewidth=0
            )
        axis.plot(
            at, values.mean(axis=0), color=shade, linestyle=canvas.dash(place),
            marker=canvas.marker(place), markevery=_marked(len(at), place),
        )  # fmt: skip
    for stray in curve.strays:
        line = stray.values[name]
        axis.plot(np.arange(1, len(line) + 1), line, color=shade, linewidth=0.7, alpha=0.6)
        axis.plot(len(line), line[-1], marker="x", color=shade, markersize=5)


def _marked(epochs: int, place: int) -> tuple[int, int]:
    """Offset the markers of each level, so that touching lines can be distinguished."""
    every = max(1, epochs // 6)
    return place % every, every


def _share_range(left: Axes, right: Axes) -> None:
    low = min(left.get_ylim()[0], right.get_ylim()[0])
    high = max(left.get_ylim()[1], right.get_ylim()[1])
    for axis in (left, right):
        axis.set_ylim(low, high)


def _handle(place: int) -> Line2D:
    return Line2D(
        [], [], color=canvas.colour(place), marker=canvas.marker(place),
        linestyle=canvas.dash(place),
    )  # fmt: skip


def _curve_label(curve: Curve, by: str | None, *, alike: bool) -> str:
    name = "all settings" if by is None else level_label(curve.level)
    if not alike:
        name += f", {words.count(curve.seeds, 'seed')}"
    if not curve.stopped:
        return name
    return f"{name} ({curve.stopped} of {curve.stopped + curve.complete} stopped)"


def _curves_title(subject: Subject, by: str | None, curves: Sequence[Curve]) -> str:
    whole = [curve for curve in curves if curve.epochs]
    if not whole:
        return f"{subject.title}: no trial has completed yet"
    if by is not None:
        seen = compare(subject.results, by=(by,), metric="val_loss")[0].headline
        if seen is not None:
            return seen.removesuffix(".")
    best = min(whole, key=lambda curve: float(np.nanmin(curve.by_seed["val_loss"].mean(axis=0))))
    course = best.by_seed["val_loss"].mean(axis=0)
    name = "Validation loss" if by is None else f"{by} = {level_label(best.level)}"
    lowest = f"{np.nanmin(course):.3f} at epoch {int(np.nanargmin(course)) + 1} of {len(course)}"
    alone = "; one seed, so no verdict" if best.seeds < 2 else ""
    if by is None:
        return f"{name} is lowest, {lowest}{alone}"
    return f"{name} reaches the lowest validation loss, {lowest}{alone}"


def _curves_note(curves: Sequence[Curve], spec: Spec) -> str:
    seeds = max((curve.seeds for curve in curves), default=0)
    parts = [
        "Losses are mean negative log-likelihoods of the true class, regardless of training loss"
    ]
    if seeds > 1:
        parts.append(f"Lines are means over up to {seeds} seeds; bands span the minimum to "
                     "the maximum")  # fmt: skip
    parts.append("A line ends where the first of its complete trials ended")
    if any(curve.strays for curve in curves):
        parts.append(f"Thin lines that end in × are trials that were {words.lost(spec)}; "
                     "they are left out of the means")  # fmt: skip
    elif any(curve.stopped for curve in curves):
        parts.append(f"Trials that were {words.lost(spec)} are not drawn because there "
                     "are too many")  # fmt: skip
    return sentence(parts)


def draw_schedules(subject: Subject) -> Picture:
    """Draw the learning rate by epoch, one line per distinct course."""
    results = subject.results
    spec = results.spec
    by = results.factor(subject.by or ("scheduler" if "scheduler" in spec.varied else None))
    read = rates(results, by)
    if not read:
        raise UserError(f"No trial of {subject.title} has trained an epoch yet.")
    found = _longest(read)
    levels: list[Level] = [None]
    if by is not None:
        levels = spec.in_order(by, {one.level for one in found})
    with canvas.sheet(height=3.0) as sheet:
        (axis,) = sheet.axes
        for one in found:
            _draw_course(axis, one, levels.index(one.level), many=len(found) > COURSES_MARKED)
        _scale_rates(axis, found)
        if by is not None:
            for place, level in enumerate(levels):
                sheet.explain(_handle(place), f"{by} = {level_label(level)}")
    title = _schedules_title(subject, found, whole=len(read) < COURSES_MOST)
    return Picture(sheet, title, _schedules_note(spec, by, found, levels))


def _draw_course(axis: Axes, rates: RateCourse, place: int, *, many: bool) -> None:
    axis.plot(
        np.arange(1, len(rates.values) + 1), rates.values, color=canvas.colour(place),
        linestyle=canvas.dash(place), marker="" if many else canvas.marker(place),
        markevery=_marked(len(rates.values), place), drawstyle="steps-post",
        linewidth=0.8 if many else 1.5, alpha=0.7 if many else 1.0,
    )  # fmt: skip


def _scale_rates(axis: Axes, rates: Sequence[RateCourse]) -> None:
    positive = np.concatenate([one.values[one.values > 0] for one in rates])
    if len(positive) and positive.max() > 20 * positive.min():
        canvas.plain_log(axis)
    axis.set_xlabel("epoch")
    axis.set_ylabel("learning rate")
    canvas.whole_numbers(axis.xaxis)


def _schedules_title(subject: Subject, rates: Sequence[RateCourse], *, whole: bool) -> str:
    courses = {tuple(one.values) for one in rates}
    values = np.concatenate([one.values for one in rates])
    curves = words.count(len(courses), "distinct learning-rate curve")
    many = f"{'' if whole else 'at least '}{curves}"
    if values.min() == values.max():
        return f"{subject.title}: the learning rate was {values.max():g} throughout"
    return f"{subject.title}: {many}, from {values.max():g} down to {values.min():.3g}"


def _schedules_note(
    spec: Spec, by: str | None, rates: Sequence[RateCourse], levels: Sequence[Level]
) -> str:
    parts = ["Recorded learning rate at the first step of each epoch"]
    others = [shortened(name) for name in spec.varied if name != by]
    if by is not None and len(rates) > len(levels) and others:
        parts.append(f"Lines of one colour differ in {words.listed(others)}")
    if len({tuple(one.values) for one in rates}) < len(rates):
        parts.append("Where lines of several levels coincide, their markers alternate")
    return sentence(parts)


def _longest(rates: Sequence[RateCourse]) -> list[RateCourse]:
    """Drop courses that are a prefix of another course of the level, from trials stopped early."""
    kept: list[RateCourse] = []
    for one in sorted(rates, key=lambda one: -len(one.values)):
        length = len(one.values)
        mine = [other for other in kept if other.level == one.level]
        if not any(np.array_equal(other.values[:length], one.values) for other in mine):
            kept.append(one)
    return kept
