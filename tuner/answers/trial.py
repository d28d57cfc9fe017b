"""Everything that is known about one trial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import sqlalchemy as sa

from tuner.answers import words
from tuner.answers.table import Table
from tuner.records import FRACTION, NATS, SHARE, Metric, SplitName
from tuner.results import (
    Predicted,
    Results,
    Source,
    TrialRow,
    epoch_columns,
    place,
    right,
    trial_columns,
    trial_rows,
)
from tuner.statistics import Interval, apart, delong, mean_difference, reliability, share_of
from tuner.store import histories
from tuner.store import tables as t
from tuner.store.histories import Event

__all__ = ["OneTrial", "one_trial", "table"]


@dataclass(frozen=True)
class SplitFigures:
    """The trial's figures on one split at the judged epoch, with intervals over its images."""

    split: SplitName
    images: int
    patients: int
    """The number of patients, the sampling unit of the intervals; 0 if the data name none."""
    accuracy: Interval
    auc: Interval | None
    """Only with two classes."""
    calibration_error: float
    brier: float
    own: Mapping[str, Interval] = field(default_factory=dict)
    """The study's own metrics, with intervals over the images."""

    JSON: ClassVar = (
        "images",
        "patients",
        "accuracy",
        "auc",
        "calibration_error",
        "brier",
    )


@dataclass(frozen=True)
class OneTrial:
    """A trial: its row, rank, curves, figures on each split, and events."""

    row: TrialRow
    columns: tuple[str, ...]
    rank: int | None
    """Its rank among the complete trials by the study's metric, from 1."""
    complete: int
    peers: tuple[int, ...]
    """The trials of the same setting under other seeds."""
    epochs: tuple[Mapping[str, Any], ...]
    splits: tuple[SplitFigures, ...]
    gap: Interval | None
    setup: Mapping[str, Any]
    events: tuple[Event, ...]
    prefix: str = ""
    """The prefix of the columns with the figures at the judged epoch."""
    own: tuple[Metric, ...] = ()
    """The study's additional metrics, except the Brier score, which is always shown."""

    JSON: ClassVar = (
        "row=cells",
        "rank",
        "complete_trials=complete",
        "other_seeds=peers",
        "gap_interval=gap",
        "splits=by_split",
        "setup",
        "epochs",
        "events=history",
    )

    @property
    def cells(self) -> dict[str, Any]:
        """All its columns."""
        return {**self.row.cells, **self.row.further}

    def own_cells(self, split: SplitName) -> list[str]:
        """Return the study's own metrics on a split, formatted for tables."""
        cells = []
        for metric in self.own:
            interval = self.by_split[split].own.get(metric.name)
            if interval is not None:
                cells.append(words.with_any_ends(metric.read_in, interval))
            else:
                stored = self.row[f"{self.prefix}{split}_{metric.name}"]
                cells.append(words.figure(metric.read_in, stored))
        return cells

    @property
    def by_split(self) -> dict[SplitName, SplitFigures]:
        """Its figures by split."""
        return {part.split: part for part in self.splits}

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its events, for programs."""
        return [{"at": event.at, "kind": event.kind, "text": event.text} for event in self.events]


def one_trial(results: Results, number: int) -> OneTrial:
    """Read everything about a trial, given its number."""
    rows = trial_rows(results.connection, results.study, [number], further=True)
    if not rows:
        raise histories.no_trial(results.connection, results.study, number)
    (row,) = rows
    standing = place(results.connection, results.study, row)
    splits = _splits(results, number) if row.complete else ()
    return OneTrial(
        row=row,
        columns=trial_columns(results.spec),
        own=tuple(metric for metric in results.spec.metrics if metric.name != "brier"),
        prefix=results.prefix,
        rank=standing.rank,
        complete=standing.complete,
        peers=standing.peers,
        epochs=tuple(
            dict(zip(epoch_columns(results.spec), epoch, strict=True))
            for epoch in results.epochs([number])
        ),
        splits=splits,
        gap=_gap(splits),
        setup=_setup(results, number),
        events=tuple(histories.events(results.connection, results.study, number)),
    )


def _splits(results: Results, number: int) -> tuple[SplitFigures, ...]:
    kept: Sequence[SplitName] = [
        split for split in ("val", "test") if split in results.kept_splits(number)
    ]
    found = [split_figures(results, results.predicted(number, split)) for split in kept]
    return tuple(
        replace(one, own={**one.own, **dict(_resampled(results, number, one.split))})
        for one in found
    )


def _resampled(results: Results, number: int, split: SplitName) -> Iterator[tuple[str, Interval]]:
    """Yield the study's metrics that were computed on resampled images."""
    for metric in results.spec.metrics:
        measure = results.measures[f"{split}_{metric.name}"]
        if measure.resampled:
            for _, _, values in Source(results, measure).values([number]):
                yield metric.name, mean_difference(values, np.zeros_like(values), None)


def split_figures(results: Results, predicted: Predicted) -> SplitFigures:
    """Return the figures of predictions: accuracy, AUC, calibration and the study's own metrics."""
    logs, labels = predicted.log_probabilities, predicted.labels
    hits, clusters = right(logs, labels) > 0, predicted.clusters
    calibrated = reliability(np.exp(logs.astype(np.float64)), labels)
    odds = logs[:, 1].astype(np.float64) - logs[:, 0] if logs.shape[1] == 2 else None
    return SplitFigures(
        split=predicted.split,
        images=len(labels),
        patients=0 if clusters is None else clusters.patients,
        accuracy=share_of(hits, clusters),
        auc=delong(odds, labels == 1, clusters) if odds is not None else None,
        calibration_error=calibrated.error,
        brier=calibrated.brier,
        own=dict(_own(results, predicted)),
    )


def _own(results: Results, predicted: Predicted) -> Iterator[tuple[str, Interval]]:
    """Yield the study's metrics that are computed image by image from predictions."""
    for metric in results.spec.metrics:
        per_image = results.measures[f"{predicted.split}_{metric.name}"].per_image
        values = per_image and per_image(predicted.log_probabilities, predicted.labels)
        if values is not None:
            nothing = np.zeros_like(values)
            yield metric.name, mean_difference(values, nothing, predicted.clusters)


def _gap(splits: Sequence[SplitFigures]) -> Interval | None:
    by_name = {part.split: part for part in splits}
    if set(by_name) != {"val", "test"}:
        return None
    return apart(by_name["val"].accuracy, by_name["test"].accuracy)


def _setup(results: Results, number: int) -> Mapping[str, Any]:
    query = (
        sa.select(t.outcome.c.setup)
        .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id))
        .where(t.trial.c.study_id == results.study.study_id, t.trial.c.number == number)
    )
    return results.connection.execute(query).scalar() or {}


def table(trial: OneTrial) -> Table:
    """Return the figures of each split, and the gap."""
    rows: list[tuple[str, ...]] = [
        (
            part.split,
            words.sampled_cell(part.images, part.patients),
            words.figure(NATS, trial.row[f"{part.split}_loss"]),
            words.with_ends(SHARE, part.accuracy),
            words.with_ends(FRACTION, part.auc),
            f"{part.calibration_error:.3f}",
            f"{part.brier:.3f}",
            *trial.own_cells(part.split),
        )
        for part in trial.splits
    ]
    if trial.gap is not None:
        own = ("" for _ in trial.own)
        rows.append(("gap", "", "", words.with_ends(SHARE.difference, trial.gap), "", "", "", *own))
    names = [metric.name for metric in trial.own]
    head = ("split", "images", "loss", "accuracy", "AUC", "ECE", "Brier", *names)
    return Table(head, tuple(rows), left=(0,))
