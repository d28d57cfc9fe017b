"""Marks that differ once something of a study has changed, read of many studies in one statement.

Whoever keeps answers reads a few numbers here to know which of them are out of date, before
anything dear is read again. A study in training changes with every epoch, and its answers only
when a trial ends.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.store import tables as t

PASSING = ("created", "checkpoint", "resumed")
"""Kinds of events that change no answer: the trial has merely begun, or moved on."""
LATEST = 256
"""How many events of a study are looked at, of all kinds: enough to see one that is committed after
events with larger numbers."""


@dataclass(frozen=True)
class StudyMark:
    """What a study looked like at a moment. Each part differs if what it is about has changed."""

    settled: tuple[Any, ...]
    """What answers rest on: the study itself, and trials that end, pause or are opened again."""
    working: tuple[Any, ...]
    """Which trials have begun, who works on what, and what is queued."""
    moving: tuple[Any, ...]
    """How far the trials under way are, and what they printed."""


def read_marks(connection: sa.Connection, study_ids: Collection[int]) -> dict[int, StudyMark]:
    """Return the marks of those studies that exist, by their numbers."""
    study = t.study.c
    # A version of the row: PostgreSQL writes another transaction's number to each new one.
    row = sa.literal_column("study.xmin::text", sa.Text())
    # Whatever becomes of a trial has an event, in its transaction. Trials that end at the same time
    # do not wait for each other, so their events may be committed in another order than they are
    # numbered: the largest number alone would miss the one that comes late. The sum also differs
    # when one of these events is no longer among the latest; then answers are computed once more.
    latest = (
        sa.select(t.event.c.event_id, t.event.c.kind)
        .where(t.event.c.study_id == study.study_id)
        .order_by(t.event.c.event_id.desc())
        .limit(LATEST)
        .correlate(t.study)
        .subquery()
    )
    settled = (
        row,
        sa.select(sa.func.sum(latest.c.event_id))
        .where(latest.c.kind.not_in(PASSING))
        .scalar_subquery(),
        _one(sa.func.max(t.check.c.check_id), t.check.c.study_id),
    )
    open_lease = t.lease.c.state != "ended"
    working = (
        *(
            _one(number, t.lease.c.study_id, open_lease)
            for number in (
                sa.func.count(),
                sa.func.sum(t.lease.c.token),
                sa.func.count().filter(t.lease.c.state == "held"),
            )
        ),
        _one(sa.func.max(t.worker.c.worker_id), t.worker.c.study_id),
        _one(sa.func.count(t.worker.c.ended), t.worker.c.study_id),
        _one(sa.func.count(), t.queued.c.study_id),
        _one(sa.func.count(t.queued.c.configuration), t.queued.c.study_id),
    )
    held = t.lease.c.state == "held"
    moving = (
        _one(sa.func.count(), t.lease.c.study_id, held, t.epoch.c.trial_id == t.lease.c.trial_id),
        _one(
            sa.func.sum(sa.func.octet_length(t.output.c.text)),
            t.lease.c.study_id,
            held,
            t.output.c.trial_id == t.lease.c.trial_id,
        ),
    )
    parts = (settled, working, moving)
    rows = connection.execute(
        sa.select(study.study_id, *(number for part in parts for number in part)).where(
            study.study_id.in_(study_ids)
        )
    )
    ends = (1, 1 + len(settled), 1 + len(settled) + len(working))
    return {
        row[0]: StudyMark(
            tuple(row[ends[0] : ends[1]]), tuple(row[ends[1] : ends[2]]), tuple(row[ends[2] :])
        )
        for row in rows
    }


def _one(
    number: sa.ColumnElement[Any],
    study_id: sa.ColumnElement[int],
    *conditions: sa.ColumnElement[bool],
) -> sa.ScalarSelect[Any]:
    """Return a number of the rows that belong to the study of the statement around it."""
    return (
        sa.select(number)
        .where(study_id == t.study.c.study_id, *conditions)
        .correlate(t.study)
        .scalar_subquery()
    )
