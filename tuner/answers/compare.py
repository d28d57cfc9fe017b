"""Compares the levels of a factor: which differ, and which are tied with the best.

In this order: the answer, the comparison, its sentences, its table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tuner.answers import words
from tuner.answers.settings import settings
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import SplitName
from tuner.results import (
    Design,
    Level,
    Measure,
    Results,
    Sample,
    Standing,
    TrialRow,
    combination_name,
    design,
    elsewhere,
    has_figure,
    once,
    sample,
)
from tuner.spec.search import SAMPLERS
from tuner.spec.study import Spec
from tuner.statistics import (
    Against,
    Interval,
    Observed,
    Panel,
    PowerPlan,
    Verdict,
    against,
    against_best,
    plan,
    too_few,
)

__all__ = [
    "Comparison",
    "Options",
    "Row",
    "cells",
    "compare",
    "headlines",
    "measure_named",
    "table",
]

RESOLVED = 0.01
"""The difference to plan for by default, as a fraction: one point."""
SEVERAL = 3
"""At least this many factors without a difference share one sentence."""
MANY = 5
"""More levels than this share one sentence."""
AS_EXPLORED = (
    "Settings are compared as they were explored, under seed 0; `tuner compare STUDY "
    "--contenders` compares the contenders over their further seeds."
)


# The answer


@dataclass(frozen=True)
class Row:
    """One level: how its trials ended, its mean, and its difference from the reference."""

    standing: Standing
    n: int
    """Number of seeds in its mean, or of configurations if the design is unpaired."""
    mean: Interval | None
    """None without a value; unbounded if it is over one seed and no images."""
    against: Against | None
    """None for the reference itself and for levels that are not compared."""
    tied: bool

    JSON: ClassVar = (
        "level=standing.level",
        "trials=standing.trials",
        "complete=standing.complete",
        "pruned=standing.pruned",
        "diverged=standing.diverged",
        "failed=standing.failed",
        "running=standing.running",
        "waiting=standing.waiting",
        "paused=standing.paused",
        "fell=standing.fell",
        "n",
        "mean",
        "difference=against.difference",
        "p=against.p_value",
        "differs=against.differs",
        "tied",
    )

    @property
    def differs(self) -> bool:
        """Whether it differs significantly from the reference."""
        return self.against is not None and self.against.differs


@dataclass(frozen=True)
class Comparison:
    """The levels of one factor, compared by one measure."""

    factor: str
    measure: Measure
    rows: tuple[Row, ...]
    reference: Level
    """The level that all others are compared with: the best, or the one given by --reference."""
    named: bool
    """Whether the reference was given, not chosen as the best."""
    paired: bool
    seeds: int
    images: int
    """Number of images in the mean; 0 if the interval is over seeds only."""
    patients: int
    """Number of patients, the sampling unit of all intervals; 0 if the data name none."""
    too_few: bool
    """Whether there are too few patients for a verdict."""
    places: int
    """Number of trials of each level that a seed's value is the mean of."""
    left_out: int
    plan: PowerPlan | None
    sentences: tuple[str, ...]
    headline: str | None
    """The result in one line; None with too few seeds or patients for a verdict."""
    summary: str | None
    """The same, with the difference that more seeds could detect."""

    JSON: ClassVar = (
        "factor",
        "metric=measure.name",
        "larger_is_better=measure.larger",
        "reference",
        "reference_named=named",
        "paired",
        "n=seeds",
        "images",
        "patients",
        "too_few_patients=too_few",
        "trials_per_seed=places",
        "left_out",
        "tied",
        "levels=rows",
        "plan",
        "verdict",
    )

    @property
    def verdict(self) -> str:
        """All sentences as one text."""
        return " ".join(self.sentences)

    @property
    def tied(self) -> tuple[Level, ...]:
        """The levels that do not differ significantly from the best."""
        return tuple(row.standing.level for row in self.rows if row.tied)


def headlines(comparisons: Sequence[Comparison]) -> list[str]:
    """Summarise the comparisons of several factors in a few lines."""
    return combined_headlines(
        [
            (
                comparison.factor,
                comparison.measure.name,
                comparison.headline,
                any(row.differs for row in comparison.rows),
            )
            for comparison in comparisons
            if comparison.headline is not None
        ]
    )


@dataclass(frozen=True)
class Options:
    """Options of a comparison."""

    reference: str | None = None
    """The level that the others are compared with; the best if None."""
    resolve: float | None = None
    """The difference that more seeds should detect, in the unit in which it is shown."""


# The comparison


def better_or_worse(measure: Measure, difference: Interval) -> Literal["better", "worse"]:
    """Say whether a level is better or worse than another, given the difference between them."""
    return "better" if (difference.value > 0) == measure.larger else "worse"


def measure_named(results: Results, name: str) -> Measure:
    """Return the study's measure of this name."""
    known = results.measures
    if name not in known:
        raise UserError(
            f"Unknown metric {name!r}; use one of {', '.join(known)}.{meant(name, known)}"
        )
    return known[name]


@once
def compare(
    results: Results,
    *,
    by: tuple[str, ...] = (),
    metric: str | None = None,
    options: Options = Options(),
    whole: bool = False,
) -> list[Comparison]:
    """Compare the levels of the named factors, or of all with few enough levels.

    With `whole`, levels are whole settings, and one that lost a seed is not compared.
    """
    assert results.complete, "it says so otherwise"
    spec, rows = results.spec, results.rows
    measure = measure_named(results, metric or results.metric)
    names = list(by) or results.comparable
    if not names:
        raise UserError(_nothing_to_compare(results))
    if options.reference is not None and len(names) != 1:
        raise UserError("--reference is a level of one factor; choose the factor with --by.")

    comparisons = []
    raced = spec.replicates.of == "top" and spec.search.sampler == "grid"
    # Only contenders have further seeds: means over them would be biased by that selection.
    explored = [row for row in rows if row["seed"] == 0] if raced else rows
    for name in names:
        aside = _with_fewer_seeds(results) if whole else {}

        def measured(row: TrialRow, aside: Mapping[int, str] = aside) -> bool:
            return row.configuration not in aside and has_figure(row, measure, results.at)

        made = design(explored, spec, name, measured)
        if aside:
            made = replace(made, reasons={**made.reasons, **_level_reasons(results, name, aside)})
        if raced:
            made = replace(made, notes=(*made.notes, AS_EXPLORED))
        taken = sample(results, made, measure)
        comparisons.append(judge(spec, made, measure, taken, options))
    return comparisons


def _with_fewer_seeds(results: Results) -> dict[int, str]:
    """Say why settings with fewer seeds than the best are not compared with it.

    It ranks lower whatever its mean is, because lost seeds are not missing at random.
    """
    ranked = results.ranked_settings
    most = ranked[0].counted if ranked else 0
    counted = {one.configuration: one.counted for one in ranked}
    behind = [
        setting for setting in settings(results) if counted.get(setting.configuration, 0) < most
    ]
    return {
        one.configuration: f"is not compared: only {one.complete} of its {one.trials} seeds "
        f"{'is' if one.complete == 1 else 'are'} complete ({one.lost})."
        if one.lost and one.complete
        else ""
        for one in behind
    }


def _level_reasons(results: Results, factor: str, behind: Mapping[int, str]) -> dict[Level, str]:
    """Return the same reasons by level of a factor."""
    names = factor.split(",")
    values = {setting.configuration: setting.values for setting in settings(results)}
    found: dict[Level, str] = {}
    for configuration, why in behind.items():
        mine = {name: values[configuration][name] for name in names}
        level = mine[factor] if len(names) == 1 else combination_name(mine)
        if why:
            found[level] = f"{words.level_name(level)} {why}"
    return found


@dataclass(frozen=True)
class Finding:
    """One factor with its design, values and statistical verdict, from which sentences are made."""

    spec: Spec
    design: Design
    measure: Measure
    sample: Sample | None
    """None if no trial has the figure."""
    verdict: Verdict | None
    plan: PowerPlan | None

    @property
    def n(self) -> int:
        """The fewest seeds, or configurations, of any compared level."""
        return min((len(trials) for trials in self.design.units), default=0)

    @property
    def too_few(self) -> bool:
        """Whether there are too few patients for a verdict."""
        return self.sample is not None and too_few(self.sample.panel.clusters)

    @property
    def factor(self) -> str:
        """The factor's name in sentences."""
        return words.listed(self.design.factor.split(","))

    @property
    def names(self) -> list[str]:
        """The names of the compared levels in sentences."""
        return [words.level_phrase(self.design.factor, level) for level in self.design.levels]


def judge(
    spec: Spec,
    design: Design,
    measure: Measure,
    sample: Sample | None,
    options: Options = Options(),
) -> Comparison:
    """Compare the levels of one factor, given its design and its values."""
    _check_resolve(measure, options.resolve)
    named = None if options.reference is None else _level_named(design, options.reference)
    n = min((len(units) for units in design.units), default=0)
    verdict = _verdict(sample, measure, named, n)
    few = sample is not None and too_few(sample.panel.clusters)
    planned = _plan(sample, measure, verdict, options.resolve) if n > 1 and not few else None
    finding = Finding(spec, design, measure, sample, verdict, planned)
    return Comparison(
        factor=design.factor,
        measure=measure,
        rows=tuple(_row(finding, standing) for standing in design.standings),
        reference=design.levels[verdict.reference] if verdict is not None else None,
        named=named is not None,
        paired=design.paired,
        seeds=n,
        images=sample.panel.images if sample is not None else 0,
        patients=sample.panel.patients if sample is not None else 0,
        too_few=few,
        places=max((len(unit) for units in design.units for unit in units), default=0),
        left_out=design.left_out,
        plan=planned,
        sentences=sentences(finding),
        headline=headline(finding),
        summary=summary(finding),
    )


def _verdict(sample: Sample | None, measure: Measure, named: int | None, n: int) -> Verdict | None:
    if sample is None:
        return None
    panel = sample.panel
    if named is None:
        verdict = against_best(panel, larger=measure.larger)
    else:
        verdict = against(panel, named, larger=measure.larger)
    if n > 1 and not too_few(panel.clusters):
        return verdict
    # One seed cannot separate the effect of a setting from that of its seed, however many images
    # there are; nor can few patients from that of the patients.
    others = tuple(Against(other.level, other.difference, 1.0, False) for other in verdict.others)
    return Verdict(verdict.reference, others)


def _plan(
    sample: Sample | None, measure: Measure, verdict: Verdict | None, resolve: float | None
) -> PowerPlan | None:
    panel = sample.panel if sample is not None else None
    if verdict is None or not isinstance(panel, Panel) or len(verdict.tied) < 2:
        return None
    levels = range(len(panel.means))
    seen = Observed(
        panel.parts(list(levels)),
        panel.seeds,
        panel.images,
        len(panel.means),
        panel.grain,
        panel.patients,
    )
    if resolve is not None:
        difference = resolve / measure.unit.scale
    elif measure.unit.high - measure.unit.low <= 2:
        difference = RESOLVED
    else:
        difference = words.round_amount(0.1 * abs(float(panel.means.mean())))
    return plan(seen, difference)


def _row(finding: Finding, standing: Standing) -> Row:
    design, sample, verdict = finding.design, finding.sample, finding.verdict
    if sample is None or verdict is None or standing.level not in design.levels:
        return Row(standing, 0, None, None, tied=False)
    place = design.levels.index(standing.level)
    other = next((one for one in verdict.others if one.level == place), None)
    mean, n = sample.panel.mean(place), len(design.units[place])
    return Row(standing, n, mean, other, tied=place in verdict.tied)


def _check_resolve(measure: Measure, resolve: float | None) -> None:
    """Refuse an impossible difference to plan for, such as 1 for AUC, meant as one point."""
    unit = measure.unit
    most = (unit.high - unit.low) * unit.scale
    if resolve is not None and resolve >= most:
        read_in = f"in {unit.of_differences}" if unit.of_differences else "as a fraction"
        raise UserError(
            f"--resolve {resolve:g} is too large: values of {measure.name} can differ by at most "
            f"{most:g}. Give it {read_in}, such as {RESOLVED * unit.scale:g}."
        )


def _level_named(design: Design, name: str) -> int:
    names = [words.level_name(level) for level in design.levels]
    plain = [str(level) for level in design.levels]
    for known in (names, plain):
        if name in known:
            return known.index(name)
    raise UserError(
        f"{design.factor} has no level {name!r} that can be compared; it has {', '.join(names)}."
        f"{meant(name, names)}"
    )


def _nothing_to_compare(results: Results) -> str:
    if not results.spec.varied:
        return f"{results.title} varies nothing, so there are no settings to compare."
    values = {name: len({row[name] for row in results.rows}) for name in results.spec.varied}
    single = [name for name, count in values.items() if count < 2]
    many = [f"{name} has {count} values" for name, count in values.items() if count > 1]
    why = [f"only one value of {words.listed(single)} has been tried"] if single else []
    why += [f"{words.listed(many)}, too many to compare one by one"] if many else []
    rest = elsewhere(results.rows, results.spec, "each parameter matters")
    return f"{results.title} has no levels to compare: {', and '.join(why)}; {rest}."


# Its sentences


def sentences(finding: Finding) -> tuple[str, ...]:
    """Say which levels differ, what the intervals are over, and which trials are missing."""
    said = []
    if finding.verdict is None or finding.sample is None:
        said.append(_no_values(finding))
    elif len(finding.design.levels) == 1:
        said.append(_only_one(finding))
    elif finding.n < 2:
        said += _one_seed(finding, finding.sample)
    elif finding.too_few:
        said.append(_too_few(finding, finding.sample))
    else:
        said += _judged(finding, finding.verdict)
        said.append(_about(finding, finding.sample))
        said += _plan_sentences(finding)
    if finding.sample is not None and len(finding.design.levels) > 1:
        clusters, unknown = finding.sample.panel.clusters, finding.sample.patients_unknown
        said += words.patient_remarks(clusters, unknown=unknown)
    # If no level has the figure, `_no_values` has said so for all of them.
    some = any(standing.measured for standing in finding.design.standings)
    said += [
        finding.design.reasons.get(standing.level) or _set_aside(finding.design.factor, standing)
        for standing in finding.design.uncompared
        if some or not standing.complete
    ]
    said += _missing(finding)
    said += finding.design.notes
    return tuple(said)


def headline(finding: Finding) -> str | None:
    """Say in one line which levels differ; None with one seed or one level."""
    verdict = finding.verdict
    # The factor's name stands before the sentence, so levels need not repeat it.
    names = [words.level_name(level) for level in finding.design.levels]
    if verdict is None or finding.n < 2 or len(names) < 2 or finding.too_few:
        return None
    apart = [names[other.level] for other in verdict.others if other.differs]
    tied = [names[level] for level in verdict.tied]
    metric = finding.measure.name
    worse = f"{words.listed(apart)} {'is' if len(apart) == 1 else 'are'} significantly worse"
    if not apart and len(tied) > MANY:
        what = "contenders" if finding.factor == "contender" else "levels"
        said = f"no significant difference in {metric} between the {len(tied)} {what}"
    elif not apart:
        said = f"no significant difference in {metric} between {words.listed(tied)}"
    elif len(tied) == 1:
        said = f"{tied[0]} has the best {metric}; {worse}"
    else:
        said = f"{words.listed(tied)} are tied for the best {metric}; {worse}"
    return f"{finding.factor}: {said}."


def combined_headlines(said: Sequence[tuple[str, str, str, bool]]) -> list[str]:
    """Join the headlines of several factors: one line each if levels differ, else one for all.

    Each item is a factor, its metric, its headline and whether any of its levels differ.
    """
    apart = [line for _, _, line, differs in said if differs]
    alike = [(factor, metric, line) for factor, metric, line, differs in said if not differs]
    if len(alike) < SEVERAL:
        return apart + [line for *_, line in alike]
    names = words.listed([factor for factor, *_ in alike])
    return [
        *apart,
        f"{names}: no significant differences in {alike[0][1]} between levels.",
    ]


def summary(finding: Finding) -> str | None:
    """Say in one line which levels differ, and what more seeds would resolve."""
    if finding.too_few and finding.n > 1 and finding.sample is not None:
        limits = words.patient_remarks(finding.sample.panel.clusters)
        return " ".join([f"{finding.factor}:", *limits])
    said = headline(finding)
    return None if said is None else " ".join([said, *_plan_sentences(finding)])


def _no_values(finding: Finding) -> str:
    factor = finding.factor
    if not any(standing.complete for standing in finding.design.standings):
        return f"No trial is complete, so nothing can be said about {factor}."
    if finding.design.levels and not any(finding.design.units):
        return (
            f"No two levels of {factor} completed with the same seed and other parameters, so they "
            "cannot be compared."
        )
    name = finding.measure.name
    return (
        f"{'The gap' if name == 'gap' else name} is not available for any complete trial, so the "
        f"levels of {factor} cannot be compared."
    )


def _only_one(finding: Finding) -> str:
    """Say why only one level can be compared."""
    design = finding.design
    others = [standing for standing in design.standings if standing.level not in design.levels]
    inactive = design.levels[0] is None
    who, it = finding.names[0], "it"
    if inactive:
        who, it = f"trials without an active {finding.factor}", "them"
    if any(standing.measured for standing in others):
        few = f"complete {who}" if inactive else f"complete trials of {who}"
        return (
            f"Too few {few} have a counterpart at another level, so there is nothing to compare "
            f"{it} with."
        )
    if not any(standing.complete for standing in others):
        what = "are complete" if inactive else "has any complete trials"
    elif design.reasons:
        what = "have enough complete seeds" if inactive else "has enough complete seeds"
    else:
        what = f"{'have' if inactive else 'has'} values of {finding.measure.name}"
    return f"Only {who} {what}, so there is nothing to compare {it} with."


def _one_seed(finding: Finding, sample: Sample) -> list[str]:
    panel = sample.panel
    limits = (
        f"With one {'seed' if finding.design.paired else 'configuration'} there are no intervals."
    )
    if sample.images_shared and panel.images:
        what = words.sampled(panel.images, panel.patients)
        limits = f"The intervals reflect only the variation between these {what}."
    ahead = _leaders(finding, sample)
    if finding.design.paired:
        said = f"{ahead}, but a single seed cannot rule out chance."
        return [f"{said} {limits} A verdict needs at least two seeds."]
    units = zip(finding.names, finding.design.units, strict=True)
    alone = [name for name, of in units if len(of) == 1]
    if len(alone) == len(finding.names):
        who = "each level has only one configuration"
    elif len(alone) == 1:
        who = f"{alone[0]} has only one configuration"
    else:
        named = words.listed(alone) if len(alone) <= MANY else f"{len(alone)} levels"
        who = f"{named} have only one configuration each"
    said = f"{ahead}, but {who}, so chance cannot be ruled out."
    return [f"{said} {limits} A verdict needs at least two per level."]


def _too_few(finding: Finding, sample: Sample) -> str:
    what = words.sampled(sample.panel.images, sample.panel.patients)
    ahead = _leaders(finding, sample)
    return f"{ahead} on {what}, which are too few patients to compare {finding.factor}."


def _leaders(finding: Finding, sample: Sample) -> str:
    """Say which level has the best mean, or which ones share it."""
    means = sample.panel.means
    best = means.max() if finding.measure.larger else means.min()
    names = [name for name, mean in zip(finding.names, means, strict=True) if mean == best]
    if len(names) == 1:
        return f"{names[0]} is ahead"
    return f"{words.listed(names)} are ahead with the same mean"


def _judged(finding: Finding, verdict: Verdict) -> list[str]:
    names, measure = finding.names, finding.measure
    best = names[verdict.reference]
    if len(names) > MANY:
        return _judged_together(finding, verdict)
    said = [
        f"{names[other.level]} and {best} are not distinguishable: "
        f"{words.difference(measure.unit, other.difference)}."
        for other in verdict.others
        if not other.differs
    ]
    for other in verdict.others:
        if other.differs:
            how = better_or_worse(measure, other.difference)
            amount = words.amount(measure.unit, other.difference)
            said.append(f"{names[other.level]} is {how} than {best} by {amount}.")
    return said


def _judged_together(finding: Finding, verdict: Verdict) -> list[str]:
    """Say which of many levels differ; the table shows by how much."""
    best = finding.names[verdict.reference]
    groups: dict[str, list[str]] = {
        f"not distinguishable from {best}": [],
        f"worse than {best}": [],
        f"better than {best}": [],
    }
    alike, worse, better = groups.values()
    for other in verdict.others:
        if not other.differs:
            alike.append(finding.names[other.level])
        elif better_or_worse(finding.measure, other.difference) == "better":
            better.append(finding.names[other.level])
        else:
            worse.append(finding.names[other.level])
    others = len(verdict.others)
    if len(alike) == others:
        return [f"None of the other {others} is distinguishable from {best}."]
    said = []
    for how, of in groups.items():
        if len(of) == others:
            said.append(f"All {others} others are {how}.")
        elif of:
            which = words.listed(of) if len(of) < MANY else f"{len(of)} of the other {others}"
            said.append(f"{which} {'is' if len(of) == 1 else 'are'} {how}.")
    return said


def _about(finding: Finding, sample: Sample) -> str:
    """Say what the intervals cover: seeds, and images if included."""
    unit = "seed" if finding.design.paired else "configuration"
    many = words.count(finding.n, unit)
    if len({len(trials) for trials in finding.design.units}) > 1:
        many = f"at least {many} per level"
    if sample.images_shared and sample.panel.images:
        patients = sample.panel.patients
        what, over = words.sampled(sample.panel.images, patients), words.sampling_unit(patients)
        return (
            f"(Intervals cover the variation between {unit}s and between "
            f"{_of_split(finding.measure)}{over}: {many}, {what}.)"
        )
    if sample.images_shared:
        return f"(Intervals cover the variation between {unit}s: {many}.)"
    of_val = "val" in finding.measure.splits
    if finding.measure.resampled and (not of_val or finding.spec.replicates.splits == 1):
        # The study's own metric has no values on resampled images, and seeds share their images.
        return (
            f"(Intervals cover the variation between {unit}s, but not between images, because "
            f"{words.not_resampled(finding.measure.name)}: {many}.)"
        )
    return (
        f"(Intervals cover the variation between {unit}s only: {many}, each on different images.)"
    )


def _plan_sentences(finding: Finding) -> list[str]:
    plan, measure = finding.plan, finding.measure
    if plan is None:
        return []
    amount, unit = plan.difference * measure.unit.scale, measure.unit.of_differences
    wanted = f"{amount:g} {'point' if unit == 'points' and amount == 1 else unit}".strip()
    if plan.images is not None:
        over = f"{_of_split(measure)}{words.sampling_unit(plan.patients or 0)}"
        needed = plan.patients or plan.images
        more = f"{_about_many(_rounded(needed), over, plan)} with {plan.seeds:,} seeds"
        if plan.patients and finding.sample is not None:
            more = f"{more} (there are {words.count(finding.sample.panel.patients, 'patient')} now)"
        limit = f"A difference of {wanted} cannot be detected on these {over} with more seeds alone"
        return [f"{limit}; you would need {more}."]
    if plan.seeds is None:
        return [f"A difference of {wanted} could not be detected even with 1,000 seeds."]
    if plan.seeds <= finding.n:
        longer = plan.high is None or plan.high > finding.n
        perhaps = ""
        if longer:
            perhaps = "more seeds"
            if plan.high is not None:
                perhaps = f"up to {words.count(_rounded(plan.high - finding.n), 'more seed')}"
            perhaps = f"; given the uncertainty, {perhaps} may be needed"
        found = f"a difference of {wanted} would be detected about 8 times in 10"
        return [f"With these seeds, {found}{perhaps}."]
    number = _rounded(plan.seeds - finding.n)
    more = _about_many(number, "more seed" if number == 1 else "more seeds", plan, finding.n)
    return [f"You would need {more} to detect a difference of {wanted}."]


def _of_split(measure: Measure) -> str:
    """Return which images a measure is over, before the word: "validation "."""
    names: Mapping[tuple[SplitName, ...], str] = {
        ("val",): "validation ",
        ("test",): "test ",
        ("train",): "training ",
    }
    return names.get(tuple(measure.splits), "")


def _about_many(number: int, what: str, plan: PowerPlan, there: int = 0) -> str:
    """Return a planned number with its range: "about 620 images (460 or more)"."""
    if plan.high is None and _rounded(max(0, (plan.low or 0) - there)) == number:
        return f"at least {number:,} {what}"
    return f"about {number:,} {what} ({_between(plan, there)})"


def _between(plan: PowerPlan, there: int = 0) -> str:
    """Return the range of a planned number, which depends on an estimated spread."""
    low = f"{_rounded(max(0, (plan.low or 0) - there)):,}"
    return f"{low} or more" if plan.high is None else f"{low} to {_rounded(plan.high - there):,}"


def _rounded(number: int) -> int:
    """Round a planned number to two significant digits: it is an estimate."""
    size = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // size) * size


def _set_aside(factor: str, standing: Standing) -> str:
    name = words.level_phrase(factor, standing.level)
    if standing.level is None:
        return (
            f"{words.count(standing.trials, 'trial')} in which it was not active (–) are not "
            "compared: they have no counterpart at another level."
        )
    if standing.throughout == "diverged":
        return f"All trials of {name} diverged ({standing.diverged} of {standing.trials})."
    if standing.throughout == "pruned":
        where = ""
        if standing.fell is not None:
            fell = standing.fell
            where = (
                f", at a median epoch of {fell.epoch} and a median validation loss of "
                f"{fell.val_loss:.3f}"
            )
        return f"All trials of {name} were pruned ({standing.pruned} of {standing.trials}){where}."
    if standing.complete and not standing.measured:
        return f"{name} has no value of this metric: its complete trials did not measure it."
    if standing.complete:
        return (
            f"{name} is not compared: {standing.complete} of its "
            f"{words.count(standing.trials, 'trial')} {'is' if standing.complete == 1 else 'are'} "
            "complete; too few complete trials have a counterpart at the other levels."
        )
    return f"{name} has no complete trial ({_ends(standing) or 'none has started'})."


def _ends(standing: Standing) -> str:
    parts = [
        f"{number} {word}"
        for number, word in (
            (standing.paused, "paused"),
            (standing.pruned, "pruned"),
            (standing.diverged, "diverged"),
            (standing.failed, "failed"),
            (standing.running, "running"),
            (standing.waiting, "waiting"),
        )
        if number
    ]
    return ", ".join(parts)


def _missing(finding: Finding) -> list[str]:
    design, sampler = finding.design, finding.spec.search.sampler
    said = []
    if design.left_out:
        gone = any(standing.lost for standing in design.standings)
        why = (
            f": {words.lost(finding.spec, 'and')} trials are not missing at random"
            if gone
            else " so far"
        )
        said.append(
            f"{words.count(design.left_out, 'complete trial')} left out without a counterpart at "
            f"another level{why}."
        )
    compared = [standing for standing in design.standings if standing.level in design.levels]
    lost = sum(standing.lost for standing in compared)
    if lost and not design.paired:
        said.append(
            f"Not included: {words.lost_trials(lost, finding.spec)} of these "
            "levels, so the means cover only trials that finished."
        )
    if not design.paired and SAMPLERS[sampler].learns:
        said.append(
            f"{sampler} samples mostly where results are good, so a level's mean also depends on "
            "the values it was combined with."
        )
    return said


# Its table


def table(comparison: Comparison) -> Table:
    """Return the levels with their means, differences from the reference and verdicts."""
    against = words.level_name(comparison.reference) if comparison.named else "best"
    metric = comparison.measure.name.replace("_", " ")
    head = (
        comparison.factor,
        metric,
        "interval",
        f"vs {against}",
        "interval",
        "p",
        "n",
        "done",
        "",
    )
    return Table(
        head,
        tuple(cells(comparison, row) for row in comparison.rows),
        f"By {comparison.factor}: {comparison.measure.name}, 95% intervals",
        left=(len(head) - 1,),
    )


def cells(comparison: Comparison, row: Row) -> tuple[str, ...]:
    """Return the cells of one level."""
    standing, measure, against = row.standing, comparison.measure, row.against
    done = f"{standing.complete}/{standing.trials}"
    name = words.level_name(standing.level)
    unit = "seed" if comparison.paired else "configuration"
    if row.mean is None:
        return (name, "–", "", "", "", "", "", done, "not compared")
    mean = (words.figure(measure.unit, row.mean.value), words.ends(measure.unit, row.mean))
    if against is None:
        held, mark = ("", "", ""), "reference" if comparison.named else "best"
    else:
        chance = "" if comparison.seeds < 2 else words.p_value(against.p_value)
        held = (*words.difference_cells(measure.unit, against.difference), chance)
        mark = "tied" if comparison.seeds > 1 else f"one {unit}"
        if against.differs:
            mark = better_or_worse(measure, against.difference)
        mark = "too few patients" if comparison.too_few else mark
    return (name, *mean, *held, str(row.n), done, mark)
