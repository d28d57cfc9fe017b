"""Pictures of settings: the effects of factors, and how much each parameter matters."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from tuner.answers import words
from tuner.answers.compare import Comparison, Row, compare, headlines
from tuner.answers.influence import Influence, VarianceShare
from tuner.answers.influence import influence as measure_influence
from tuner.errors import UserError
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import Subject, level_label, named, sentence, shortened
from tuner.statistics import Interval

ROW = 0.27
"""Height of one level in inches."""
PARTS_MOST = 8


def draw_effects(subject: Subject) -> Picture:
    """Draw the mean of each level with its interval, and which are tied with the best."""
    results = subject.results
    by = () if subject.by is None else (subject.by,)
    comparisons = compare(results, by=by, metric=subject.metric)
    measure = comparisons[0].measure
    heights = [len(comparison.rows) + 1.6 for comparison in comparisons]
    with canvas.sheet(
        len(comparisons), 1, height=0.5 + ROW * sum(heights), heights=heights
    ) as sheet:
        axes = sheet.axes
        for axis, comparison in zip(axes, comparisons, strict=True):
            _draw_levels(axis, comparison)
        _share_width(axes)
        for axis in axes:
            if measure.unit.scale == 100:
                canvas.percent(axis, "x")
        unit = "" if measure.unit.scale == 100 else measure.unit.of_differences
        axes[-1].set_xlabel(named(measure.name) + (unit and f" ({unit})"))
    return Picture(sheet, _effects_title(subject, comparisons), _effects_note(subject, comparisons))


def _draw_levels(axis: Axes, comparison: Comparison) -> None:
    for at, row in enumerate(comparison.rows):
        if row.mean is not None:
            _draw_interval(axis, row.mean, at, filled=row.tied or row.against is None)
            continue
        axis.annotate(
            _why_not(row), (0.01, at), xycoords=("axes fraction", "data"),
            va="center", size=8, color=canvas.GREY,
        )  # fmt: skip
    axis.set_yticks(
        range(len(comparison.rows)), [_row_label(comparison, row) for row in comparison.rows]
    )
    axis.set_ylim(len(comparison.rows) - 0.4, -0.6)
    axis.set_title(comparison.factor, loc="left")
    axis.grid(visible=False, axis="y")


def _draw_interval(
    axis: Axes, interval: Interval, at: float, *, filled: bool, place: int = 0
) -> None:
    shade = canvas.colour(place)
    if interval.bounded:
        axis.plot((interval.low, interval.high), (at, at), color=shade, linewidth=1.6)
    axis.plot(
        interval.value, at, marker="o" if filled else "D", color=shade, markersize=5.5,
        markerfacecolor=shade if filled else "white",
    )  # fmt: skip


def _row_label(comparison: Comparison, row: Row) -> str:
    name = level_label(row.standing.level)
    if row.mean is None:
        return name
    if row.against is None:
        return f"{name} ({'reference' if comparison.named else 'best'})"
    return name


def _why_not(row: Row) -> str:
    standing = row.standing
    if standing.throughout is not None:
        number = standing.pruned or standing.diverged
        return f"not compared: {standing.throughout} throughout ({number} of {standing.trials})"
    return f"not compared: {standing.complete} of {standing.trials} trials complete"


def _share_width(axes: Sequence[Axes]) -> None:
    low = min(axis.get_xlim()[0] for axis in axes)
    high = max(axis.get_xlim()[1] for axis in axes)
    for axis in axes:
        axis.set_xlim(low, high)


def _effects_title(subject: Subject, comparisons: Sequence[Comparison]) -> str:
    said = [one.removesuffix(".") for one in headlines(comparisons)]
    if not said and max(comparison.seeds for comparison in comparisons) < 2:
        return (
            f"{subject.title}: with one seed per setting, no difference can be distinguished "
            "from chance"
        )
    if not said:
        return comparisons[0].sentences[0].removesuffix(".")
    return "; ".join(said)


def _effects_note(subject: Subject, comparisons: Sequence[Comparison]) -> str:
    comparison = comparisons[0]
    unit = "seed" if comparison.paired else "configuration"
    over = [f"{words.count(max(c.seeds for c in comparisons), unit)}"]
    if comparison.images:
        over.append(words.sampled(comparison.images, comparison.patients))
    shared = f"seeds and {words.sampling_unit(comparison.patients)}"
    parts = [
        f"Means with 95% intervals over {words.listed(over)}",
        "Filled: best, or tied with it; hollow: significantly different",
        f"Settings share {shared}, so differences are more certain than these intervals suggest",
    ]
    survivors = any(row.standing.survivors_only and row.mean for c in comparisons for row in c.rows)
    if survivors:
        lost = words.lost(subject.results.spec, "and").capitalize()
        parts.append(f"{lost} trials are left out")
    return sentence(parts)


def draw_influence(subject: Subject) -> Picture:
    """Draw the share of variance explained by each parameter, with its interval."""
    influences = [
        influence
        for influence in measure_influence(subject.results)
        if subject.metric in (None, influence.metric)
    ]
    if not influences:
        known = ", ".join(influence.metric for influence in measure_influence(subject.results))
        raise UserError(f"Influence can be plotted for {known}, not for {subject.metric!r}.")
    names = _order(influences)
    height = 0.75 + ROW * (len(names) + 0.4)
    with canvas.sheet(1, len(influences), height=max(1.9, height)) as sheet:
        axes = sheet.axes
        for axis, influence in zip(axes, influences, strict=True):
            parts = {part.names: part for part in influence.parts}
            for at, name in enumerate(names):
                if name in parts:
                    _draw_share(axis, parts[name], at)
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.set_xlim(0, 1)
            canvas.percent(axis, "x")
            axis.set_title(named(influence.metric), loc="left")
            axis.set_xlabel("share")
            axis.set_yticks(range(len(names)), [""] * len(names))
            axis.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(names)), [_part_label(name) for name in names])
    return Picture(sheet, _influence_title(influences), _influence_note(influences))


def _influence_title(influences: Sequence[Influence]) -> str:
    seen = [influence.headline for influence in influences if influence.ahead]
    unseen = words.listed([influence.metric for influence in influences if not influence.ahead])
    if unseen:
        seen.append(f"for {unseen}, no parameter clearly matters more than the others")
    title = "; ".join(seen)
    return title[0].upper() + title[1:]


def _order(influences: Sequence[Influence]) -> list[tuple[str, ...]]:
    """Return single parameters, largest first, then interactions."""
    largest: dict[tuple[str, ...], float] = {}
    for influence in influences:
        for part in influence.parts:
            largest[part.names] = max(largest.get(part.names, 0.0), part.share.value)
    ordered = sorted(largest, key=lambda names: (len(names) != 1, not names, -largest[names]))
    alone = [names for names in ordered if len(names) == 1]
    return ordered[: max(PARTS_MOST, len(alone))]


def _draw_share(axis: Axes, part: VarianceShare, at: int) -> None:
    together = len(part.names) != 1
    axis.barh(
        at, part.share.value, height=0.62, color=canvas.FAINT if together else canvas.colour(5),
        hatch="///" if together else None, edgecolor="white", linewidth=0,
    )  # fmt: skip
    if part.share.high > part.share.low:
        axis.plot((part.share.low, part.share.high), (at, at), color="black", linewidth=1.2)
    axis.plot(part.share.value, at, marker="|", color="black", markersize=7)


def _part_label(names: tuple[str, ...]) -> str:
    return " × ".join(shortened(name) for name in names) if names else "all others"


def _influence_note(influences: Sequence[Influence]) -> str:
    influence = influences[0]
    how = (
        "Shares of the variance between settings, after removing noise"
        if influence.how == "decomposition"
        else "PED-ANOVA: which parameters set the best 10% of trials apart"
    )
    parts = [
        f"{how}, with 95% intervals by bootstrap",
        f"{words.count(influence.settings, 'setting')}, {words.count(influence.seeds, 'seed')}",
    ]
    if any(len(part.names) > 1 for each in influences for part in each.parts):
        parts.append("Hatched: interactions")
    return sentence(parts)
