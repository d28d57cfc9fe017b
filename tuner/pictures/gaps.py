"""Pictures of the gap: validation against test accuracy, and the gap of each setting."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from tuner.answers import words
from tuner.answers.gap import Gap, SettingGap, choosing, named_cause, sampled
from tuner.answers.gap import gap as measure_gap
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import Subject, level_label, sentence
from tuner.results import Level

WITHIN = 2.4477
"""Half axes, in standard errors, of the ellipse with 95% of a bivariate normal distribution."""
SETTINGS_MOST = 30
POINTS_PLAIN = 400
"""More trials than this are drawn faint."""


def draw_val_test(subject: Subject) -> Picture:
    """Draw test against validation accuracy, with the diagonal and the error of one trial."""
    results = subject.results
    gap = measure_gap(results)
    by = results.factor(subject.by)
    rows = {row["trial"]: row for row in results.rows}
    levels: list[Level] = [None]
    if by is not None:
        levels = results.spec.in_order(by, {rows[trial.trial][by] for trial in gap.trials})
    if len(levels) > len(canvas.MARKERS):
        by, levels = None, [None]
    with canvas.sheet(height=4.4, width=5.6) as sheet:
        (axis,) = sheet.axes
        for place, level in enumerate(levels):
            mine = [t for t in gap.trials if by is None or rows[t.trial][by] == level]
            axis.plot(
                [t.val_acc for t in mine], [t.test_acc for t in mine], linestyle="none",
                marker=canvas.marker(place), color=canvas.colour(place), zorder=3,
                alpha=0.85 if len(gap.trials) <= POINTS_PLAIN else 0.3,
                label=None if by is None else f"{by} = {level_label(level)}",
            )  # fmt: skip
        _draw_error(axis, gap)
        _draw_diagonal(axis)
        axis.set_xlabel("validation accuracy")
        axis.set_ylabel("test accuracy")
        canvas.percent(axis, "x")
        canvas.percent(axis, "y")
        sheet.explain_labelled(axis)
        ring = Line2D([], [], linestyle="none", marker="o", markersize=9, color="black",
                      markerfacecolor="none")  # fmt: skip
        sheet.explain(ring, "error of one trial")
    return Picture(sheet, _short(gap), _val_test_note(gap))


def _draw_error(axis: Axes, gap: Gap) -> None:
    val, test = gap.val_acc.value, gap.test_acc.value
    wide = WITHIN * np.sqrt(max(val * (1 - val), 1e-6) / gap.val_worth)
    high = WITHIN * np.sqrt(max(test * (1 - test), 1e-6) / gap.test_worth)
    ellipse = Ellipse(
        (val, test), 2 * wide, 2 * high, fill=False, edgecolor="black", linewidth=1.1,
        zorder=2,
    )  # fmt: skip
    axis.add_patch(ellipse)
    axis.autoscale_view()


def _draw_diagonal(axis: Axes) -> None:
    low = min(axis.get_xlim()[0], axis.get_ylim()[0])
    high = min(1.005, max(axis.get_xlim()[1], axis.get_ylim()[1]))
    axis.plot(
        (low, high), (low, high), color=canvas.GREY, linestyle=(0, (4, 3)), linewidth=1,
        zorder=1, label="no gap",
    )  # fmt: skip
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    axis.set_aspect("equal")


def _short(found: Gap) -> str:
    """Return the size of the gap without its interval's small print."""
    gap = found.gap.scaled(100)
    ends = f"{words.signed(gap.low, 1)} to {words.signed(gap.high, 1)}"
    if found.gap.low > 0:
        size = f"Test accuracy is {gap.value:.1f} points below validation ({ends})"
    elif found.gap.high < 0:
        size = f"Test accuracy is {-gap.value:.1f} points above validation ({ends})"
    else:
        size = f"Validation and test accuracy are not distinguishable ({ends} points)"
    if found.too_few:
        size = f"Too few patients to judge the gap ({ends} points)"
    return "; ".join(filter(None, (size, named_cause(found))))


def _val_test_note(gap: Gap) -> str:
    error = (
        "The ellipse contains 95% of the points that one model would give on new images "
        f"({sampled(gap)}): differences inside it are not significant"
    )
    return sentence(["One point per complete trial", error, choosing(gap)])


def draw_gap(subject: Subject) -> Picture:
    """Draw the gap of each setting with its interval, best on validation first."""
    gap = measure_gap(subject.results)
    shown = gap.settings[:SETTINGS_MOST]
    with canvas.sheet(height=0.9 + 0.24 * len(shown)) as sheet:
        (axis,) = sheet.axes
        axis.axvspan(gap.gap.low, gap.gap.high, color=canvas.colour(5), alpha=0.25, linewidth=0)
        axis.axvline(gap.gap.value, color=canvas.colour(0), linewidth=1)
        axis.axvline(0, color="black", linewidth=0.8)
        for at, setting in enumerate(shown):
            interval = setting.gap
            axis.plot((interval.low, interval.high), (at, at), color="black", linewidth=1.2)
            axis.plot(interval.value, at, marker="o", color="black", markersize=4.5)
        axis.set_yticks(range(len(shown)), [_setting_label(setting) for setting in shown])
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xlabel("validation accuracy − test accuracy (points)")
        axis.xaxis.set_major_formatter(lambda value, _: words.signed(value * 100, 0))
        axis.grid(visible=False, axis="y")
    parts = [
        "Settings with 95% intervals, the best on validation first",
        "The band shows the study's mean gap with its 95% interval",
    ]
    if len(shown) < len(gap.settings):
        parts.append(f"The first {len(shown)} of {len(gap.settings)} settings")
    return Picture(sheet, _how_many(gap), sentence(parts))


def _how_many(gap: Gap) -> str:
    """Say in how many settings test differs significantly from validation."""
    if gap.too_few:
        return "There are too few patients to judge the gap of any setting"
    behind = sum(setting.gap.low > 0 for setting in gap.settings)
    ahead = sum(setting.gap.high < 0 for setting in gap.settings)
    many = len(gap.settings)
    some = f"{behind} of {words.count(many, 'setting')}"
    if behind == many:
        some = words.count(many, "setting") if many == 1 else f"all {many} settings"
    if behind:
        said = f"Test accuracy is significantly below validation accuracy in {some}"
        return f"{said}, and above it in {ahead}" if ahead else said
    if ahead:
        among = f"{ahead} of {words.count(many, 'setting')}"
        return f"Test accuracy is significantly above validation accuracy in {among}"
    if many == 1:
        return "Validation and test accuracy are not distinguishable"
    return f"Validation and test accuracy are not distinguishable in any of the {many} settings"


def _setting_label(setting: SettingGap) -> str:
    levels = setting.values.values()
    short = [f"{at:.3g}" if isinstance(at, float) else level_label(at) for at in levels]
    return ", ".join(short) or "the only setting"
