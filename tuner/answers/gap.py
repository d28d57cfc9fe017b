"""The gap between validation and test accuracy: its size, its interval, selection bias and cause.

In this order: the answer, the effective number of images of each split, the gap by setting and by
trial, the gap over all settings, the selection bias of the best trial, the cause, the sentences.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.settings import best_name, contenders, has_replicates
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.records import Unit
from tuner.results import (
    MEASURES,
    Design,
    Level,
    Measure,
    Results,
    Source,
    TrialRow,
    by_number,
    has_figure,
    once,
    sample,
)
from tuner.statistics import (
    Candidates,
    Clusters,
    Effective,
    Interval,
    Panel,
    SelectionBias,
    apart,
    around,
    effective,
    mean_over_seeds,
    rank_correlation,
    selection_bias,
    selection_bias_of_mean,
    too_few,
    wilson_of,
)
from tuner.store import checks
from tuner.store import tables as t

__all__ = [
    "Gap",
    "SettingGap",
    "choosing",
    "gap",
    "named_cause",
    "sampled",
    "selection",
    "sentences",
    "size",
    "table",
]

Cause = Literal[
    "overfitting",
    "different distribution",
    "both",
    "neither: within sampling error",
    "unexplained",
    "not examined",
    "too few patients",
]

CAUSES: Mapping[Cause, str] = {
    "overfitting": "The networks fit their training images better than new images of the same "
    "kind; the test images behave like the validation images.",
    "different distribution": "Test images come from a different distribution than training "
    "images. No setting in this study can fix that; different training data or augmentation might.",
    "both": "The networks fit their training images better than new images of the same kind, and "
    "test images also come from a different distribution.",
    "neither: within sampling error": "The gap is within sampling error, so there is nothing to "
    "explain.",
    "unexplained": "There is a gap, but the test images are no more different from the training "
    "images than the validation images are. The labels may differ, or something that the "
    "classifier cannot see.",
    "not examined": "There is a gap, but the images have not been checked for distribution shift.",
    "too few patients": "Validation or test has too few patients to say whether the two differ.",
}

VALUES_MOST = 20_000_000
BEST_MOST = 1_000
"""Limits of what the bootstrap resamples: values by image, and trials."""

# The answer


@dataclass(frozen=True)
class Probed:
    """How well a classifier distinguishes two splits."""

    auc: Interval

    @property
    def tells_apart(self) -> bool:
        """Whether it is significantly better than chance, 0.5."""
        return self.auc.low > 0.5


@dataclass(frozen=True)
class SettingGap:
    """The gap of one setting over its seeds."""

    values: Mapping[str, Level]
    """By varied parameter."""
    trials: tuple[int, ...]
    val_acc: float
    test_acc: float
    gap: Interval
    """Over its seeds and the images; over images only if it has one seed."""

    JSON: ClassVar = (
        "**values",
        "trials",
        "val_acc",
        "test_acc",
        "gap",
    )


@dataclass(frozen=True)
class OwnGap:
    """The gap of a metric other than accuracy: by how much it is worse on test."""

    metric: str
    unit: Unit
    val: float
    test: float
    gap: Interval | None
    """Over seeds, and over images if there are values by image or by resample; None if over one
    seed only."""
    seeds: int
    over_images: bool

    JSON: ClassVar = ("metric", "val", "test", "gap", "n=seeds", "over_images")


@dataclass(frozen=True)
class TrialGap:
    """One trial's gap, with Newcombe's interval over the images, or patients, of both splits."""

    trial: int
    val_acc: float
    test_acc: float
    gap: Interval


@dataclass(frozen=True)
class Gap:
    """The gap of a study between validation and test accuracy, with its cause."""

    study: str
    """The study's full name, by which `tuner check` takes it."""
    trials: tuple[TrialGap, ...]
    settings: tuple[SettingGap, ...]
    seeds: int
    val_images: int
    test_images: int
    val_patients: int
    """The number of patients of the validation images; 0 if the data name none."""
    test_patients: int
    val_worth: float
    """The effective number of independent validation images."""
    test_worth: float
    clusters: tuple[Clusters, ...]
    """The patients of the splits whose data name them."""
    patients_unknown: bool
    """Whether labels were stored without patients by an earlier version, so images are counted."""
    val_acc: Interval
    test_acc: Interval
    gap: Interval
    fitted: Interval | None
    """Training accuracy minus validation accuracy."""
    correlation: Interval | None
    """Spearman's rank correlation of validation and test accuracy over settings."""
    measure: Measure
    """The study's metric."""
    selection_bias: SelectionBias | None
    """Of the best setting's mean, or of the best trial if there are no replicates."""
    winner: int | None
    best_setting: str
    """By the mean of the study's metric over seeds; empty if settings have one seed each."""
    probes: Mapping[str, Probed]
    cause: Cause
    left_out: int
    """Trials that were pruned, diverged or failed; they are in none of these figures."""
    without_peers: int
    """Complete trials in the table and the rank correlation only: their setting lacks a seed that
    others have."""
    images_shared: bool
    """Whether all trials were measured on the same images, so that intervals cover images."""
    own: tuple[OwnGap, ...] = ()
    """The gaps of the study's additional metrics."""
    lost: str = "pruned, diverged or failed"
    """What sentences call the trials that are left out."""
    candidates: str = "setting"
    """What sentences call the settings that the best was picked from: "contender" in a race."""

    JSON: ClassVar = (
        "n=seeds",
        "val_images",
        "test_images",
        "val_patients",
        "test_patients",
        "too_few_patients=too_few",
        "val_acc",
        "test_acc",
        "gap",
        "train_minus_val=fitted",
        "rank_correlation=correlation",
        "configurations",
        "winner",
        "metric",
        "optimism=selection_bias",
        "probes=aucs",
        "cause",
        "left_out",
        "without_peers",
        "images_shared",
        "own_metrics=own",
        "settings",
        "trials",
        "verdict",
    )

    @property
    def metric(self) -> str:
        """The name of the study's metric."""
        return self.measure.name

    @property
    def configurations(self) -> int:
        """How many settings there are."""
        return len(self.settings)

    @property
    def aucs(self) -> dict[str, Interval]:
        """How well training images are distinguished from those of each other split."""
        return {split: probed.auc for split, probed in self.probes.items()}

    @property
    def verdict(self) -> str:
        """All sentences as one text."""
        return " ".join(sentences(self))

    @property
    def too_few(self) -> bool:
        """Whether there are too few patients to tell if validation and test differ."""
        return too_few(self.clusters)


# The effective number of images of a split


class Sizes(NamedTuple):
    """How many images each split of a trial's data has, and their effective number."""

    train: int
    val: int
    test: int
    val_worth: Effective
    """The effective number of independent validation images, given their patients."""
    test_worth: Effective

    def apart(self, val: float, test: float) -> Interval:
        """Return the difference of two accuracies with Newcombe's interval."""
        return apart(wilson_of(val, self.val_worth), wilson_of(test, self.test_worth))


def _split_sizes(results: Results, numbers: Sequence[int], source: Source) -> dict[int, Sizes]:
    """Return the number and effective number of images that each trial was trained and measured on.

    If patients are named, it depends on how correlated a trial's hits on a patient's images are.
    """
    query = (
        sa.select(t.trial.c.number, t.dataset.c.sizes)
        .select_from(
            t.trial.join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).join(
                t.dataset, t.dataset.c.fingerprint == t.outcome.c.setup["data_fingerprint"].astext
            )
        )
        .where(t.trial.c.study_id == results.study.study_id)
    )
    worth: dict[tuple[int, str], Effective] = {}
    if any(truth.clusters and not truth.clusters.single for truth in source.truths.values()):
        worth = {
            (number, split): effective(hits, clusters)
            for number, split, hits, clusters in source.by_image(numbers)
        }
    wanted = set(numbers)
    found = {}
    for row in results.connection.execute(query):
        if row.number in wanted:
            train, val, test = (int(row.sizes[split]) for split in ("train", "val", "test"))
            found[row.number] = Sizes(
                train,
                val,
                test,
                worth.get((row.number, "val"), Effective(val)),
                worth.get((row.number, "test"), Effective(test)),
            )
    return found


def _least_worth(worths: Sequence[Effective]) -> Effective:
    """Return the smallest effective number of images of any trial."""
    return min(worths, key=lambda effective: effective.images)


# By setting and by trial


def _by_setting(
    results: Results, rows: Sequence[TrialRow]
) -> dict[tuple[Level, ...], list[TrialRow]]:
    """Return the trials of each configuration."""
    groups: dict[tuple[Level, ...], list[TrialRow]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in results.spec.varied)].append(row)
    return groups


def _of_trial(row: TrialRow, prefix: str, sizes: Sizes) -> TrialGap:
    """Return one trial's gap; `prefix` selects the figures of the best or the last epoch."""
    val, test = row[prefix + "val_acc"], row[prefix + "test_acc"]
    return TrialGap(row["trial"], val, test, sizes.apart(val, test))


def _settings(
    results: Results, rows: Sequence[TrialRow], sizes: Mapping[int, Sizes]
) -> tuple[SettingGap, ...]:
    """Return each configuration's gap over its seeds, the best on validation first."""
    groups = _by_setting(results, rows)
    settings = [_setting(results, group, sizes) for group in groups.values()]
    return tuple(sorted(settings, key=lambda setting: -setting.val_acc))


def _setting(results: Results, rows: Sequence[TrialRow], sizes: Mapping[int, Sizes]) -> SettingGap:
    prefix = results.prefix
    val = [row[prefix + "val_acc"] for row in rows]
    test = [row[prefix + "test_acc"] for row in rows]
    # Newcombe's interval of the mean accuracies, widened by the variation between seeds.
    of_trials = [sizes[row["trial"]] for row in rows]
    over_images = (
        of_trials[0]
        ._replace(
            val_worth=_least_worth([one.val_worth for one in of_trials]),
            test_worth=_least_worth([one.test_worth for one in of_trials]),
        )
        .apart(float(np.mean(val)), float(np.mean(test)))
    )
    return SettingGap(
        values={name: rows[0][name] for name in results.spec.varied},
        trials=tuple(row["trial"] for row in rows),
        val_acc=float(np.mean(val)),
        test_acc=float(np.mean(test)),
        gap=_with_seeds(over_images, [a - b for a, b in zip(val, test, strict=True)]),
    )


def gap_of_trials(results: Results, numbers: Collection[int]) -> Interval:
    """Return the gap of one setting over these of its trials."""
    rows = [row for row in results.rows if row["trial"] in numbers]
    sizes = _split_sizes(results, [row["trial"] for row in rows], Source(results, MEASURES["gap"]))
    return _setting(results, rows, sizes).gap


def _with_seeds(interval: Interval, gaps: Sequence[float]) -> Interval:
    over_seeds = mean_over_seeds(gaps)
    if over_seeds is None or over_seeds.half_width is None:
        return interval
    half = over_seeds.half_width
    low = interval.value - float(np.hypot(interval.value - interval.low, half))
    high = interval.value + float(np.hypot(interval.high - interval.value, half))
    return Interval(interval.value, max(-1.0, low), min(1.0, high))


# Over all settings


@once
def gap(results: Results) -> Gap:
    """Measure a study's gap over all its complete trials."""
    prefix = results.prefix
    complete = [
        row for row in results.rows if row.complete and row[prefix + "test_acc"] is not None
    ]
    if not complete:
        raise UserError(_nothing(results))
    source = Source(results, MEASURES["gap"])
    sizes = _split_sizes(results, [row["trial"] for row in complete], source)
    settings = _settings(results, complete, sizes)

    # All compared settings are one level, with one unit for each seed.
    compared = _comparable(results, complete)
    design = _design(results, compared)
    val, test, difference = (
        _panel(results, design, name) for name in ("val_acc", "test_acc", "gap")
    )
    val_acc, test_acc = val.mean(0), test.mean(0)
    images_shared = source.same_images([row["trial"] for row in compared])
    if images_shared or len(design.units[0]) > 1:
        overall = difference.mean(0)
    else:
        # One seed, and each trial has its own images: only the images of a split are a sample.
        overall = apart(
            wilson_of(val_acc.value, _least_worth([one.val_worth for one in sizes.values()])),
            wilson_of(test_acc.value, _least_worth([one.test_worth for one in sizes.values()])),
        )

    fitted = _fitted(results, design, val, sizes)
    clusters = tuple(
        truth.clusters for truth in source.truths.values() if truth.clusters is not None
    )
    check = checks.latest(results.connection, results.study.study_id)
    probed = probes(None if check is None else check.body)
    return Gap(
        study=results.study.full_name,
        trials=tuple(_of_trial(row, prefix, sizes[row["trial"]]) for row in complete),
        settings=settings,
        seeds=len(design.units[0]),
        val_images=max(one.val for one in sizes.values()),
        test_images=max(one.test for one in sizes.values()),
        val_patients=source.patients("val"),
        test_patients=source.patients("test"),
        val_worth=_least_worth([one.val_worth for one in sizes.values()]).images,
        test_worth=_least_worth([one.test_worth for one in sizes.values()]).images,
        clusters=clusters,
        patients_unknown=source.patients_unknown,
        val_acc=val_acc,
        test_acc=test_acc,
        gap=overall,
        fitted=fitted,
        correlation=rank_correlation(
            np.array([setting.val_acc for setting in settings]),
            np.array([setting.test_acc for setting in settings]),
        ),
        measure=results.measures[results.metric],
        selection_bias=bias_of_best(results),
        winner=results.best if results.ranked else None,
        best_setting=best_name(results),
        probes=probed,
        cause="too few patients" if too_few(clusters) else cause(overall, fitted, probed),
        left_out=sum(row.lost for row in results.rows),
        lost=words.lost(results.spec),
        candidates="contender" if contenders(results) else "setting",
        without_peers=len(complete) - len(compared),
        images_shared=images_shared,
        own=tuple(
            made
            for metric in results.spec.metrics
            if (made := _own_gap(results, design, metric.name)) is not None
        ),
    )


def _own_gap(results: Results, design: Design, name: str) -> OwnGap | None:
    measure = results.measures[f"gap_{name}"]
    rows = by_number(results.rows)
    trials = [rows[number] for units in design.units for unit in units for number in unit]
    if not all(has_figure(row, measure, results.at) for row in trials):
        return None
    sampled = [
        sample(results, design, results.measures[f"{of}_{name}"]) for of in ("val", "test", "gap")
    ]
    panels = [one.panel for one in sampled if one is not None and isinstance(one.panel, Panel)]
    if len(panels) < len(sampled):
        return None
    val, test, gap = panels
    over_images = bool(measure.blocks) and sampled[2] is not None and sampled[2].images_shared
    return OwnGap(
        metric=name,
        unit=results.measures[f"val_{name}"].unit,
        val=val.mean(0).value,
        test=test.mean(0).value,
        gap=gap.mean(0) if over_images or gap.seeds > 1 else None,
        seeds=gap.seeds,
        over_images=over_images,
    )


def _nothing(results: Results) -> str:
    if any(row.complete for row in results.rows):
        return (
            f"{results.title} has no test set, so there is no gap to measure. Give its data a test "
            "split (docs/data.md): validation accuracy alone is optimistic, since it was used for "
            "selection."
        )
    return (
        f"No trial of {results.title} is complete yet; "
        f"`tuner status {results.title}` shows the progress."
    )


def _comparable(results: Results, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials of the settings that completed under all seeds.

    Under seeds that only some settings have (contenders' further ones, a
    study that is still running), a mean would depend on which settings are in it. If
    no setting has all seeds, only the seed with the most settings is used.
    """
    seeds = Counter(row["seed"] for row in rows)
    groups = _by_setting(results, rows)
    whole = [row for of in groups.values() if len(of) == len(seeds) for row in of]
    if whole:
        return whole
    fullest = max(seeds, key=lambda seed: (seeds[seed], -seed))
    return [row for row in rows if row["seed"] == fullest]


def _design(results: Results, rows: Sequence[TrialRow]) -> Design:
    """Return the design of the study as one level with one unit per seed."""
    seeds: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row["trial"])
    units = tuple(tuple(seeds[seed]) for seed in sorted(seeds))
    return Design(results.title, (), (None,), True, (units,), 0)


def _panel(results: Results, design: Design, name: str) -> Panel:
    taken = sample(results, design, MEASURES[name])
    assert taken is not None, "complete trials have predictions"
    assert isinstance(taken.panel, Panel), "seeds are paired"
    return taken.panel


def _fitted(
    results: Results, design: Design, val: Panel, sizes: Mapping[int, Sizes]
) -> Interval | None:
    """Return training minus validation accuracy, over seeds and over the images of both."""
    rows, column = by_number(results.rows), results.prefix + "train_acc"
    trained = [[rows[number][column] for number in unit] for unit in design.units[0]]
    if val.seeds < 2 or any(one is None for unit in trained for one in unit):
        return None
    share = np.array([[np.mean(unit) for unit in trained]])[:, :, None]
    # Patients of training images are not stored: each image counts as independent.
    clusters = (Clusters(np.zeros(1, int)), *val.clusters) if val.clusters else ()
    panel = Panel((share, -val.blocks[0]), val.counts_images, clusters=clusters)
    mean = float(share.mean())
    # Predictions for training images are not stored: their variance is that of a share of this many
    # images, multiplied by the validation images' design effect if patients are named.
    alike = max(one.val / one.val_worth.images for one in sizes.values())
    own = alike * mean * (1 - mean) / max(1, *(one.train for one in sizes.values()))
    return around(float(panel.means[0]), panel.spread(0).plus(val.grain + own))


# Selection bias of the best trial


@once
def bias_of_best(results: Results) -> SelectionBias | None:
    """Return the selection bias of the best trial's figure, or of the best setting's mean.

    None if there was no choice, if trials have different images, or if the metric
    has no values by image or by resample, whose noise could be estimated.
    """
    measure, leaders = results.measures[results.metric], results.ranked
    by_setting = has_replicates(results.spec)
    if by_setting:
        # The settings that could have been picked: a setting with fewer seeds is not, and in a
        # race neither is one that has seed 0 alone.
        ranked = results.ranked_settings
        peers = [
            setting
            for setting in ranked
            if len(setting.seeds) == len(ranked[0].seeds) and setting.counted == ranked[0].counted
        ]
        numbers = {seed.number for one in peers for seed in one.seeds}
        leaders = [row for row in leaders if row["trial"] in numbers]
    source = Source(results, measure)
    if len(leaders) < 2 or not source.same_images([row["trial"] for row in leaders]):
        return None
    # Best first; those far behind are never picked, so their images are not needed.
    rows = leaders[: max(2, min(BEST_MOST, VALUES_MOST // max(1, source.units())))]
    tried = [row["trial"] for row in rows]
    if not source.has_values(tried):
        return None
    values = {number: found for number, _, found in source.values(tried)}
    best = [at for at, row in enumerate(rows) if row["trial"] in values]
    if len(best) < 2:
        return None
    choice = Candidates(
        means=np.array([float(row.value or 0.0) for row in leaders]),
        settings=_places(results, leaders),
        best=np.array(best),
        values=np.array([values[rows[at]["trial"]] for at in best]),
    )
    estimate = selection_bias_of_mean if by_setting else selection_bias
    return estimate(choice, larger=measure.larger)


def _places(results: Results, rows: Sequence[TrialRow]) -> NDArray[np.int64]:
    """Number the settings of the trials."""
    names: dict[tuple[Level, ...], int] = {}
    cells = (tuple(row[name] for name in results.spec.varied) for row in rows)
    return np.array([names.setdefault(cell, len(names)) for cell in cells])


# The cause


def probes(body: Mapping[str, Any] | None) -> dict[str, Probed]:
    """Return the newest check's probes, by the split that was compared with training.

    If several data settings were checked, the one with the clearest difference counts.
    """
    found: dict[str, Probed] = {}
    for examined in (body or {}).get("data", []):
        for one in examined.get("probes", []):
            probed = Probed(Interval(one["auc"], one["low"], one["high"]))
            known = found.get(one["second"])
            if known is None or probed.auc.value > known.auc.value:
                found[one["second"]] = probed
    return found


def cause(gap: Interval, fitted: Interval | None, probed: Mapping[str, Probed]) -> Cause:
    """Name the cause of the gap from the training gap and from the probes of the images.

    `fitted` is training accuracy minus validation accuracy. It is a shift
    if test images differ from training images by more than validation images do.
    """
    overfits = fitted is not None and fitted.low > 0
    apart = gap.low > 0 or gap.high < 0
    if not apart:
        return "overfitting" if overfits else "neither: within sampling error"
    if _shifted(probed):
        return "both" if overfits else "different distribution"
    if "test" not in probed:
        return "not examined"
    return "unexplained"


def _shifted(probed: Mapping[str, Probed]) -> bool:
    """Whether test images differ from training images by more than validation images do."""
    val, test = probed.get("val"), probed.get("test")
    if test is None or not test.tells_apart:
        return False
    return val is None or test.auc.low > val.auc.value


# In words


def sentences(gap: Gap) -> tuple[str, ...]:
    """State the gap, whether selecting on validation helps, the selection bias, and the cause."""
    return tuple(
        one
        for one in (
            size(gap),
            choosing(gap),
            selection(gap),
            _why(gap),
            *map(own_gap, gap.own),
            _left_out(gap),
            *words.patient_remarks(gap.clusters, unknown=gap.patients_unknown),
        )
        if one
    )


def size(found: Gap) -> str:
    """State the gap with its interval."""
    gap = found.gap.scaled(100)
    images = sampled(found)
    about = f"over {words.count(found.seeds, 'seed')}, {images}"
    if found.seeds == 1:
        about = f"one seed: over {images}"
    elif not found.images_shared:
        about = f"over {words.count(found.seeds, 'seed')} only, each on different images"
    ends = f"{words.signed(gap.low, 1)} to {words.signed(gap.high, 1)}"
    amount = f"{words.signed(gap.value, 1)} points, 95% interval {ends}"
    val, test = words.percent(found.val_acc.value), words.percent(found.test_acc.value)
    accuracies = f"{val} on validation and {test} on test"
    gap_of = f"{accuracies}, a gap of {amount} ({about})"
    if found.too_few:
        return f"Too few patients to judge the gap: {accuracies}, {amount} ({about})."
    if found.gap.low > 0:
        return f"Test accuracy is below validation accuracy: {gap_of}."
    if found.gap.high < 0:
        return f"Test accuracy is above validation accuracy: {gap_of}."
    return (
        f"Validation and test accuracy are not distinguishable: {accuracies}, {amount} ({about})."
    )


def own_gap(own: OwnGap) -> str:
    """State the gap of one of the study's own metrics."""
    val, test = words.figure(own.unit, own.val), words.figure(own.unit, own.test)
    said = f"{own.metric}: {val} on validation and {test} on test"
    if own.gap is None:
        return f"{said} (one seed)."
    # One seed can be judged over images only.
    seeds = words.count(own.seeds, "seed")
    over = f"over {seeds} and the images" if own.over_images else f"over {seeds} only"
    return f"{said}, a gap of {words.difference(own.unit, own.gap)} ({over})."


def sampled(gap: Gap) -> str:
    """Return what the gap is over: the images of both splits, and their patients."""
    patients = gap.val_patients, gap.test_patients
    if not any(patients):
        return f"{gap.val_images:,} validation and {gap.test_images:,} test images"
    val = words.sampled(gap.val_images, patients[0])
    test = words.sampled(gap.test_images, patients[1])
    return f"{val} on validation and {test} on test"


def choosing(gap: Gap) -> str:
    """Say whether selecting on validation helps on test."""
    together = gap.correlation
    if together is None:
        few = len(gap.settings)
        return (
            f"With {words.count(few, 'setting')}, there is no way to tell whether selecting on "
            "validation helps on the test set."
            if few < 4
            else "Validation or test accuracy is the same for all settings, so one cannot "
            "predict the other."
        )
    figures = (
        f"rank correlation {words.signed(together.value, 2)}, "
        f"95% interval {words.signed(together.low, 2)} to {words.signed(together.high, 2)}, over "
        f"{len(gap.settings)} settings"
    )
    if together.low > 0:
        return f"Better on validation means better on test here ({figures})."
    if together.high < 0:
        return f"Better on validation means worse on test here ({figures})."
    return f"No evidence that selecting on validation helps on the test set ({figures})."


def selection(gap: Gap) -> str:
    """Say how much of the best setting's or trial's figure is selection bias."""
    if gap.selection_bias is None:
        return (
            f"Selection bias in the best {gap.metric} is not estimated, because "
            f"{words.not_resampled(gap.metric)}."
            if gap.measure.resampled
            else ""
        )
    amount = words.size(gap.measure.unit, gap.selection_bias.value)
    if amount == words.size(gap.measure.unit, 0):
        among = words.count(gap.selection_bias.trials, "trial")
        which = f"{gap.metric} of the best trial (trial {gap.winner})"
        if gap.best_setting:
            among = words.count(gap.selection_bias.settings, gap.candidates)
            which = f"mean {gap.metric} of the best setting ({gap.best_setting})"
        return (
            f"No selection bias was detected in the {which}, although it was picked as the best of "
            f"{among}."
        )
    missing = "" if gap.selection_bias.over_seeds else ", without the variation between seeds"
    if gap.best_setting:
        return (
            f"The mean {gap.metric} of the best setting ({gap.best_setting}) looks about {amount} "
            "better than it is, because it was picked as the best of "
            f"{words.count(gap.selection_bias.settings, gap.candidates)} "
            f"(selection bias{missing})."
        )
    return (
        f"The {gap.metric} of the best trial (trial {gap.winner}) looks about {amount} better than "
        f"it is, because it was picked as the best of "
        f"{words.count(gap.selection_bias.trials, 'trial')} (selection bias{missing})."
    )


def _why(gap: Gap) -> str:
    parts = []
    if gap.fitted is not None:
        parts.append(f"training minus validation accuracy {_points(gap.fitted)}")
    for name, kind in (("val", "validation"), ("test", "test")):
        if name in gap.probes:
            auc = gap.probes[name].auc
            parts.append(
                f"a classifier that tries to tell training from {kind} images has AUC "
                f"{auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f}; 0.5 is chance)"
            )
    named = named_cause(gap)
    seen = f" {'Evidence' if named else 'For reference'}: {'; '.join(parts)}." if parts else ""
    way = f" Run `tuner check {gap.study}` to check them." if gap.cause == "not examined" else ""
    name = f"{named.capitalize()}. " if named else ""
    return f"{name}{CAUSES[gap.cause]}{_unseen_shift(gap)}{way}{_shares(gap)}{seen}"


def named_cause(gap: Gap) -> str:
    """Return "cause: distribution shift", or "" if there is no gap to explain."""
    if gap.too_few or gap.gap.low <= 0 <= gap.gap.high:
        return ""
    return {
        "both": "causes: overfitting and distribution shift",
        "different distribution": "cause: distribution shift",
    }.get(gap.cause, f"cause: {gap.cause}")


def _unseen_shift(gap: Gap) -> str:
    """Warn of test images that differ although accuracy does not show it."""
    within = ("neither: within sampling error", "overfitting")
    if gap.cause not in within or not _shifted(gap.probes):
        return ""
    return (
        " However, the test images come from a different distribution than the training images, "
        "so a larger test set might reveal a gap."
    )


def _shares(found: Gap) -> str:
    """Split the loss of accuracy from training to test into its two parts, if there are two."""
    if found.cause != "both" or found.fitted is None or found.gap.value <= 0:
        return ""
    fitted, gap = found.fitted.value * 100, found.gap.value * 100
    return (
        f" Of the {words.fixed(fitted + gap, 1)} points between training and test accuracy, "
        f"{words.fixed(fitted, 1)} are lost between training and validation, "
        f"{words.fixed(gap, 1)} between validation and test."
    )


def _points(interval: Interval) -> str:
    shown = interval.scaled(100)
    return (
        f"{words.signed(shown.value, 1)} points ({words.signed(shown.low, 1)} to "
        f"{words.signed(shown.high, 1)})"
    )


def _left_out(gap: Gap) -> str:
    said = []
    if gap.without_peers:
        ranked = " and the rank correlation" if gap.correlation is not None else ""
        one = gap.without_peers == 1
        said.append(
            f"{words.count(gap.without_peers, 'complete trial')} "
            f"{'belongs to a setting' if one else 'belong to settings'} with missing seeds; "
            f"{'it counts' if one else 'they count'} in the table{ranked}, but not in the gap."
        )
    if gap.left_out:
        said.append(
            f"Not included: {words.count(gap.left_out, f'{gap.lost} trial')}. These "
            "numbers cover only trials that finished."
        )
    return " ".join(said)


# Its table


def table(gap: Gap, study: str, best: int) -> Table:
    """Return the best settings on validation with their gaps."""
    shown = gap.settings[:best]
    of = f"{len(shown)} of {len(gap.settings)}" if len(shown) < len(gap.settings) else "all"
    rows = []
    for setting in shown:
        own = setting.gap.scaled(100)
        rows.append(
            (
                *(words.level_name(value) for value in setting.values.values()),
                words.percent(setting.val_acc),
                words.percent(setting.test_acc),
                words.signed(own.value, 1),
                f"{words.signed(own.low, 1)} to {words.signed(own.high, 1)}",
                str(len(setting.trials)),
            )
        )
    varied = list(shown[0].values)
    return Table(
        (*varied, "val acc", "test acc", "gap", "95% interval", "n"),
        tuple(rows),
        f"{study}: {of} settings, by validation accuracy",
        setting=range(len(varied)),
    )
