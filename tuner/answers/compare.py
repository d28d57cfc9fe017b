"""The settings of a factor against each other: a table, the group tied with the best, a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.answers import words
from tuner.answers.judge import Finding, headline, sentences, summary, told_together
from tuner.errors import UserError
from tuner.names import meant
from tuner.results.designs import Design, Level, Standing, design
from tuner.results.measures import MEASURES, Measure
from tuner.results.results import Results, once
from tuner.results.rows import TrialRow
from tuner.results.samples import Sample, has_figure, sample
from tuner.spec.study import Spec
from tuner.statistics.anova import Panel
from tuner.statistics.clusters import too_few
from tuner.statistics.multiple_comparisons import Against, Verdict, against, against_best
from tuner.statistics.power import Observed, Plan, plan
from tuner.statistics.variance import Interval

RESOLVED_POINTS = 0.01
"""The difference of shares that a plan is for, where none was named: one point."""


AS_EXPLORED = (
    "Settings are compared as they were explored, under seed 0; `tuner compare STUDY "
    "--contenders` compares the contenders over their further seeds."
)


@dataclass(frozen=True)
class Row:
    """One level: what became of its trials, its mean, and how it stands against the reference."""

    standing: Standing
    n: int
    """How many seeds its mean is over, or configurations where nothing is paired."""
    mean: Interval | None
    """None where nothing can be said; without limits (low = value = high) from one seed alone."""
    against: Against | None
    """None for the reference itself and for what is not compared."""
    tied: bool

    @property
    def differs(self) -> bool:
        """Whether it is told apart from the reference."""
        return self.against is not None and self.against.differs


@dataclass(frozen=True)
class Comparison:
    """One factor of a study, judged by one figure."""

    factor: str
    measure: Measure
    rows: tuple[Row, ...]
    reference: Level
    """The level that all others are compared with: the best, or the one that was named."""
    named: bool
    """Whether the reference was named beforehand."""
    paired: bool
    seeds: int
    images: int
    """How many images the figure is a mean over; 0 where the interval is over seeds alone."""
    patients: int
    """How many patients these images are of: the unit of all intervals. 0 where not named."""
    too_few: bool
    """Whether there are too few patients to judge anything by."""
    places: int
    """How many trials of each level a seed's value is the mean of."""
    left_out: int
    plan: Plan | None
    sentences: tuple[str, ...]
    headline: str | None
    """What is seen, in one line; None where nothing can be judged."""
    summary: str | None
    """The same, with what more seeds would buy."""

    @property
    def verdict(self) -> str:
        """All of it in plain words."""
        return " ".join(self.sentences)

    @property
    def tied(self) -> tuple[Level, ...]:
        """The levels that cannot be told from the best."""
        return tuple(row.standing.level for row in self.rows if row.tied)


def headlines(comparisons: Sequence[Comparison]) -> list[str]:
    """Say in a few lines what is seen of several factors."""
    return told_together(
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
class Asked:
    """What a person wants besides the usual."""

    reference: str | None = None
    """The level that the others are compared with, named beforehand; the best where none is."""
    resolve: float | None = None
    """The difference to plan more seeds for, in the unit it is shown in."""


def measure_named(name: str) -> Measure:
    """Return a measure by its name."""
    if name not in MEASURES:
        raise UserError(
            f"There is no metric {name!r} to compare by; take {', '.join(MEASURES)}."
            f"{meant(name, MEASURES)}"
        )
    return MEASURES[name]


@once
def compare(
    results: Results,
    *,
    by: tuple[str, ...] = (),
    metric: str | None = None,
    asked: Asked = Asked(),
) -> list[Comparison]:
    """Compare the levels of the named factors, or of all with few enough levels."""
    assert results.complete, "it says so otherwise"
    spec, rows = results.spec, results.rows
    measure = measure_named(metric or results.metric)
    names = list(by) or results.comparable
    if not names:
        raise UserError(_nothing_to_compare(results))
    if asked.reference is not None and len(names) != 1:
        raise UserError("--reference names a level of one factor; say which with --by.")

    def measured(row: TrialRow) -> bool:
        return has_figure(row, measure, results.at)

    comparisons = []
    raced = spec.replicates.of == "top" and spec.search.sampler == "grid"
    # Further seeds are the contenders' alone: a mean over them would be over who was good.
    explored = [row for row in rows if row["seed"] == 0] if raced else rows
    for name in names:
        made = design(explored, spec, name, measured)
        if raced:
            made = replace(made, notes=(*made.notes, AS_EXPLORED))
        taken = sample(results, made, measure)
        comparisons.append(judge(spec, made, measure, taken, asked))
    return comparisons


def judge(
    spec: Spec,
    design: Design,
    measure: Measure,
    sample: Sample | None,
    asked: Asked = Asked(),
) -> Comparison:
    """Judge one factor from its design and its values."""
    named = None if asked.reference is None else _level_named(design, asked.reference)
    n = min((len(units) for units in design.units), default=0)
    verdict = _verdict(sample, measure, named, n)
    few = sample is not None and too_few(sample.panel.clusters)
    planned = _plan(sample, measure, verdict, asked.resolve) if n > 1 and not few else None
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
    # One seed tells a setting from its luck in no way, whatever its images say; few patients
    # tell it from theirs no better.
    others = tuple(Against(one.level, one.difference, 1.0, False) for one in verdict.others)
    return Verdict(verdict.reference, others)


def _plan(
    sample: Sample | None, measure: Measure, verdict: Verdict | None, resolve: float | None
) -> Plan | None:
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
    return plan(seen, _wanted(panel, measure, resolve))


def _wanted(panel: Panel, measure: Measure, resolve: float | None) -> float:
    """Return the difference that a plan is for, in the figure's own unit."""
    if resolve is not None:
        return resolve / measure.scale
    if measure.unit == "points":
        return RESOLVED_POINTS
    return words.round_amount(0.1 * abs(float(panel.means.mean())))


def _row(finding: Finding, standing: Standing) -> Row:
    design, sample, verdict = finding.made, finding.taken, finding.verdict
    if sample is None or verdict is None or standing.level not in design.levels:
        return Row(standing, 0, None, None, tied=False)
    place = design.levels.index(standing.level)
    other = next((one for one in verdict.others if one.level == place), None)
    mean, n = sample.panel.mean(place), len(design.units[place])
    return Row(standing, n, mean, other, tied=place in verdict.tied)


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
    return (
        f"{results.title} varies {words.listed(results.spec.varied)}, none with a few levels to "
        f"compare one by one; `tuner influence {results.title}` says how much each matters."
    )
