"""Which events are told to a hook (a webhook or a command), and who tells them: each once.

    event (complete, failed, ...) ── take ──> notice: its sender's until `due` ── ended: told
                                                └── the sender died, or was refused: due again

Workers write events in the transaction that ends a trial or a study, whether or not anybody
listens. Whoever has a hook takes what is pending: of several that try, the row of one is stored.
While it sends, its sender puts `due` off again and again. A sender that dies before `ended` is
stored makes another one send it again, so an event is told at least once, with the same id.

A hook is stored by a hash alone: the address of a webhook is often a password.
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
"""Events of a study that are told, beside trials that failed for good; where a worker caused them:
what a person did, that person knows."""
LEASE_SECONDS = 300.0
"""How long one sender has a notice without `renew`. Even where the database is away for minutes,
no command outlasts it."""
FIRST_REST_SECONDS = 2.0
"""Before the second try; twice as long before each further one."""
LONGEST_REST_SECONDS = 900.0
OLD = timedelta(days=1)
"""What could not be told for so long is not told any more."""


@dataclass(frozen=True)
class Happened:
    """An event that is to be told."""

    event_id: int
    study_id: int
    kind: str
    text: str
    at: datetime
    number: int | None
    """Of the trial, if it is about one."""
    tried: datetime | None
    """Set where telling it was tried before, and equal for all that were told together then."""


def hook_of(kind: str, target: str) -> str:
    """Return what a hook is stored by."""
    return f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:24]}"


def register(connection: sa.Connection, hook: str) -> None:
    """Note that a hook is used from now on; what happened before its first use is not told to it.

    What happens while no process has it is told by the next one that has, for a day.
    """
    connection.execute(insert(t.hook).values(hook=hook).on_conflict_do_nothing())


def pending(connection: sa.Connection, hook: str, study: Study | None) -> list[Happened]:
    """Return what has to be told now, of one study or of all; the oldest first."""
    query = _untold(hook, study).where(
        t.notice.c.event_id.is_(None) | (t.notice.c.due <= sa.func.clock_timestamp())
    )
    return [Happened(**row._mapping) for row in connection.execute(query)]


def is_waiting(connection: sa.Connection, hook: str, study: Study | None) -> bool:
    """Return whether something is still to be told, now or when it is due."""
    return connection.execute(_untold(hook, study).limit(1)).first() is not None


def take(connection: sa.Connection, hook: str, events: Sequence[Happened]) -> set[int]:
    """Take events for one sender; return the ids of those that no other sender has.

    Two that insert the same row at once: the second waits for the first one's commit at the
    primary key, then meets the condition below with the first one's `due`, and gets nothing.
    """
    # The transaction's time: equal for all, so that a second try finds what was told together.
    now = sa.func.now()
    due = now + timedelta(seconds=LEASE_SECONDS)
    # In one order, or two that take the same events could deadlock.
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
    """Keep events that are being told.

    If another sender has taken them, because this one was suspended past its time, its own time
    grows by this: no harm is done.
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
    """Note that events have been told, or never will be, and why."""
    connection.execute(
        sa.update(t.notice)
        .where(t.notice.c.hook == hook, t.notice.c.event_id.in_(event_ids))
        .values(ended=sa.func.clock_timestamp(), result=result)
    )


def put_off(connection: sa.Connection, hook: str, event_ids: Sequence[int], result: str) -> None:
    """Let events rest after a try in vain, longer each time."""
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


def _untold(hook: str, study: Study | None) -> sa.Select[Any]:
    """Select events that were not told to a hook, since it has been used."""
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
            # Written out, as in the partial index. The end of a trial has a study's kind, too.
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
