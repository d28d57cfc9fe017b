"""Compares two settings of a study: parameters that differ, means, and which is better.

Differences and p values are those of `tuner compare`, so both commands agree about two
settings: they are corrected for all compared settings and for having picked the best.
"""

from dataclasses import dataclass
from typing import ClassVar

from tuner.answers import words
from tuner.answers.compare import Comparison, Options, better_or_worse, compare, measure_named
from tuner.answers.race import compare_contenders
from tuner.answers.settings import Setting, name, settings
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import Value, value_text
from tuner.results import Measure, Results, contender_names, read_race, shown
from tuner.spec.setting import read_setting
from tuner.statistics import Interval, Mean

__all__ = ["SettingDiff", "changes_table", "diff_settings", "figures_table", "setting_named"]


@dataclass(frozen=True)
class ParameterChange:
    """A parameter in which two settings differ."""

    name: str
    first: Value | None
    """None if it was not active."""
    second: Value | None


@dataclass(frozen=True)
class FigureDifference:
    """One figure of both settings."""

    measure: Measure
    first: Mean | None
    second: Mean | None
    difference: Interval | None
    """The second minus the first, over seeds and images; None if they are not compared."""
    p_value: float | None
    """Corrected for all compared settings; None with one seed."""
    differs: bool
    why_not: str
    """Why there is no p value; empty if there is one."""

    JSON: ClassVar = (
        *("metric=measure.name", "first", "second", "difference", "p=p_value", "differs"),
        "why_not",
    )


@dataclass(frozen=True)
class SettingDiff:
    """What differs between two settings of a study."""

    study: str
    first: Setting
    second: Setting
    changes: tuple[ParameterChange, ...]
    figures: tuple[FigureDifference, ...]
    """The study's metric first, or only the figure given by --metric."""
    check: str
    """The figure on test images that checks the result on validation."""
    scope: str
    """What the intervals and p values cover."""

    JSON: ClassVar = ("study", "settings", "changes", "figures", "verdict")

    @property
    def settings(self) -> tuple[Setting, Setting]:
        """Both settings, in the order in which they were given."""
        return self.first, self.second

    @property
    def verdict(self) -> str:
        """Which setting is better by the leading figure, then the same on test."""
        said = [self._sentence(self.figures[0])]
        said += [
            f"On test: {self._sentence(figure)}"
            for figure in self.figures[1:]
            if figure.measure.name == self.check
        ]
        return " ".join([*said, self.scope]).strip()

    def _sentence(self, figure: FigureDifference) -> str:
        # Named by the values in which the two differ.
        first, second = (
            name({change.name: setting.values[change.name] for change in self.changes})
            for setting in self.settings
        )
        measure, difference = figure.measure, figure.difference
        if difference is None:
            return f"{first} and {second} cannot be compared by {measure.name}: {figure.why_not}."
        better = (difference.value > 0) == measure.larger
        if figure.p_value is None and difference.value == 0:
            return f"{first} and {second} have the same {measure.name}, but {figure.why_not}."
        if figure.p_value is None:
            ahead = second if better else first
            return f"{ahead} is ahead in {measure.name}, but {figure.why_not}."
        chance = words.p_value(figure.p_value).removeprefix("<")
        p = f"p < {chance}" if figure.p_value < 0.001 else f"p = {chance}"
        if not figure.differs:
            return (
                f"{first} and {second} do not differ significantly in {measure.name} "
                f"({words.difference(measure.unit, difference)}, {p})."
            )
        return (
            f"{second} is {'better' if better else 'worse'} than {first} in {measure.name} by "
            f"{words.amount(measure.unit, difference, '95% interval ')}, {p}."
        )


def diff_settings(
    results: Results, names: tuple[str, str], metric: str | None = None
) -> SettingDiff:
    """Compare two settings, each given by its rank or by NAME=VALUE words.

    Without a metric, all default figures are compared, the study's metric first.
    """
    first, second = (setting_named(results, words_of) for words_of in names)
    if first.configuration == second.configuration:
        raise UserError(
            f"{names[0]!r} and {names[1]!r} are the same setting of {results.title}, "
            f"{name(first.values)}; choose two different ones."
        )
    leading = results.spec.search.metric
    asked = (
        [metric] if metric else [leading, *(one for one in shown(results.spec) if one != leading)]
    )
    measures = [measure_named(results, one) for one in asked]
    compared = [_compared(results, measure, (first, second)) for measure in measures]
    comparison = compared[0][1]
    return SettingDiff(
        study=results.title,
        first=first,
        second=second,
        changes=tuple(
            ParameterChange(key, first.values[key], second.values[key])
            for key in results.spec.varied
            if first.values[key] != second.values[key]
        ),
        figures=tuple(
            figure
            for figure, _ in compared
            if metric or figure.first is not None or figure.second is not None
        ),
        check=results.check,
        scope="" if comparison is None else _scope(comparison),
    )


def setting_named(results: Results, text: str) -> Setting:
    """Return the setting of a rank ("1" is the best), or the only one with these values."""
    every = settings(results)
    if text.strip().isdigit():
        found = next((one for one in every if one.rank == int(text)), None)
        if found is None:
            raise UserError(
                f"{results.title} has {words.count(len(results.ranked_settings), 'ranked setting')}"
                f", so there is no rank {int(text)}; `tuner table {results.title}` shows them."
            )
        return found
    given = read_setting(results.spec, tuple(text.replace(",", " ").split()))
    varied = results.spec.varied
    for key in given:
        if key not in varied:
            raise UserError(
                f"{results.title} does not vary {key!r}; it varies "
                f"{', '.join(varied) or 'nothing'}.{meant(key, varied)}"
            )
    matching = [
        one for one in every if all(one.values[key] == value for key, value in given.items())
    ]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise UserError(
            f"{results.title} has no setting with {text}; `tuner table {results.title}` shows its "
            "settings."
        )
    open_keys = [key for key in varied if len({repr(one.values[key]) for one in matching}) > 1]
    raise UserError(
        f"{len(matching)} settings of {results.title} have {text}; "
        f"give {words.listed(open_keys)} as well, or the setting's rank."
    )


def _compared(  # noqa: C901  # one story: what is compared with what, by which rules, and why not
    results: Results, measure: Measure, pair: tuple[Setting, Setting]
) -> tuple[FigureDifference, Comparison | None]:
    """Compare one figure of two settings by the rules and with the numbers of `tuner compare`."""
    first, second = (_mean(results, one, measure) for one in pair)

    def without(why: str) -> tuple[FigureDifference, None]:
        figure = FigureDifference(
            measure, first, second, difference=None, p_value=None, differs=False, why_not=why
        )
        return figure, None

    if first is None or second is None:
        return without("one of them has no value of it")
    reference, other = (pair[1], pair[0]) if pair[1].rank == 1 else pair
    race = read_race(results) if results.spec.replicates.of == "top" else None
    raced = race is not None and all(one.configuration in race.contenders for one in pair)
    if race is not None and raced:
        called = contender_names(results, race.contenders)
        levels: list[Value | None] = [called[one.configuration] for one in (reference, other)]
    elif len(results.spec.varied) == 1:
        levels = [one.values[results.spec.varied[0]] for one in (reference, other)]
    else:
        levels = [name(one.values) for one in (reference, other)]

    def comparison_with(options: Options) -> Comparison:
        if raced:
            return compare_contenders(results, metric=measure.name, options=options)
        by = (",".join(results.spec.varied),)
        return compare(results, by=by, metric=measure.name, options=options, whole=True)[0]

    try:
        comparison = comparison_with(Options()) if reference.rank == 1 else None
        # The best setting by this figure may differ from the best by the study's metric.
        if comparison is None or comparison.reference != levels[0]:
            comparison = comparison_with(Options(reference=words.level_name(levels[0])))
    except UserError as error:
        return without(str(error).rstrip("."))
    row = next((row for row in comparison.rows if row.standing.level == levels[1]), None)
    if row is None or row.against is None:
        lost = other.lost and f"{name(other.values)} lost some of its seeds ({other.lost})"
        return without(lost or "they have no complete seed in common")
    difference = row.against.difference
    if reference is pair[1]:
        difference = Interval(-difference.value, -difference.high, -difference.low)
    why = ""
    if comparison.seeds < 2:
        why = "a single seed cannot distinguish a better setting from chance"
    elif comparison.too_few:
        why = "there are too few patients to judge"
    figure = FigureDifference(
        measure=measure,
        first=first,
        second=second,
        difference=difference,
        p_value=None if why else row.against.p_value,
        differs=not why and row.against.differs,
        why_not=why,
    )
    return figure, comparison


def _mean(results: Results, setting: Setting, measure: Measure) -> Mean | None:
    if measure.name in setting.means:
        return setting.means[measure.name]
    every = settings(results, (measure.name,))
    found = next(one for one in every if one.configuration == setting.configuration)
    return found.means.get(measure.name)


def _scope(comparison: Comparison) -> str:
    """Say what intervals and p values cover."""
    if comparison.seeds < 2 or comparison.too_few:
        return ""
    compared = sum(row.mean is not None for row in comparison.rows)
    seeds = words.count(comparison.seeds, "seed")
    over = f"over {seeds} alone"
    if comparison.images:
        patients = comparison.patients
        over = f"over {seeds} and {words.sampled(comparison.images, patients)}"
    said = f"Intervals are {over}."
    if compared > 2:
        said += (
            f" They and the p values are corrected for comparing {compared} settings, as in "
            "`tuner compare`."
        )
    return said


# Its tables


def changes_table(diff: SettingDiff) -> Table:
    """Return the parameters in which the settings differ."""
    rows = [
        (change.name, value_text(change.first), value_text(change.second))
        for change in diff.changes
    ]
    heads = (_head(setting, at) for at, setting in enumerate(diff.settings))
    return Table(("parameter", *heads), tuple(rows), f"{diff.study}: what differs", left=(0,))


def figures_table(diff: SettingDiff) -> Table:
    """Return the figures of both settings and their differences."""
    head = (
        *("mean over seeds", *(_head(setting, at) for at, setting in enumerate(diff.settings))),
        *("difference", "95% interval", "p", ""),
    )
    rows = []
    for figure in diff.figures:
        measure = figure.measure
        means = (
            words.figure(measure.unit, None if mean is None else mean.value)
            for mean in (figure.first, figure.second)
        )
        between = ("–", "", "", "not compared")
        if figure.difference is not None:
            between = (
                *words.difference_cells(measure.unit, figure.difference),
                "" if figure.p_value is None else words.p_value(figure.p_value),
                _verdict(figure, figure.difference),
            )
        rows.append((measure.name.replace("_", " "), *means, *between))
    for what in ("n", "done"):
        cells = [
            str(len(one.seeds)) if what == "n" else f"{one.complete}/{one.trials}"
            for one in diff.settings
        ]
        rows.append((what, *cells, "", "", "", ""))
    return Table(head, tuple(rows), left=(0, len(head) - 1))


def _verdict(figure: FigureDifference, difference: Interval) -> str:
    if figure.p_value is None:
        return "not judged"
    if not figure.differs:
        return "tied"
    return f"second is {better_or_worse(figure.measure, difference)}"


def _head(setting: Setting, at: int) -> str:
    place = "first" if at == 0 else "second"
    return f"{place} (rank {setting.rank})" if setting.rank else f"{place} (unranked)"
