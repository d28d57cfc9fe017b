"""The gap between validation and test accuracy: how large, how sure, what is luck, and why."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.answers.causes import Cause, Probed, cause, probes
from tuner.answers.gap_settings import (
    Setting,
    Sizes,
    TrialGap,
    by_configuration,
    gap_of_trial,
    gaps_by_setting,
    least_worth,
    split_sizes,
)
from tuner.answers.luck import luck_of_winner
from tuner.errors import UserError
from tuner.results.designs import Design
from tuner.results.measures import MEASURES
from tuner.results.results import Results, by_number, once
from tuner.results.rows import TrialRow
from tuner.results.samples import Source, sample
from tuner.statistics.anova import Panel
from tuner.statistics.clusters import Clusters, too_few
from tuner.statistics.correlation import rank_correlation
from tuner.statistics.proportions import apart, wilson_of
from tuner.statistics.selection_bias import SelectionBias
from tuner.statistics.variance import Interval, around
from tuner.store import checks


@dataclass(frozen=True)
class Gap:
    """All that is known of a study's gap."""

    study: str
    """The study's full name, by which `tuner check` takes it."""
    trials: tuple[TrialGap, ...]
    settings: tuple[Setting, ...]
    seeds: int
    val_images: int
    test_images: int
    val_patients: int
    """How many patients the validation images are of; 0 where they are not named."""
    test_patients: int
    val_worth: float
    """How many independent images the validation images are worth to one trial."""
    test_worth: float
    clusters: tuple[Clusters, ...]
    """The patients of the splits that have named patients."""
    patients_unknown: bool
    """Whether labels were stored before patients were, so that images are counted."""
    val_acc: Interval
    test_acc: Interval
    gap: Interval
    fitted: Interval | None
    """Training accuracy minus validation accuracy."""
    correlation: Interval | None
    """Spearman's, of validation and test accuracy over configurations."""
    metric: str
    optimism: SelectionBias | None
    """Of the trial that is best by the study's metric."""
    winner: int | None
    probes: Mapping[str, Probed]
    cause: Cause
    left_out: int
    """Trials that were pruned, diverged or failed, and are in nothing of this."""
    without_peers: int
    """Complete trials in the table alone: their configuration lacks a seed that others have."""
    images_shared: bool
    """Whether all trials were measured on the same images, so that these are in the intervals."""

    @property
    def too_few(self) -> bool:
        """Whether there are too few patients to say if validation and test differ."""
        return too_few(self.clusters)


@dataclass(frozen=True)
class _Together:
    """What all settings that are compared show together, a unit a seed."""

    rows: Mapping[int, TrialRow]
    """All trials by number."""
    prefix: str
    """Of the columns of the epoch at which the study is judged."""
    sizes: Mapping[int, Sizes]
    made: Design
    val: Panel
    test: Panel
    gap: Panel
    images_shared: bool

    def overall(self) -> Interval:
        """Return the gap over seeds and images, or over images alone where that is all there is."""
        if self.images_shared or len(self.made.units[0]) > 1:
            return self.gap.mean(0)
        # Nothing is measured twice: what is left is each split's number of images.
        return _over_images(self.val.mean(0).value, self.test.mean(0).value, self.sizes)


@once
def gap(results: Results) -> Gap:
    """Measure a study's gap over all its complete trials."""
    study, rows, prefix = results.study, results.rows, results.prefix
    complete = [row for row in rows if row.complete and row[prefix + "test_acc"] is not None]
    if not complete:
        raise UserError(_nothing(results))
    source = Source(results, MEASURES["gap"])
    sizes = split_sizes(results, [row["trial"] for row in complete], source)
    spoken = _comparable(results, complete)
    together = _together(results, spoken, sizes=sizes, source=source)
    overall, fitted = together.overall(), _fitted(together)
    probed = probes(_examined(results))
    leaders = results.ranked
    settings = gaps_by_setting(results, complete, sizes)
    clusters = tuple(
        truth.clusters for truth in source.truths.values() if truth.clusters is not None
    )
    return Gap(
        study=study.full_name,
        trials=tuple(gap_of_trial(row, prefix, sizes[row["trial"]]) for row in complete),
        settings=settings,
        seeds=len(together.made.units[0]),
        val_images=max(one.val for one in sizes.values()),
        test_images=max(one.test for one in sizes.values()),
        val_patients=source.patients("val"),
        test_patients=source.patients("test"),
        val_worth=least_worth([one.val_worth for one in sizes.values()]).images,
        test_worth=least_worth([one.test_worth for one in sizes.values()]).images,
        clusters=clusters,
        patients_unknown=source.patients_unknown,
        val_acc=together.val.mean(0),
        test_acc=together.test.mean(0),
        gap=overall,
        fitted=fitted,
        correlation=_correlation(settings),
        metric=study.spec.search.metric,
        optimism=luck_of_winner(results),
        winner=leaders[0]["trial"] if leaders else None,
        probes=probed,
        cause="too few patients" if too_few(clusters) else cause(overall, fitted, probed),
        left_out=sum(row.lost for row in rows),
        without_peers=len(complete) - len(spoken),
        images_shared=together.images_shared,
    )


def _together(
    results: Results, spoken: Sequence[TrialRow], *, sizes: Mapping[int, Sizes], source: Source
) -> _Together:
    design = _design(results, spoken)

    def panel(name: str) -> Panel:
        taken = sample(results, design, MEASURES[name])
        assert taken is not None, "complete trials have predictions"
        assert isinstance(taken.panel, Panel), "seeds are paired"
        return taken.panel

    shared = source.same_images([row["trial"] for row in spoken])
    return _Together(
        rows=by_number(results.rows),
        prefix=results.prefix,
        sizes=sizes,
        made=design,
        val=panel("val_acc"),
        test=panel("test_acc"),
        gap=panel("gap"),
        images_shared=shared,
    )


def _correlation(settings: Sequence[Setting]) -> Interval | None:
    return rank_correlation(
        np.array([setting.val_acc for setting in settings]),
        np.array([setting.test_acc for setting in settings]),
    )


def _over_images(val: float, test: float, sizes: Mapping[int, Sizes]) -> Interval:
    worths = list(sizes.values())
    return apart(
        wilson_of(val, least_worth([one.val_worth for one in worths])),
        wilson_of(test, least_worth([one.test_worth for one in worths])),
    )


def _nothing(results: Results) -> str:
    if any(row.complete for row in results.rows):
        return (
            f"{results.title} has no test set, so there is no gap to measure. Give its data a test "
            "split (docs/data.md): validation accuracy alone is optimistic, since it was used to "
            "choose."
        )
    return f"No trial of {results.title} is complete yet; `tuner status {results.title}` says more."


def _comparable(results: Results, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials of the configurations that completed under all seeds.

    Under seeds that only some configurations have (contenders' further ones, a
    study that is still running), a mean would change with who is in it. Where
    no configuration has all seeds, those of the fullest seed speak alone.
    """
    seeds = Counter(row["seed"] for row in rows)
    groups = by_configuration(results, rows)
    whole = [row for of in groups.values() if len(of) == len(seeds) for row in of]
    if whole:
        return whole
    fullest = max(seeds, key=lambda seed: (seeds[seed], -seed))
    return [row for row in rows if row["seed"] == fullest]


def _design(results: Results, rows: Sequence[TrialRow]) -> Design:
    """Return the design of the study as one level, a unit a seed."""
    seeds: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row["trial"])
    units = tuple(tuple(seeds[seed]) for seed in sorted(seeds))
    return Design(results.title, (), (None,), True, (units,), 0)


def _fitted(of: _Together) -> Interval | None:
    """Return training minus validation accuracy, over seeds and over the images of both."""
    column = of.prefix + "train_acc"
    trained = [[of.rows[number][column] for number in unit] for unit in of.made.units[0]]
    if of.val.seeds < 2 or any(one is None for unit in trained for one in unit):
        return None
    share = np.array([[np.mean(unit) for unit in trained]])[:, :, None]
    clusters = of.val.clusters
    # The share of training images has no patients' values: as if each stood for itself.
    whose = (Clusters(np.zeros(1, int)), *clusters) if clusters else ()
    panel = Panel((share, -of.val.blocks[0]), of.val.counts_images, clusters=whose)
    mean = float(share.mean())
    # No prediction is kept of training images: theirs is the variance of a share of this many, by
    # patient as much larger as that of validation images is.
    alike = max(sizes.val / sizes.val_worth.images for sizes in of.sizes.values())
    own = alike * mean * (1 - mean) / max(1, *(sizes.train for sizes in of.sizes.values()))
    return around(float(panel.means[0]), panel.spread(0).plus(of.val.grain + own))


def _examined(results: Results) -> Mapping[str, object] | None:
    check = checks.latest(results.connection, results.study.study_id)
    return None if check is None else check.body
