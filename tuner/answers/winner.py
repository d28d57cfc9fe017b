"""The trial that a study selects: how it was chosen, and its figures with their intervals.

In this order: the answer, how it is read, its JSON, its sentences, its table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from tuner.answers import words
from tuner.answers.gap import CAUSES, Gap, bias_of_best, gap_of_trials, named_cause
from tuner.answers.gap import gap as measure_gap
from tuner.answers.plain import plain
from tuner.answers.settings import (
    Setting,
    contenders,
    has_replicates,
    over_additional_seeds,
    setting_of,
    trial_of_seed,
)
from tuner.answers.table import Table
from tuner.answers.trial import OneTrial, SplitFigures, one_trial
from tuner.errors import UserError
from tuner.records import FRACTION, NATS, SHARE, SplitName, Unit
from tuner.results import Measure, Predicted, Results, TrialRow, measures_of, right
from tuner.results import shown as shown_figures
from tuner.statistics import Interval, Mean, Right, SelectionBias, mean_over_seeds, share_of
from tuner.store import tables as t
from tuner.store.studies import Study

__all__ = [
    "LIMITS",
    "Winner",
    "cause_sentence",
    "choice",
    "described",
    "figures",
    "gap_sentence",
    "judged_epoch",
    "over_seeds",
    "seeds",
    "selection",
    "sentences",
    "winner",
]


@dataclass(frozen=True)
class ClassRates:
    """Sensitivity and specificity."""

    sensitivity: Interval
    """The recall of class 1."""
    specificity: Interval
    """The recall of class 0."""
    positives: int
    negatives: int


@dataclass(frozen=True)
class Winner:
    """One complete trial, with everything that a person should know before using its network."""

    study: Study
    trial: OneTrial
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    """Images by split."""
    rates: Mapping[SplitName, ClassRates]
    """Only with two classes."""
    over_seeds: Mapping[str, Mean]
    """Means of its setting over the complete seeds."""
    setting_gap: Interval | None
    """The gap of its setting, over its seeds and the images."""
    gap: Gap | None
    """The gap of the whole study; None without a test set."""
    selection_bias: SelectionBias | None
    """Of the best setting, or of the best trial without replicates; None for any other, or if
    it cannot be estimated."""
    setting: Setting | None = None
    """The trial's setting over its seeds; None if the study has one seed per setting."""
    settings_ranked: int = 0
    """The number of settings with a complete seed."""
    contenders: int = 0
    """The number of them that are ranked by additional seeds."""

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return int(self.trial.row["trial"])

    @property
    def measures(self) -> Mapping[str, Measure]:
        """The measures of its study, by name."""
        return measures_of(self.study.spec.metrics)

    @property
    def epoch(self) -> int:
        """The epoch of its weights."""
        return judged_epoch(self.study, self.trial.row)

    @property
    def settings(self) -> Mapping[str, Any]:
        """This trial's values of the varied parameters."""
        return {name: self.trial.row[name] for name in self.study.spec.varied}

    @property
    def fixed(self) -> Mapping[str, Any]:
        """The parameters that all trials of the study share."""
        return {name: self.trial.row[name] for name in self.study.spec.fixed_names}

    @property
    def splits(self) -> tuple[SplitFigures, ...]:
        """Its figures on validation and, if there is one, on the test set."""
        return self.trial.splits


def winner(results: Results, number: int | None = None, seed: int | None = None) -> Winner:
    """Read the trial that a study selects, or the one with this number.

    With replicates it is the best setting's median seed, or its trial under `seed`.
    """
    study = results.study
    chosen = results.best if number is None else number
    if seed is not None:
        chosen = trial_of_seed(results, seed)
    trial = one_trial(results, chosen)
    if not trial.row.complete:
        raise UserError(
            f"Trial {chosen} of {study.title} is {trial.row['state'].lower()}, and predictions are "
            "stored only for complete trials; choose another with --trial."
        )
    measured = measure_gap(results) if results.tested else None
    leaders = results.ranked
    dataset = results.connection.execute(
        sa.select(t.dataset.c.classes, t.dataset.c.sizes).where(
            t.dataset.c.fingerprint == trial.setup["data_fingerprint"]
        )
    ).one()
    classes = tuple(dataset.classes)
    setting = setting_of(results, chosen) if has_replicates(results.spec) else None
    first = setting.rank == 1 if setting else bool(leaders) and leaders[0]["trial"] == chosen
    return Winner(
        study=study,
        trial=trial,
        classes=classes,
        sizes={name: int(dataset.sizes[name]) for name in sorted(dataset.sizes)},
        rates=_rates(results, trial) if len(classes) == 2 else {},
        over_seeds=_over_seeds(results, trial, setting),
        setting_gap=_setting_gap(results, measured, chosen, setting),
        gap=measured,
        selection_bias=bias_of_best(results) if first else None,
        setting=setting,
        settings_ranked=len(results.ranked_settings),
        contenders=contenders(results),
    )


def _setting_gap(
    results: Results, measured: Gap | None, chosen: int, setting: Setting | None
) -> Interval | None:
    """Return the gap of the trial's setting, over the seeds that its other figures are over."""
    if measured is None:
        return None
    if setting is not None and over_additional_seeds(results.spec, setting):
        return gap_of_trials(results, {row["trial"] for row in setting.seeds})
    return next((gap.gap for gap in measured.settings if chosen in gap.trials), None)


def _rates(results: Results, trial: OneTrial) -> dict[SplitName, ClassRates]:
    found = {
        part.split: rates_of(results.predicted(trial.row["trial"], part.split))
        for part in trial.splits
    }
    return {split: rates for split, rates in found.items() if rates is not None}


def rates_of(predicted: Predicted) -> ClassRates | None:
    """Return sensitivity and specificity; None unless images of two classes were predicted."""
    hits = right(predicted.log_probabilities, predicted.labels) > 0
    sick = predicted.labels == 1
    positives, negatives = int(sick.sum()), int((~sick).sum())
    if len(predicted.classes) != 2 or not positives or not negatives:
        return None
    return ClassRates(
        sensitivity=_share(predicted, hits, sick),
        specificity=_share(predicted, hits, ~sick),
        positives=positives,
        negatives=negatives,
    )


def _share(predicted: Predicted, hits: Right, mine: Right) -> Interval:
    """Return the share of correct predictions among some of the images."""
    clusters = None if predicted.clusters is None else predicted.clusters.take(mine)
    return share_of(hits[mine], clusters)


def _over_seeds(results: Results, trial: OneTrial, setting: Setting | None) -> dict[str, Mean]:
    """Return the setting's means over its complete seeds: the metric and the accuracies."""
    numbers = {trial.row["trial"], *trial.peers}
    if setting is not None:
        numbers = {row["trial"] for row in setting.seeds}
    group = [row for row in results.rows if row["trial"] in numbers and row.complete]
    own = (f"{split}_{metric.name}" for metric in results.spec.metrics for split in ("val", "test"))
    names = ("val_loss", "val_acc", "test_loss", "test_acc", "gap", *own)
    columns = {name: [row[results.prefix + name] for row in group] for name in names}
    if results.spec.search.metric not in columns:
        columns = {results.spec.search.metric: [row.value for row in group], **columns}
    known = {
        name: [np.float64(value).item() for value in values if value is not None]
        for name, values in columns.items()
    }
    means = {name: mean_over_seeds(values) for name, values in known.items()}
    return {
        name: _possible(results.measures[name], mean)
        for name, mean in means.items()
        if mean is not None and name in results.measures
    }


def _possible(measure: Measure, mean: Mean) -> Mean:
    """Return a mean with its interval cut to the figure's range, which few seeds may exceed."""
    unit = measure.unit
    if mean.low is None or mean.high is None or math.isinf(unit.high):
        return mean
    return replace(mean, low=max(unit.low, mean.low), high=min(unit.high, mean.high))


def judged_epoch(study: Study, row: TrialRow) -> int:
    """Return the epoch at which a trial is judged."""
    return int(row["best_epoch"] if study.spec.search.at == "best" else row["epochs_run"])


def figure(study: Study, name: str) -> str:
    """Return the column of a figure at the epoch at which the study judges trials."""
    return name if study.spec.search.at == "best" else f"last_{name}"


# For programs


def described(winner: Winner) -> dict[str, Any]:
    """Return everything as JSON; fractions stay fractions."""
    row, spec, bias = winner.trial.row, winner.study.spec, winner.selection_bias
    return {
        "study": winner.study.title,
        "question": spec.question,
        "trial": winner.number,
        "seed": row["seed"],
        "metric": spec.search.metric,
        "value": row.value,
        "at": spec.search.at,
        "epoch": winner.epoch,
        "rank": winner.trial.rank,
        "complete_trials": winner.trial.complete,
        "settings": dict(winner.settings),
        "fixed": dict(winner.fixed),
        "classes": list(winner.classes),
        "sizes": dict(winner.sizes),
        "splits": {part.split: _described_split(winner, part) for part in winner.splits},
        "gap": plain(winner.trial.gap),
        "gap_of_setting": plain(winner.setting_gap),
        "over_seeds": {
            name: {"mean": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
            for name, mean in winner.over_seeds.items()
        },
        "other_seeds": list(winner.trial.peers),
        "setting": plain(winner.setting),
        "ranked_settings": winner.settings_ranked,
        "optimism": plain(bias),
        "study_gap": plain(winner.gap.gap) if winner.gap else None,
        "cause": winner.gap.cause if winner.gap else None,
        "row": plain(row.cells),
    }


def _described_split(winner: Winner, one: SplitFigures) -> dict[str, Any]:
    rates = winner.rates.get(one.split)
    return {
        "images": one.images,
        "patients": one.patients,
        "loss": winner.trial.row[figure(winner.study, f"{one.split}_loss")],
        "accuracy": plain(one.accuracy),
        "auc": plain(one.auc),
        "sensitivity": plain(rates.sensitivity) if rates else None,
        "specificity": plain(rates.specificity) if rates else None,
        "calibration_error": one.calibration_error,
        "brier": one.brier,
    }


# In words


def sentences(winner: Winner) -> tuple[str, ...]:
    """Say how the trial was chosen, its setting's means over seeds, the bias, and the gap."""
    said = (
        choice(winner),
        over_seeds(winner),
        selection(winner),
        gap_sentence(winner),
        cause_sentence(winner),
    )
    return tuple(one for one in said if one)


def choice(winner: Winner) -> str:
    """Say how the trial was chosen; test images are never used for it."""
    search = winner.study.spec.search
    value = words.figure(winner.measures[search.metric].unit, winner.trial.row.value)
    moment = "best" if search.at == "best" else "last"
    by = f"{search.metric} {value}, {moment} epoch {winner.epoch}"
    if winner.setting is not None:
        return _choice_of_setting(winner, winner.setting, by)
    complete = words.count(winner.trial.complete, "complete trial")
    if winner.trial.rank == 1 and winner.trial.complete == 1:
        return f"This is the only complete trial ({by})."
    if winner.trial.rank == 1:
        return (
            f"Selected on validation images only: the best of {complete} by {search.metric} ({by})."
        )
    place = words.ordinal(winner.trial.rank) if winner.trial.rank else "unranked"
    return f"Selected by number: {place} of {complete} by {search.metric} ({by})."


def _choice_of_setting(winner: Winner, setting: Setting, by: str) -> str:
    metric = winner.study.spec.search.metric
    mean_value = setting.means[metric]
    count, noun, further = winner.settings_ranked, "setting", ""
    if over_additional_seeds(winner.study.spec, setting):
        count, noun, further = winner.contenders, "contender", "additional "
    ranked = words.count(count, noun)
    so_far = "" if winner.study.state == "complete" else " so far"
    seed = winner.trial.row["seed"]
    if setting.rank != 1 or mean_value is None:
        place = words.ordinal(setting.rank) if setting.rank else "unranked"
        return (
            f"Selected by number: trial {winner.number}, seed {seed} ({by}); its setting is "
            f"{place} of {ranked} by {metric}."
        )
    is_median = setting.median is not None and setting.median["trial"] == winner.number
    what = "the setting's median seed" if is_median else "selected by its seed"
    if mean_value.n == 1:
        what = f"the only complete {further}seed{so_far}"
    unit = winner.measures[metric].unit
    which = f"the best of {ranked}{so_far} by mean {metric},"
    if count == 1:
        alone = " with a complete additional seed" if further else ""
        which = f"the only {noun}{alone}{so_far}, with a mean {metric} of"
    ends = ""
    if mean_value.interval is not None:
        ends = f" (95% interval over seeds: {words.ends(unit, mean_value.interval)})"
    return (
        f"Selected on validation images only: {which} {words.figure(unit, mean_value.value)} over "
        f"{words.count(mean_value.n, f'{further}seed')}{ends}. "
        f"This network is trial {winner.number} (seed {seed}), {what}: {by}."
    )


def over_seeds(winner: Winner) -> str:
    """State the setting's means over its seeds, and what to expect of a new training run."""
    seeds = len(winner.trial.peers) + 1
    setting = winner.setting
    own = [
        f"{split}_{metric.name}"
        for metric in winner.study.spec.metrics
        for split in ("val", "test")
    ]
    parts = [
        f"{name.replace('_acc', ' accuracy').replace('val ', 'validation ')} "
        f"{mean(winner.measures[name].unit, one)}"
        for name, one in winner.over_seeds.items()
        if name in ("val_acc", "test_acc") or name in own
    ]
    count = max((one.n for one in winner.over_seeds.values()), default=0)
    if count < 2:
        only = "This is the only completed seed of its setting"
        if setting is not None and over_additional_seeds(winner.study.spec, setting):
            only = "Its setting has only one completed additional seed"
        return f"{only}, so the variation between seeds is unknown."
    left = f" ({seeds - count} of its {seeds} seeds did not complete)" if count < seeds else ""
    further = ""
    if setting is not None:
        left = f" ({setting.lost})" if setting.lost else ""
        further = "additional " if winner.study.spec.replicates.of == "top" else ""
    over = words.count(count, f"{further}seed")
    said = (
        f"Its setting's means over {over}{left}, with 95% intervals over seeds: {', '.join(parts)}."
    )
    test = winner.over_seeds.get("test_acc")
    if test is None:
        return said
    return f"{said} Expect about {words.percent(test.value)} on these test images from a new seed."


def selection(winner: Winner) -> str:
    """Say how much of the trial's figure is selection bias."""
    bias = winner.selection_bias
    if bias is None:
        return ""
    measure = winner.measures[winner.study.spec.search.metric]
    amount = words.size(measure.unit, bias.value)
    what = "setting" if bias.settings else "trial"
    if winner.setting is not None and over_additional_seeds(winner.study.spec, winner.setting):
        what = "contender"
    among = words.count(bias.settings or bias.trials, what)
    mean = "mean " if bias.settings else ""
    if amount == words.size(measure.unit, 0):
        return (
            f"No selection bias was detected in its {mean}{measure.name}, although it was picked "
            f"as the best of {among}."
        )
    missing = "" if bias.over_seeds else ", without the variation between seeds"
    who = "new runs" if bias.settings else "its setting"
    return (
        f"Being the best of {among} makes its {mean}{measure.name} look about {amount} better than "
        f"it is (selection bias{missing}): expect {who} to be worse by "
        "about that much on average."
    )


def gap_sentence(winner: Winner) -> str:
    """State this trial's validation accuracy minus its test accuracy."""
    if winner.trial.gap is None:
        return "There is no test set, so its accuracy on independent images is unknown."
    own = _in_points(winner.trial.gap)
    setting = winner.setting
    further = setting is not None and over_additional_seeds(winner.study.spec, setting)
    mine = winner.trial.row["trial"]
    others = [row["trial"] for row in setting.seeds] if setting and further else winner.trial.peers
    if winner.setting_gap is None or set(others) <= {mine}:
        return f"Validation minus test accuracy: {own}."
    return (
        f"Validation minus test accuracy: {own} for this network; "
        f"{_in_points(winner.setting_gap)} for its setting, over its "
        f"{'additional seeds' if further else 'seeds'}."
    )


def cause_sentence(winner: Winner) -> str:
    """State why validation and test differ in this study."""
    if winner.gap is None:
        return ""
    if winner.gap.cause == "neither: within sampling error":
        return "The study's overall gap is within sampling error."
    named = named_cause(winner.gap)
    if not named:
        return CAUSES[winner.gap.cause]
    what, _, causes = named.partition(": ")
    return f"{what.capitalize()} of the study's gap: {causes}. {CAUSES[winner.gap.cause]}"


LIMITS = (
    (
        "Intervals of accuracy, sensitivity, specificity and AUC are 95% intervals, over patients "
        "if their IDs are known and over images otherwise. They describe this network's "
        "performance on further images of the same kind, from the same source."
    ),
    (
        "They say nothing about images from another hospital, machine, resolution or population; "
        "measure those first."
    ),
    (
        "The trial and its epoch were selected on validation images, so the validation figures are "
        "optimistic; test images were not used for selection."
    ),
    (
        "Predicted probabilities are not calibrated frequencies; the calibration error says how "
        "far apart the two are here."
    ),
    "It is the result of an experiment, not a medical device: do not use it for diagnosis.",
)
"""Limits of the figures, one sentence each."""


# Its table


def seeds(winner: Winner) -> Table:
    """Return the figures of each seed of the trial's setting, and their means."""
    setting = winner.setting
    assert setting is not None, "called only for studies with replicates"
    metric = winner.study.spec.search.metric
    names = [metric, *(one for one in shown_figures(winner.study.spec) if one != metric)]
    names = [name for name in names if setting.means.get(name) is not None]
    rows = [
        (
            str(row["seed"]),
            str(row["trial"]),
            *(
                words.figure(
                    winner.measures[name].unit,
                    row.value if name == metric else row[figure(winner.study, name)],
                )
                for name in names
            ),
            "this network" if row["trial"] == winner.number else "",
        )
        for row in setting.seeds
    ]
    means = [setting.means[name] for name in names]
    shown = [
        words.figure(winner.measures[one].unit, None if mean is None else mean.value)
        for one, mean in zip(names, means, strict=True)
    ]
    rows.append(("mean", "", *shown, ""))
    head = ("seed", "trial", *(name.replace("_", " ") for name in names), "")
    return Table(head, tuple(rows), left=(len(head) - 1,))


def figures(winner: Winner) -> Table:
    """Return the figures of each split."""
    binary = ("sensitivity", "specificity", "AUC") if winner.rates else ()
    own = [one.name for one in winner.trial.own]
    head = ("split", "images", "loss", "accuracy", *binary, "ECE", "Brier", *own)
    return Table(head, tuple(_split_row(winner, part) for part in winner.splits), left=(0,))


def _split_row(winner: Winner, one: SplitFigures) -> tuple[str, ...]:
    loss = winner.trial.row[figure(winner.study, f"{one.split}_loss")]
    rates = winner.rates.get(one.split)
    sides = (rates.sensitivity, rates.specificity) if rates else (None, None)
    return (
        one.split,
        words.sampled_cell(one.images, one.patients),
        words.figure(NATS, loss),
        words.with_ends(SHARE, one.accuracy),
        *(
            (*(words.with_ends(SHARE, side) for side in sides), words.with_ends(FRACTION, one.auc))
            if winner.rates
            else ()
        ),
        f"{one.calibration_error:.3f}",
        f"{one.brier:.3f}",
        *winner.trial.own_cells(one.split),
    )


def mean(unit: Unit, mean: Mean) -> str:
    """Return a mean with its interval, if it has one: "95.1% (94.7 to 95.5)"."""
    if mean.interval is None:
        return words.figure(unit, mean.value)
    return words.with_ends(unit, mean.interval)


def _in_points(interval: Interval) -> str:
    shown = interval.scaled(100)
    ends = f"{words.signed(shown.low, 1)} to {words.signed(shown.high, 1)}"
    return f"{words.signed(shown.value, 1)} points (95% interval {ends})"
