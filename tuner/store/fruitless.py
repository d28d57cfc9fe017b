"""Workers that ended before their first epoch, counted by place in a study's history.

A place is what an engine fills with workers again and again: an element of a job array, an actor,
the pods of a Job; the engine names it. Each worker there is a new process, perhaps on another
machine, so the count is stored here, as events, which also tell people the reason.
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
    """Consecutive workers at a place that had a trial and stored no epoch."""

    workers: int = 0
    lives: int = 0
    """How many of them reached the end of their lifetime."""


def count(connection: sa.Connection, study_id: int, place: str) -> Fruitless:
    """Return how many of the last workers at a place were fruitless without interruption.

    A worker that stores an epoch there resets the count, which stays 0 while that worker is alive:
    where several share a place, one may train for weeks while others are preempted again and again.
    """
    here = (
        t.event.c.study_id == study_id,
        t.event.c.text.startswith(_beginning(place), autoescape=True),
    )
    present = sa.func.coalesce(t.worker.c.ended, t.worker.c.seen, t.event.c.happened)
    progress = (
        sa.select(
            sa.func.max(t.event.c.event_id).label("event_id"), sa.func.max(present).label("until")
        )
        .select_from(t.event.outerjoin(t.worker, t.worker.c.worker_id == t.event.c.worker_id))
        .where(*here, t.event.c.kind == PROGRESS)
        .subquery()
    )
    rows = connection.execute(
        sa.select(t.event.c.kind, sa.func.count().label("workers"))
        .select_from(t.event.join(progress, sa.true()))
        .where(
            *here,
            t.event.c.kind.in_([TAKEN, LIVED]),
            t.event.c.event_id > sa.func.coalesce(progress.c.event_id, 0),
            t.event.c.happened > sa.func.coalesce(progress.c.until, sa.text("'-infinity'")),
        )
        .group_by(t.event.c.kind)
    )
    counts = {row.kind: int(row.workers) for row in rows}
    return Fruitless(sum(counts.values()), counts.get(LIVED, 0))


def note(connection: sa.Connection, study_id: int, place: str, worker_id: int, kind: str) -> None:
    """Add to the history how a worker at a place fared: TAKEN, LIVED or PROGRESS."""
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
