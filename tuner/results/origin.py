"""Where a study's results come from: data, devices, workers, and how its trials ended."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.results.results import Results
from tuner.results.rows import TrialRow
from tuner.store import tables as t
from tuner.store.studies import Study


@dataclass(frozen=True)
class DataSet:
    """One data set that trials of a study saw."""

    fingerprint: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    trials: int


@dataclass(frozen=True)
class Setup:
    """What trials were trained on and with, as their trainers told it."""

    device: str
    notes: Mapping[str, str]
    trials: int


@dataclass(frozen=True)
class Origin:
    """Where the results of a study come from."""

    data: tuple[DataSet, ...]
    setups: tuple[Setup, ...]
    workers: int
    hosts: int
    worker_hours: float


def origin(results: Results) -> Origin:
    """Read where a study's results come from."""
    connection, study = results.connection, results.study
    workers = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.count(sa.distinct(t.worker.c.host)),
            sa.func.coalesce(sa.func.sum(t.worker.c.active_seconds), 0.0),
        ).where(t.worker.c.study_id == study.study_id)
    ).one()
    return Origin(
        data=_data(connection, study),
        setups=_setups(connection, study),
        workers=workers[0],
        hosts=workers[1],
        worker_hours=workers[2] / 3600,
    )


def _data(connection: sa.Connection, study: Study) -> tuple[DataSet, ...]:
    fingerprint = t.outcome.c.setup["data_fingerprint"].astext
    query = (
        sa.select(t.dataset, sa.func.count().label("trials"))
        .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id).join(
            t.dataset, t.dataset.c.fingerprint == fingerprint
        ))
        .where(t.trial.c.study_id == study.study_id)
        .group_by(t.dataset.c.fingerprint)
        .order_by(sa.func.min(t.trial.c.number))
    )  # fmt: skip
    return tuple(
        DataSet(row.fingerprint, tuple(row.classes), dict(row.sizes), row.trials)
        for row in connection.execute(query)
    )


def _setups(connection: sa.Connection, study: Study) -> tuple[Setup, ...]:
    device, notes = t.outcome.c.setup["device"].astext, t.outcome.c.setup["notes"]
    query = (
        sa.select(device.label("device"), notes.label("notes"), sa.func.count().label("trials"))
        .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id))
        .where(t.trial.c.study_id == study.study_id, device.is_not(None))
        .group_by(device, notes)
        .order_by(sa.func.count().desc())
    )
    return tuple(
        Setup(row.device, {key: str(value) for key, value in (row.notes or {}).items()}, row.trials)
        for row in connection.execute(query)
    )


@dataclass(frozen=True)
class Ending:
    """Why some trials did not run to their end."""

    state: str
    reason: str
    trials: tuple[int, ...]
    epochs: tuple[int, int]
    """The fewest and the most that they trained."""


def endings(results: Results) -> list[Ending]:
    """Return why trials were pruned, diverged or failed, the most frequent reason first."""
    alike: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
    for row in results.rows:
        if row.lost:
            diverged = row["state"] == "DIVERGED"
            why = "a loss or the metric was not finite" if diverged else _why(row["reason"])
            alike[row["state"], why].append(row)
    endings = [
        Ending(
            state,
            reason,
            tuple(row["trial"] for row in of),
            (min(row["epochs_run"] for row in of), max(row["epochs_run"] for row in of)),
        )
        for (state, reason), of in alike.items()
    ]
    return sorted(endings, key=lambda ending: -len(ending.trials))


def _why(reason: str | None) -> str:
    """Return a reason's first line without the epoch, which differs from trial to trial."""
    first = next(iter((reason or "").strip().splitlines()), "")
    return re.sub(r" at epoch \d+$", "", first)
