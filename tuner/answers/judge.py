"""A comparison in plain words: what was found, what it is about, and what is missing from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.answers import words
from tuner.results.designs import Design, Standing
from tuner.results.measures import Measure
from tuner.results.samples import Sample
from tuner.spec.study import Spec
from tuner.statistics.clusters import too_few
from tuner.statistics.multiple_comparisons import Verdict
from tuner.statistics.power import Plan

SEVERAL = 3
"""This many factors without a difference are told together."""


@dataclass(frozen=True)
class Finding:
    """One factor's design with its values and what they say."""

    spec: Spec
    made: Design
    measure: Measure
    taken: Sample | None
    """None where no trial has the figure."""
    verdict: Verdict | None
    plan: Plan | None

    @property
    def n(self) -> int:
        """How many seeds, or configurations, each compared level has at least."""
        return min((len(trials) for trials in self.made.units), default=0)

    @property
    def too_few(self) -> bool:
        """Whether there are too few patients to judge by."""
        return self.taken is not None and too_few(self.taken.panel.clusters)

    @property
    def names(self) -> list[str]:
        """The compared levels, as people write them."""
        return [words.level_name(level) for level in self.made.levels]


def sentences(finding: Finding) -> tuple[str, ...]:
    """Say what was found, what it is about, and what is missing from it."""
    said = []
    if finding.verdict is None or finding.taken is None:
        said.append(_silence(finding))
    elif len(finding.made.levels) == 1:
        said.append(f"Only {finding.names[0]} has this figure, so there is nothing to compare.")
    elif finding.n < 2:
        said += _one_seed(finding, finding.taken)
    elif finding.too_few:
        said.append(_too_few(finding, finding.taken))
    else:
        said += _judged(finding, finding.verdict)
        said.append(_about(finding, finding.taken))
        said += _promised(finding)
    if finding.taken is not None and len(finding.made.levels) > 1:
        clusters, unknown = finding.taken.panel.clusters, finding.taken.patients_unknown
        said += words.patient_remarks(clusters, unknown=unknown)
    # Where no level has the figure, that was said in one sentence for all.
    some = any(standing.measured for standing in finding.made.standings)
    said += [
        finding.made.asides.get(standing.level) or _set_aside(standing)
        for standing in finding.made.uncompared
        if some or not standing.complete
    ]
    said += _missing(finding)
    said += finding.made.notes
    return tuple(said)


def headline(finding: Finding) -> str | None:
    """Say in one line what is seen of a factor; None of one seed, or of one level."""
    verdict, names = finding.verdict, finding.names
    if verdict is None or finding.n < 2 or len(names) < 2 or finding.too_few:
        return None
    apart = [names[one.level] for one in verdict.others if one.differs]
    tied = [names[level] for level in verdict.tied]
    metric = finding.measure.name
    if not apart:
        said = f"no significant difference in {metric} between {words.listed(tied)}"
    elif len(tied) == 1:
        said = f"{tied[0]} is best in {metric}; {words.listed(apart)} differ from it"
    else:
        said = f"{words.listed(tied)} are tied for the best {metric}; {words.listed(apart)} not"
    return f"{finding.made.factor}: {said}."


def told_together(said: Sequence[tuple[str, str, str, bool]]) -> list[str]:
    """Join the headlines of several factors: what differs one by one, all the rest together.

    Each is a factor, its metric, its headline and whether any of its levels differ.
    """
    apart = [line for _, _, line, differs in said if differs]
    alike = [(factor, metric, line) for factor, metric, line, differs in said if not differs]
    if len(alike) < SEVERAL:
        return apart + [line for *_, line in alike]
    names = words.listed([factor for factor, *_ in alike])
    return [
        *apart,
        f"{names}: no significant difference in {alike[0][1]} between the levels of any.",
    ]


def summary(finding: Finding) -> str | None:
    """Say in one line what is seen of a factor, and what more seeds would buy."""
    if finding.too_few and finding.n > 1 and finding.taken is not None:
        limits = words.patient_remarks(finding.taken.panel.clusters)
        return " ".join([f"{finding.made.factor}:", *limits])
    said = headline(finding)
    return None if said is None else " ".join([said, *_promised(finding)])


def _silence(finding: Finding) -> str:
    factor = finding.made.factor
    if not finding.made.levels and any(standing.complete for standing in finding.made.standings):
        return f"There is no {finding.measure.name} to compare {factor} by."
    if not finding.made.levels:
        return f"No trial is complete, so nothing can be said of {factor}."
    if not any(finding.made.units):
        return (
            f"No two levels of {factor} completed in the same places, so they cannot be compared."
        )
    return f"There is no {finding.measure.name} to compare {factor} by."


def _one_seed(finding: Finding, sample: Sample) -> list[str]:
    unit = "seed" if finding.made.paired else "configuration"
    means = sample.panel.means
    at = means.argmax() if finding.measure.larger else means.argmin()
    best = finding.names[int(at)]
    panel = sample.panel
    images = (
        f" The intervals are over {words.sampled(panel.images, panel.patients)} alone."
        if sample.images_shared and panel.images
        else ""
    )
    said = (
        f"One {unit} cannot rule out chance: {best} is ahead here, which says nothing about "
        f"{finding.made.factor} in general.{images} A verdict takes two or more."
    )
    return [said]


def _too_few(finding: Finding, sample: Sample) -> str:
    means = sample.panel.means
    best = finding.names[int(means.argmax() if finding.measure.larger else means.argmin())]
    what = words.sampled(sample.panel.images, sample.panel.patients)
    return f"{best} is ahead here, on {what}, which says nothing about {finding.made.factor}."


def _judged(finding: Finding, verdict: Verdict) -> list[str]:
    names, measure = finding.names, finding.measure
    best = names[verdict.reference]
    said = [
        f"{names[one.level]} and {best} are not distinguishable: "
        f"{words.difference(measure, one.difference)}."
        for one in verdict.others
        if not one.differs
    ]
    for one in verdict.others:
        if one.differs:
            ahead = (one.difference.value > 0) == measure.larger
            said.append(
                f"{names[one.level]} is {'better' if ahead else 'worse'} than {best} by "
                f"{words.amount(measure, one.difference)}."
            )
    return said


def _about(finding: Finding, sample: Sample) -> str:
    """Say what the intervals are about: seeds, and images where these are in them."""
    unit = "seed" if finding.made.paired else "configuration"
    many = words.count(finding.n, unit)
    if sample.images_shared and sample.panel.images:
        patients = sample.panel.patients
        what, over = words.sampled(sample.panel.images, patients), words.sampling_unit(patients)
        return f"({many}, {what}: over {unit}s and over {over} like these.)"
    if sample.images_shared:
        return f"({many}: over {unit}s.)"
    return f"({many}, each on different images: over {unit}s only.)"


def _promised(finding: Finding) -> list[str]:
    plan, measure = finding.plan, finding.measure
    if plan is None:
        return []
    amount = plan.difference * measure.scale
    unit = "point" if measure.unit == "points" and amount == 1 else measure.unit
    wanted = f"{amount:g} {unit}".strip()
    if plan.images is not None:
        needed, over = plan.patients or plan.images, words.sampling_unit(plan.patients or 0)
        more = f"about {_rounded(needed):,} {over} ({_between(plan)}) with {plan.seeds} seeds"
        if plan.patients:
            there = finding.taken.panel.patients if finding.taken is not None else 0
            more = f"{more}, {_rounded(max(0, needed - there)):,} more than now"
        return [f"More seeds cannot resolve {wanted} on these {over}; you would need {more}."]
    if plan.seeds is None:
        return [f"Not even 1,000 seeds would resolve {wanted}."]
    if plan.seeds <= finding.n:
        longer = plan.high is None or plan.high > finding.n
        perhaps = f"; it may take more of them ({_between(plan, finding.n)})" if longer else ""
        return [f"These seeds resolve {wanted} about 8 times in 10{perhaps}."]
    more = words.count(_rounded(plan.seeds - finding.n), "more seed")
    return [f"About {more} ({_between(plan, finding.n)}) would resolve {wanted}."]


def _between(plan: Plan, there: int = 0) -> str:
    """Say how far off a planned number may be, for the spread behind it is an estimate."""
    low = f"{_rounded(max(0, (plan.low or 0) - there)):,}"
    return f"{low} or more" if plan.high is None else f"{low} to {_rounded(plan.high - there):,}"


def _rounded(number: int) -> int:
    """Return a planned number with the two digits that it deserves."""
    size = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // size) * size


def _set_aside(standing: Standing) -> str:
    name = words.level_name(standing.level)
    if standing.level is None:
        return (
            f"{words.count(standing.trials, 'trial')} in which it was not active (–) are not "
            "compared: none is in the same place as another level."
        )
    if standing.throughout == "diverged":
        return f"{name} diverged throughout ({standing.diverged} of {standing.trials})."
    if standing.throughout == "pruned":
        where = ""
        if standing.fell is not None:
            epoch, loss = standing.fell
            where = f", at epoch {epoch} with a validation loss of {loss:.3f} (medians)"
        return f"{name} was pruned throughout ({standing.pruned} of {standing.trials}){where}."
    if standing.complete and not standing.measured:
        return f"{name} has none of this figure: its complete trials were measured without it."
    if standing.complete:
        return (
            f"{name} is not compared: {standing.complete} of its {standing.trials} trials are "
            "complete, and too few of them have a counterpart under the other levels."
        )
    return f"{name} has no complete trial ({_ends(standing) or 'none was begun'})."


def _ends(standing: Standing) -> str:
    parts = [
        f"{number} {word}"
        for number, word in (
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
    design, sampler = finding.made, finding.spec.search.sampler
    said = []
    if design.left_out:
        gone = any(standing.lost for standing in design.standings)
        why = (
            ": pruned, diverged and failed trials are not missing at random" if gone else " so far"
        )
        said.append(
            f"{words.count(design.left_out, 'complete trial')} left out, because a peer in the "
            f"same place is missing{why}."
        )
    compared = [standing for standing in design.standings if standing.level in design.levels]
    lost = sum(standing.lost for standing in compared)
    if lost and not design.paired:
        said.append(
            f"{words.count(lost, 'trial')} of these levels were pruned, diverged or failed and "
            "are left out, so the means are over survivors only."
        )
    if not design.paired and sampler in ("tpe", "gp"):
        said.append(
            f"{sampler} sampled mostly where results were good, so a level's mean depends on the "
            "values that it was combined with."
        )
    return said
