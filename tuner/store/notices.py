"""Which events a hook (a webhook or a command) is still to be sent, and which process sends them.

    event (complete, failed, ...) ── take ──> notice: its sender's until `due` ── ended: sent
                                                └── the sender died, or was refused: due again

Workers write events in the transaction that ends a trial or a study, whether or not there is a
hook. Every process with the hook tries to take pending events, and one of them succeeds: its row is
stored. While it sends, it keeps postponing `due`. If it dies before `ended` is stored, another one
sends the event again. So an event is sent at least once, always with the same id.

Only a hash of a hook is stored, because a webhook's address is often a password.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tuner.store import tables as t
from tuner.store.studies import Study

ENDS = ("complete", "spent", "stopped", "paused")
"""Events of a study that are sent, besides trials that failed for good. Only those that a worker
caused: people know what they did themselves."""
LEASE_SECONDS = 300.0
"""How long a notice is its sender's without `renew`. No command runs that long, even if the
database is away for minutes."""
FIRST_REST_SECONDS = 2.0
"""Pause before the first retry, doubled before each further one."""
LONGEST_REST_SECONDS = 900.0
OLD = timedelta(days=1)
"""Events older than this are no longer sent."""


@dataclass(frozen=True)
class Happened:
    """An event to be sent."""

    event_id: int
    study_id: int
    kind: str
    text: str
    at: datetime
    number: int | None
    """The trial's, if the event is about one."""
    tried: datetime | None
    """Set if it was sent before without success; equal for all events sent together then."""


def hook_of(kind: str, target: str) -> str:
    """Return the key by which a hook is stored."""
    return f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:24]}"


def register(connection: sa.Connection, hook: str) -> None:
    """Record that a hook is used from now on; it is not sent what happened before its first use.

    Events while no process has the hook are sent by the next one that has it, for up to a day.
    """
    connection.execute(insert(t.hook).values(hook=hook).on_conflict_do_nothing())


def pending(connection: sa.Connection, hook: str, study: Study | None) -> list[Happened]:
    """Return the events to be sent now, of one study or of all; the oldest first."""
    query = _unsent(hook, study).where(
        t.notice.c.event_id.is_(None) | (t.notice.c.due <= sa.func.clock_timestamp())
    )
    return [Happened(**row._mapping) for row in connection.execute(query)]


def is_waiting(connection: sa.Connection, hook: str, study: Study | None) -> bool:
    """Return whether an event is still to be sent, now or when it is due."""
    return connection.execute(_unsent(hook, study).limit(1)).first() is not None


def take(connection: sa.Connection, hook: str, events: Sequence[Happened]) -> set[int]:
    """Take events for one sender; return the ids of those that no other sender has.

    If two insert the same row at once, the second waits at the primary key for the first one's
    commit, then evaluates the condition below with the first one's `due`, and gets nothing.
    """
    # The transaction's time is equal for all of them, so that a retry finds what was sent together.
    now = sa.func.now()
    due = now + timedelta(seconds=LEASE_SECONDS)
    # In a fixed order, or two senders that take the same events could deadlock.
    rows = [
        {"event_id": event.event_id, "hook": hook, "due": due, "tries": 1}
        for event in sorted(events, key=lambda event: event.event_id)
    ]
    query = insert(t.notice).values(rows)
    taken = connection.execute(
        query.on_conflict_do_update(
            index_elements=[t.notice.c.event_id, t.notice.c.hook],
            set_={"due": query.excluded.due, "tries": t.notice.c.tries + 1},
            where=t.notice.c.ended.is_(None) & (t.notice.c.due <= now),
        ).returning(t.notice.c.event_id)
    )
    return set(taken.scalars())


def renew(connection: sa.Connection, hook: str, event_ids: Sequence[int]) -> None:
    """Keep events that are being sent.

    If this sender was suspended for longer than its lease and another one has taken the events,
    this extends the other's lease, which does no harm.
    """
    connection.execute(
        sa.update(t.notice)
        .where(
            t.notice.c.hook == hook,
            t.notice.c.event_id.in_(event_ids),
            t.notice.c.ended.is_(None),
        )
        .values(due=sa.func.now() + timedelta(seconds=LEASE_SECONDS))
    )


def end(connection: sa.Connection, hook: str, event_ids: Sequence[int], result: str) -> None:
    """Record that events have been sent, or never will be, and why."""
    connection.execute(
        sa.update(t.notice)
        .where(t.notice.c.hook == hook, t.notice.c.event_id.in_(event_ids))
        .values(ended=sa.func.clock_timestamp(), result=result)
    )


def put_off(connection: sa.Connection, hook: str, event_ids: Sequence[int], result: str) -> None:
    """Postpone the retry of events, longer after each failure."""
    rest = sa.func.least(
        LONGEST_REST_SECONDS, FIRST_REST_SECONDS * sa.func.power(2, t.notice.c.tries - 1)
    )
    connection.execute(
        sa.update(t.notice)
        .where(
            t.notice.c.hook == hook,
            t.notice.c.event_id.in_(event_ids),
            t.notice.c.ended.is_(None),
        )
        .values(
            due=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, rest),
            result=result,
        )
    )


def _unsent(hook: str, study: Study | None) -> sa.Select[Any]:
    """Select events since a hook's first use that it has not been sent."""
    since = sa.select(t.hook.c.since).where(t.hook.c.hook == hook).scalar_subquery()
    query = (
        sa.select(
            t.event.c.event_id,
            t.event.c.study_id,
            t.event.c.kind,
            t.event.c.text,
            t.event.c.happened.label("at"),
            t.trial.c.number,
            t.notice.c.due.label("tried"),
        )
        .select_from(
            t.event.outerjoin(
                t.notice, (t.notice.c.event_id == t.event.c.event_id) & (t.notice.c.hook == hook)
            ).outerjoin(t.trial, t.trial.c.trial_id == t.event.c.trial_id)
        )
        .where(
            # Literals, so that the partial index applies. A trial's end can have a study's kind.
            (t.event.c.kind == sa.literal_column("'failed'"))
            | (
                t.event.c.trial_id.is_(None)
                & t.event.c.kind.in_([sa.literal_column(f"'{kind}'") for kind in ENDS])
            ),
            t.event.c.who == "",
            t.event.c.happened >= since,
            t.event.c.happened > sa.func.clock_timestamp() - OLD,
            t.notice.c.ended.is_(None),
        )
        .order_by(t.event.c.event_id)
    )
    return query if study is None else query.where(t.event.c.study_id == study.study_id)
