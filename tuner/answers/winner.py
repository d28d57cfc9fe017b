"""The trial that a study ends with: how it was chosen, what it does, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from tuner.answers.gap import Gap, bias_of_best
from tuner.answers.gap import gap as measure_gap
from tuner.answers.one_trial import OneTrial, OnSplit, one_trial
from tuner.answers.sheets.export import json_cell
from tuner.errors import UserError
from tuner.records import SplitName
from tuner.results.measures import MEASURES, right
from tuner.results.predictions import Predicted
from tuner.results.results import Results
from tuner.statistics.means import Mean, mean_over_seeds
from tuner.statistics.proportions import Right, share_of
from tuner.statistics.selection_bias import SelectionBias
from tuner.statistics.variance import Interval
from tuner.store import tables as t
from tuner.store.studies import Study


@dataclass(frozen=True)
class Rates:
    """What share of each of two classes is taken for what it is."""

    sensitivity: Interval
    """Of the images of class 1."""
    specificity: Interval
    """Of the images of class 0."""
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
    rates: Mapping[SplitName, Rates]
    """Of two classes only."""
    over_seeds: Mapping[str, Mean]
    """Means of its configuration over the seeds that completed."""
    setting_gap: Interval | None
    """Of its configuration, over its seeds and the images."""
    gap: Gap | None
    """Of the whole study; None without a test set."""
    luck: SelectionBias | None
    """Of the best trial; None for any other, and where it cannot be told."""

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return int(self.trial.row["trial"])

    @property
    def epoch(self) -> int:
        """The epoch whose weights are meant."""
        row, at = self.trial.row, self.study.spec.search.at
        return int(row["best_epoch"] if at == "best" else row["epochs_run"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """What varied in the study, with this trial's values."""
        return {name: self.trial.row[name] for name in self.study.spec.varied}

    @property
    def fixed(self) -> Mapping[str, Any]:
        """What all trials of the study have in common."""
        return {name: self.trial.row[name] for name in self.study.spec.fixed_names}

    @property
    def splits(self) -> tuple[OnSplit, ...]:
        """What it does on validation, and on test where there is one."""
        return self.trial.splits


def winner(results: Results, number: int | None = None) -> Winner:
    """Read the study's best complete trial by its metric, or the one of that number."""
    study = results.study
    chosen = results.best if number is None else number
    trial = one_trial(results, chosen)
    if not trial.row.complete:
        raise UserError(
            f"Trial {chosen} of {study.title} is {trial.row['state']}, and predictions are kept of "
            "complete trials only; choose another with --trial."
        )
    measured = _gap(results)
    leaders = results.ranked
    classes, sizes = _data(results, trial)
    luck = bias_of_best(results)
    return Winner(
        study=study,
        trial=trial,
        classes=classes,
        sizes=sizes,
        rates=_rates(results, trial) if len(classes) == 2 else {},
        over_seeds=_over_seeds(results, trial),
        setting_gap=_setting_gap(measured, chosen),
        gap=measured,
        luck=luck if leaders and leaders[0]["trial"] == chosen else None,
    )


def described(winner: Winner) -> dict[str, Any]:
    """Return everything for programs; fractions stay fractions."""
    row, spec, luck = winner.trial.row, winner.study.spec, winner.luck
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
        "splits": {one.split: _described_split(winner, one) for one in winner.splits},
        "gap": _limits(winner.trial.gap),
        "gap_of_setting": _limits(winner.setting_gap),
        "over_seeds": {
            name: {"mean": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
            for name, mean in winner.over_seeds.items()
        },
        "other_seeds": list(winner.trial.peers),
        "optimism": None
        if luck is None
        else {"value": luck.value, "over_seeds": luck.over_seeds, "trials": luck.trials},
        "study_gap": _limits(winner.gap.gap) if winner.gap else None,
        "cause": winner.gap.cause if winner.gap else None,
        "row": {name: json_cell(cell) for name, cell in row.cells.items()},
    }


def _described_split(winner: Winner, one: OnSplit) -> dict[str, Any]:
    rates = winner.rates.get(one.split)
    return {
        "images": one.images,
        "patients": one.patients,
        "loss": winner.trial.row[figure(winner.study, f"{one.split}_loss")],
        "accuracy": _limits(one.accuracy),
        "auc": _limits(one.auc),
        "sensitivity": _limits(rates.sensitivity) if rates else None,
        "specificity": _limits(rates.specificity) if rates else None,
        "calibration_error": one.calibration_error,
        "brier": one.brier,
    }


def figure(study: Study, name: str) -> str:
    """Return the column that has a figure at the epoch that the study is judged at."""
    return name if study.spec.search.at == "best" else f"last_{name}"


def _limits(interval: Interval | None) -> dict[str, float] | None:
    return (
        None
        if interval is None
        else {"value": interval.value, "low": interval.low, "high": interval.high}
    )


def _gap(results: Results) -> Gap | None:
    column = results.prefix + "test_acc"
    tested = any(row.complete and row[column] is not None for row in results.rows)
    return measure_gap(results) if tested else None


def _setting_gap(measured: Gap | None, number: int) -> Interval | None:
    settings = measured.settings if measured else ()
    return next((setting.gap for setting in settings if number in setting.trials), None)


def _data(results: Results, trial: OneTrial) -> tuple[tuple[str, ...], Mapping[str, int]]:
    query = sa.select(t.dataset.c.classes, t.dataset.c.sizes).where(
        t.dataset.c.fingerprint == trial.setup["data_fingerprint"]
    )
    row = results.connection.execute(query).one()
    return tuple(row.classes), {name: int(row.sizes[name]) for name in sorted(row.sizes)}


def _rates(results: Results, trial: OneTrial) -> dict[SplitName, Rates]:
    found: dict[SplitName, Rates] = {}
    for one in trial.splits:
        read = results.predicted(trial.row["trial"], one.split)
        hits, sick = right(read.log_probabilities, read.labels) > 0, read.labels == 1
        positives, negatives = int(sick.sum()), int((~sick).sum())
        if positives and negatives:
            found[one.split] = Rates(
                sensitivity=_share(read, hits, sick),
                specificity=_share(read, hits, ~sick),
                positives=positives,
                negatives=negatives,
            )
    return found


def _share(predicted: Predicted, hits: Right, mine: Right) -> Interval:
    """Return the share of some images that is right."""
    clusters = None if predicted.clusters is None else predicted.clusters.take(mine)
    return share_of(hits[mine], clusters)


def _over_seeds(results: Results, trial: OneTrial) -> dict[str, Mean]:
    """Return the configuration's means over its complete seeds, of the metric and accuracies."""
    numbers = {trial.row["trial"], *trial.peers}
    group = [row for row in results.rows if row["trial"] in numbers and row.complete]
    names = ("val_loss", "val_acc", "test_loss", "test_acc", "gap")
    columns = {name: [row[results.prefix + name] for row in group] for name in names}
    if results.spec.search.metric not in columns:
        columns = {results.spec.search.metric: [row.value for row in group], **columns}
    known = {
        name: [np.float64(value).item() for value in values if value is not None]
        for name, values in columns.items()
    }
    means = {name: mean_over_seeds(values) for name, values in known.items()}
    return {
        name: _possible(name, mean)
        for name, mean in means.items()
        if mean is not None and name in MEASURES
    }


def _possible(name: str, mean: Mean) -> Mean:
    """Return a mean whose limits are values that the figure can have: few seeds say little."""
    if mean.low is None or mean.high is None or MEASURES[name].unit != "points":
        return mean
    least = -1.0 if name == "gap" else 0.0
    return replace(mean, low=max(least, mean.low), high=min(1.0, mean.high))
