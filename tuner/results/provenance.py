"""Where a study's results come from, how its trials ended, and what reusing epochs saved."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.records import Value
from tuner.results.results import Results
from tuner.results.rows import TrialRow
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.studies import Study
from tuner.train.checkpoints.keys import shared_epochs_of_jobs


@dataclass(frozen=True)
class DataSet:
    """A data set that trials of a study used."""

    fingerprint: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    trials: int


@dataclass(frozen=True)
class ComputationSetup:
    """Device and settings of the computation, as the trainers reported them."""

    device: str
    notes: Mapping[str, str]
    trials: int


@dataclass(frozen=True)
class Origin:
    """Where the results of a study come from."""

    data: tuple[DataSet, ...]
    setups: tuple[ComputationSetup, ...]
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


def _setups(connection: sa.Connection, study: Study) -> tuple[ComputationSetup, ...]:
    device, notes = t.outcome.c.setup["device"].astext, t.outcome.c.setup["notes"]
    query = (
        sa.select(device.label("device"), notes.label("notes"), sa.func.count().label("trials"))
        .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id))
        .where(t.trial.c.study_id == study.study_id, device.is_not(None))
        .group_by(device, notes)
        .order_by(sa.func.count().desc())
    )
    return tuple(
        ComputationSetup(
            row.device, {key: str(value) for key, value in (row.notes or {}).items()}, row.trials
        )
        for row in connection.execute(query)
    )


@dataclass(frozen=True)
class TrialOrigin:
    """Where one trial comes from: its data, and the machines that trained it."""

    data: Mapping[str, Value]
    """The keys of [data] that it was trained on."""
    fingerprint: str
    """Of the data, as computed by the trainer; "" before that."""
    sizes: Mapping[str, int]
    """Images of each split."""
    hosts: tuple[str, ...]
    """The machines that worked on it."""


def trial_origin(results: Results, row: TrialRow) -> TrialOrigin:
    """Read where a trial comes from."""
    connection, study = results.connection, results.study
    fingerprint = t.outcome.c.setup["data_fingerprint"].astext
    found = connection.execute(
        sa.select(
            t.trial.c.trial_id, fingerprint.label("fingerprint"), t.dataset.c.sizes, t.worker.c.host
        )
        .select_from(
            t.trial.join(t.lease)
            .outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
            .outerjoin(t.dataset, t.dataset.c.fingerprint == fingerprint)
            .outerjoin(t.worker, t.worker.c.worker_id == t.lease.c.worker_id)
        )
        .where(t.trial.c.study_id == study.study_id, t.trial.c.number == row["trial"])
    ).one()
    # Workers of earlier attempts are named with their output, and in events.
    earlier = sa.union(
        sa.select(t.output.c.worker_id).where(t.output.c.trial_id == found.trial_id),
        sa.select(t.event.c.worker_id).where(t.event.c.trial_id == found.trial_id),
    ).subquery()
    others = connection.execute(
        sa.select(t.worker.c.host)
        .where(t.worker.c.worker_id.in_(sa.select(earlier.c.worker_id)))
        .distinct()
    ).scalars()
    chosen = {name: row[name] for name in results.spec.varied if row[name] is not None}
    return TrialOrigin(
        data=results.spec.job(chosen, row["seed"]).data,
        fingerprint=found.fingerprint or "",
        sizes=found.sizes or {},
        hosts=tuple(sorted({*others, *([found.host] if found.host else [])})),
    )


@dataclass(frozen=True)
class EndingReason:
    """A reason why trials did not run to their end."""

    state: str
    reason: str
    trials: tuple[int, ...]
    epochs: tuple[int, int]
    """The fewest and the most epochs that they trained."""


def endings(results: Results) -> list[EndingReason]:
    """Return why trials were pruned, paused, diverged or failed, the most frequent reason first."""
    alike: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
    for row in results.rows:
        if row.lost:
            diverged = row["state"] == "DIVERGED"
            why = "a loss or the metric was not finite" if diverged else _why(row["reason"])
            why = "others were more promising" if row["state"] == "PAUSED" else why
            alike[row["state"], why].append(row)
    endings = [
        EndingReason(
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


# What reusing epochs saved


COMPARED = 1_000
"""If a seed has more trials, redundant epochs are not counted: every pair is compared."""


@dataclass(frozen=True)
class Reuse:
    """Epochs and seconds of a study, with reuse and as they would have been without."""

    epochs: int
    reused: int
    seconds: float
    seconds_without: float
    excess: int | None
    """Epochs trained redundantly, because another trial has them too; None if not counted."""


def reuse(results: Results) -> Reuse:
    """Sum up the epochs that a study's trials trained and those that they reused."""
    rows = results.rows
    return Reuse(
        epochs=sum(row["epochs_run"] for row in rows),
        reused=sum(row["epochs_reused"] for row in rows),
        seconds=sum(row["seconds"] for row in rows),
        seconds_without=sum(row.seconds_alone for row in rows),
        excess=_excess(rows, results.spec),
    )


def _excess(rows: Sequence[TrialRow], spec: Spec) -> int | None:
    by_seed: dict[int, list[TrialRow]] = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
    if any(len(group) > COMPARED for group in by_seed.values()):
        return None
    return sum(_excess_of_seed(group, spec) for group in by_seed.values())


def _excess_of_seed(rows: Sequence[TrialRow], spec: Spec) -> int:
    """Count the epochs that a trial trained although an earlier trial has the same ones."""
    chosen = [{n: row[n] for n in spec.varied if row[n] is not None} for row in rows]
    jobs = [spec.job(values, row["seed"]) for values, row in zip(chosen, rows, strict=True)]
    excess = 0
    for place, row in enumerate(rows):
        shared = max(
            (
                min(shared_epochs_of_jobs(jobs[place], jobs[earlier]), rows[earlier]["epochs_run"])
                for earlier in range(place)
            ),
            default=0,
        )
        excess += max(0, min(shared, row["epochs_run"]) - row["epochs_reused"])
    return excess
