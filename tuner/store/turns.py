"""Whose turn it is: which study a worker takes next that works on any.

    the highest priority ── then the person who has used fewest seconds ── then the oldest study

People share by the seconds that their workers trained within the last days, so whoever has used
little is served until he has caught up. A worker leaves a study only between two trials: for a
higher priority at once, for another person once he is clearly behind.
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
"""How far back a person's seconds count."""
MARGIN_SECONDS = 600.0
"""How far another person must be behind before a worker changes its study: a change costs a start
of the trainer and the loading of data."""
SETTLED_SECONDS = 5.0
IN_VAIN_SECONDS = 60.0
"""How long a visit in vain tells everybody that a study has nothing to hand out. Not longer: the
visitor may have left for a reason of its own, before it asked for a trial."""


@dataclass(frozen=True)
class QueuedStudy:
    """An open study in the queue."""

    study: Study
    priority: int
    owner: str
    """Who launched it, without a machine: a person is one person on every machine."""
    used_seconds: float
    """How long all of that person's workers trained lately."""
    has_work: bool
    """Whether a trial waits for a worker, or is still to be created as far as anybody knows.

    Trials that are missing may not be handed out yet: a race awaits its look, a setting the epochs
    of a peer, a study the end of others. Who finds that out is a worker that asks in vain, and
    what it found is true until something happens in the study."""
    workers: int
    """How many workers are at it."""
    idle_workers: int = 0
    """How many of them have no trial: whatever is handed out next is theirs."""

    @property
    def rank(self) -> tuple[int, float, datetime, int]:
        """What the queue is ordered by, the first turn first."""
        return (-self.priority, self.used_seconds, self.study.created, self.study.study_id)


def in_order(turns: Sequence[QueuedStudy]) -> list[QueuedStudy]:
    """Return the queue with the first turn first."""
    return sorted(turns, key=lambda turn: turn.rank)


def is_relieved(current: QueuedStudy, others: Sequence[QueuedStudy]) -> bool:
    """Return whether a worker on one study leaves it between two trials, for one of the others."""
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
    # Whether a paused trial goes on, only a claim can say; and whether a budget in epochs has some
    # left for one that was given back.
    sure, unsure = int(line.get("expired", 0)), int(line.get("paused", 0))
    if study.spec.epoch_limit is None:
        sure += int(line.get("released", 0))
    else:
        unsure += int(line.get("released", 0))
    missing = int(line.get("trials", 0)) < study.spec.total_trials
    return bool(sure) or ((bool(unsure) or missing) and not line.get("in_vain", False))


def owner_of(study: Study) -> str:
    """Return who launched a study; empty for one of an older tuner."""
    return str(study.provenance.get("who", "")).partition("@")[0]


def set_priority(connection: sa.Connection, study: Study, priority: int, who: str) -> None:
    """Give a study its priority, and note that in its history."""
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
    """Return of each open study its priority, trials, those that wait, workers, the idle of them.

    And whether a worker has just left it that was given no trial, with no event in it since:
    whatever makes a trial available (one ends, is given back, is decided on) leaves an event, but
    for leases that expire, which are counted by themselves.
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
    # Those that have just come are about to ask for a trial.
    settled = t.worker.c.started < _seconds_ago(SETTLED_SECONDS)
    last_event = (
        sa.select(t.event.c.happened)
        .where(t.event.c.study_id == t.study.c.study_id)
        # These come from trials that somebody trains; they make none available.
        .where(t.event.c.kind.not_in(["checkpoint", "resumed"]))
        .order_by(t.event.c.event_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    in_vain = sa.exists().where(
        t.worker.c.study_id == t.study.c.study_id,
        t.worker.c.active_seconds == 0.0,
        # One that never asked, because its machine has no objective or other code, says nothing.
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
    """Return a moment of the server's clock: a worker's may be an hour off."""
    return sa.func.clock_timestamp() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
