"""One trial's predictions for every image of a split, with the true classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.errors import UserError
from tuner.records import Moment, SplitName
from tuner.statistics import Clusters
from tuner.store import tables as t
from tuner.store import uploads
from tuner.store.histories import no_trial
from tuner.store.studies import Study


@dataclass(frozen=True)
class Predicted:
    """One trial's log-probabilities for a split at its best or last epoch."""

    trial: int
    split: SplitName
    at: Moment
    epoch: int
    """The epoch of the weights."""
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    log_probabilities: NDArray[np.float32]
    """(images, classes), in the order of `ids`."""
    patients: tuple[str, ...] | None = ()
    """By image; () if the data name none, None if that was not stored."""

    JSON: ClassVar = (
        "trial",
        "split",
        "at",
        "epoch",
    )

    @property
    def clusters(self) -> Clusters | None:
        """The images of each patient; None if the data name none."""
        return Clusters.of(self.patients) if self.patients else None


def kept_splits(connection: sa.Connection, study: Study, number: int) -> tuple[str, ...]:
    """Return the splits for which a trial's predictions are stored; none before it completes."""
    rows = connection.execute(
        sa.select(t.prediction.c.split)
        .select_from(t.prediction.join(t.trial))
        .where(t.trial.c.study_id == study.study_id, t.trial.c.number == number)
        .distinct()
        .order_by(t.prediction.c.split)
    )
    return tuple(rows.scalars())


def predicted(
    connection: sa.Connection, study: Study, number: int, split: SplitName, at: Moment
) -> Predicted:
    """Return a trial's stored predictions; a UserError says why there are none."""
    row = connection.execute(_query(study, number, split, at)).one_or_none()
    if row is None:
        raise _missing(connection, study, number, split)
    labels = np.frombuffer(row.labels, dtype="<i8").astype(np.int64)
    logs = uploads.array(connection, row, len(labels))
    return Predicted(
        trial=number,
        split=split,
        at=at,
        epoch=row.best_epoch if at == "best" else row.last_epoch,
        classes=tuple(row.names),
        ids=tuple(row.ids),
        labels=labels,
        log_probabilities=logs,
        patients=None if row.patients is None else tuple(row.patients),
    )


def _query(study: Study, number: int, split: SplitName, at: Moment) -> sa.Select[Any]:
    # Labels belong to the data that the trial used: trials of a study may have different data.
    fingerprint = t.outcome.c.setup["data_fingerprint"].astext
    return (
        sa.select(
            *t.prediction.c,
            t.label.c.labels,
            t.label.c.ids,
            t.label.c.patients,
            t.dataset.c.classes.label("names"),
            t.outcome.c.best_epoch,
            t.outcome.c.last_epoch,
        )
        .select_from(
            t.prediction.join(t.trial)
            .join(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
            .join(t.dataset, t.dataset.c.fingerprint == fingerprint)
            .join(
                t.label,
                (t.label.c.fingerprint == t.dataset.c.fingerprint)
                & (t.label.c.split == t.prediction.c.split),
            )
        )
        .where(
            t.trial.c.study_id == study.study_id,
            t.trial.c.number == number,
            t.prediction.c.split == split,
            t.prediction.c.moment == at,
        )
    )


def _missing(connection: sa.Connection, study: Study, number: int, split: str) -> UserError:
    state = connection.execute(
        sa.select(t.trial_state)
        .select_from(
            t.trial.join(t.lease).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(t.trial.c.study_id == study.study_id, t.trial.c.number == number)
    ).scalar_one_or_none()
    if state is None:
        return no_trial(connection, study, number)
    if state != "COMPLETE":
        return UserError(
            f"Trial {number} of {study.title} is {state}, and predictions are stored only for "
            "complete trials; choose another with --trial."
        )
    return UserError(
        f"Trial {number} of {study.title} has no {split} predictions: its data have no "
        f"{split} split; use --split val."
    )


def kept_predictions(
    connection: sa.Connection, study: Study, numbers: Sequence[int]
) -> list[tuple[int, SplitName, Moment]]:
    """Return which predictions of these trials are stored, in the order given."""
    query = (
        sa.select(t.trial.c.number, t.prediction.c.split, t.prediction.c.moment)
        .select_from(t.prediction.join(t.trial))
        .where(
            t.trial.c.study_id == study.study_id,
            t.trial.c.number == sa.any_(sa.cast(list(numbers), sa.ARRAY(sa.Integer))),
        )
        .order_by(t.prediction.c.split.desc(), t.prediction.c.moment)
    )
    place = {number: at for at, number in enumerate(numbers)}
    predictions = [(row.number, row.split, row.moment) for row in connection.execute(query)]
    return sorted(predictions, key=lambda prediction: place[prediction[0]])
