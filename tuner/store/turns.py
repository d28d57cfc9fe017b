"""Which study comes next for a worker that works on any.

    the highest priority ── then the person who has used fewest seconds ── then the oldest study

People share by the seconds that their workers trained within the last days: those who have used
less are served until they have caught up. A worker leaves a study only between two trials: at once
for a higher priority, and for another person's study once that person is clearly behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuner.store import studies
from tuner.store import tables as t
from tuner.store.studies import Study

SHARE_DAYS = 7
"""A person's seconds count for this long."""
MARGIN_SECONDS = 600.0
"""How far another person must be behind before a worker changes its study, because each change
starts a trainer and loads data."""
SETTLED_SECONDS = 5.0
IN_VAIN_SECONDS = 60.0
"""After a worker got no trial, all workers treat the study as having none for this long. Not
longer: that worker may have left for other reasons, before it asked for a trial."""


@dataclass(frozen=True)
class QueuedStudy:
    """An open study in the queue."""

    study: Study
    priority: int
    owner: str
    """Who launched it, without the machine: people are the same on every machine."""
    used_seconds: float
    """How long all of that person's workers trained recently."""
    has_work: bool
    """Whether a trial waits for a worker, or is still to be created as far as is known.

    A trial may be missing without being available yet: a race waits for its look, a setting for a
    peer's epochs, a study for its last trials. A worker finds that out by asking without success,
    and its finding holds until an event happens in the study."""
    workers: int
    """How many workers are on it."""
    idle_workers: int = 0
    """How many of them have no trial; the next available trials are theirs."""

    @property
    def rank(self) -> tuple[int, float, datetime, int]:
        """The sort key of the queue."""
        return (-self.priority, self.used_seconds, self.study.created, self.study.study_id)


def in_order(turns: Sequence[QueuedStudy]) -> list[QueuedStudy]:
    """Return the queue in order, next study first."""
    return sorted(turns, key=lambda turn: turn.rank)


def is_relieved(current: QueuedStudy, others: Sequence[QueuedStudy]) -> bool:
    """Return whether a worker should leave its study between two trials for one of the others."""
    return any(
        other.priority > current.priority
        or (
            other.priority == current.priority
            and other.owner != current.owner
            and other.used_seconds + MARGIN_SECONDS < current.used_seconds
        )
        for other in others
        if other.has_work and not other.idle_workers
    )


def read(connection: sa.Connection) -> list[QueuedStudy]:
    """Return every open study that is not archived, in the order of the queue."""
    open_studies = [study for study in studies.in_state(connection, "open") if not study.archived]
    used, lines = _used(connection), _lines(connection)
    turns = []
    for study in open_studies:
        line = lines.get(study.study_id, {})
        owner = owner_of(study)
        turns.append(
            QueuedStudy(
                study,
                priority=int(line.get("priority", 0)),
                owner=owner,
                used_seconds=used.get(owner, 0.0),
                has_work=_has_work(study, line),
                workers=int(line.get("workers", 0)),
                idle_workers=int(line.get("idle", 0)),
            )
        )
    return in_order(turns)


def _has_work(study: Study, line: Mapping[str, Any]) -> bool:
    # Only a claim can tell whether a paused trial is resumed, and whether a budget in epochs has
    # any left for one that was given back.
    sure, unsure = int(line.get("expired", 0)), int(line.get("paused", 0))
    if study.spec.epoch_limit is None:
        sure += int(line.get("released", 0))
    else:
        unsure += int(line.get("released", 0))
    missing = int(line.get("trials", 0)) < study.spec.total_trials
    return bool(sure) or ((bool(unsure) or missing) and not line.get("in_vain", False))


def owner_of(study: Study) -> str:
    """Return who launched a study; empty for studies of an older tuner."""
    return str(study.provenance.get("who", "")).partition("@")[0]


def set_priority(connection: sa.Connection, study: Study, priority: int, who: str) -> None:
    """Set a study's priority, and record that in its history."""
    mine = t.study.c.study_id == study.study_id
    connection.execute(sa.update(t.study).where(mine).values(priority=priority))
    studies.add_event(connection, study, "priority", str(priority), who)


def _used(connection: sa.Connection) -> dict[str, float]:
    who = sa.func.split_part(sa.func.coalesce(t.study.c.provenance["who"].astext, ""), "@", 1)
    recent = t.worker.c.seen > sa.func.clock_timestamp() - sa.text(f"interval '{SHARE_DAYS} days'")
    rows = connection.execute(
        sa.select(who.label("who"), sa.func.sum(t.worker.c.active_seconds).label("seconds"))
        .select_from(t.worker.join(t.study))
        .where(recent)
        .group_by(who)
    )
    return {row.who: float(row.seconds) for row in rows}


def _lines(connection: sa.Connection) -> dict[int, Mapping[str, Any]]:
    """Return each open study's priority, and its counts of trials, waiting trials and workers.

    Also whether a worker that got no trial has just left it, with no event since: whatever makes a
    trial available (another one ends or is given back, a decision) adds an event, except for leases
    that expire, which are counted separately.
    """

    def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        mine = table.c.study_id == t.study.c.study_id
        return sa.select(sa.func.count()).select_from(table).where(mine, *where).scalar_subquery()

    expired = (t.lease.c.state == "held") & (t.lease.c.expires < t.NOW)
    alive = t.worker.c.ended.is_(None) & (t.worker.c.seen > _seconds_ago(60.0))
    at_work = sa.exists().where(
        t.lease.c.study_id == t.worker.c.study_id,
        t.lease.c.worker_id == t.worker.c.worker_id,
        t.lease.c.state == "held",
    )
    # A worker that has just joined is about to ask for a trial.
    settled = t.worker.c.started < _seconds_ago(SETTLED_SECONDS)
    last_event = (
        sa.select(t.event.c.happened)
        .where(t.event.c.study_id == t.study.c.study_id)
        # These events are of trials in training, and make none available.
        .where(t.event.c.kind.not_in(["checkpoint", "resumed"]))
        .order_by(t.event.c.event_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    in_vain = sa.exists().where(
        t.worker.c.study_id == t.study.c.study_id,
        t.worker.c.active_seconds == 0.0,
        # A worker that never asked, because its machine lacks the objective, proves nothing.
        sa.cast(t.worker.c.tally["claim_seconds"].astext, sa.Double) > 0.0,
        t.worker.c.ended > _seconds_ago(IN_VAIN_SECONDS),
        t.worker.c.ended > last_event,
    )
    rows = connection.execute(
        sa.select(
            t.study.c.study_id,
            t.study.c.priority,
            count(t.trial).label("trials"),
            count(t.lease, expired).label("expired"),
            count(t.lease, t.lease.c.state == "released").label("released"),
            count(t.lease, t.lease.c.state == "paused").label("paused"),
            count(t.worker, alive).label("workers"),
            count(t.worker, alive, settled, ~at_work).label("idle"),
            in_vain.label("in_vain"),
        ).where(t.study.c.state == "open")
    )
    return {row.study_id: dict(row._mapping) for row in rows}


def _seconds_ago(seconds: float) -> sa.ColumnElement[datetime]:
    """Return a time by the server's clock, because a worker's may be an hour off."""
    return sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
