"""Workers that were sent away before their first epoch, counted by place, in a study's history.

A place is what an engine gives a worker, again and again: an element of an array, an actor, the
pods of a Job. Its name is the engine's. A worker there is another process each time, perhaps on
another machine, so the count is kept here, as events; a person who looks for the reason reads them.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from tuner.store import tables as t

TAKEN = "fruitless"
LIVED = "fruitless lifetime"
PROGRESS = "progress again"
WORDS = {
    TAKEN: "had to leave before its first epoch",
    LIVED: "had no epoch by the end of its lifetime",
    PROGRESS: "has stored an epoch",
}


@dataclass(frozen=True)
class Fruitless:
    """Workers in a row that had a trial at a place and stored no epoch."""

    workers: int = 0
    lives: int = 0
    """How many of them had their whole lifetime."""


def count(connection: sa.Connection, study_id: int, place: str) -> Fruitless:
    """Return how many workers in a row were fruitless at a place, up to now."""
    here = (
        t.event.c.study_id == study_id,
        t.event.c.text.startswith(_beginning(place), autoescape=True),
    )
    last = sa.select(sa.func.max(t.event.c.event_id)).where(*here, t.event.c.kind == PROGRESS)
    since = sa.func.coalesce(last.scalar_subquery(), 0)
    rows = connection.execute(
        sa.select(t.event.c.kind, sa.func.count().label("workers"))
        .where(*here, t.event.c.kind.in_([TAKEN, LIVED]), t.event.c.event_id > since)
        .group_by(t.event.c.kind)
    )
    counts = {row.kind: int(row.workers) for row in rows}
    return Fruitless(sum(counts.values()), counts.get(LIVED, 0))


def note(connection: sa.Connection, study_id: int, place: str, worker_id: int, kind: str) -> None:
    """Add to the history what a worker at a place has come to: TAKEN, LIVED or PROGRESS."""
    connection.execute(
        sa.insert(t.event).values(
            study_id=study_id,
            worker_id=worker_id,
            kind=kind,
            text=f"{_beginning(place)}{WORDS[kind]}",
        )
    )


def _beginning(place: str) -> str:
    return f"the worker at {place} "
