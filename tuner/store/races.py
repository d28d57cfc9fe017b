"""Stores a race's looks, which are written once and read by every claim."""

from typing import Any

import sqlalchemy as sa

from tuner.store import tables as t
from tuner.store.ledger.looks import Decided, Look


def read_decisions(connection: sa.Connection, study_id: int) -> tuple[Decided, ...]:
    """Return the decisions of a study's looks, in order."""
    rows = connection.execute(
        sa.select(t.look).where(t.look.c.study_id == study_id).order_by(t.look.c.number)
    )
    return tuple(_decided(row) for row in rows)


def insert_decision(connection: sa.Connection, study_id: int, decided: Decided) -> None:
    """Store the decision of a look; a look's number is unique."""
    at = decided.look
    connection.execute(
        sa.insert(t.look).values(
            study_id=study_id,
            number=at.number,
            rounds=at.rounds,
            racing=list(at.racing),
            field=at.field,
            looks=at.looks,
            room=at.room,
            error=at.error,
            dropped=list(decided.dropped),
            ends=decided.ends,
            seen=dict(decided.seen),
        )
    )


def _decided(row: sa.Row[Any]) -> Decided:
    at = Look(
        number=row.number,
        rounds=row.rounds,
        racing=tuple(row.racing),
        field=row.field,
        looks=row.looks,
        room=row.room,
        error=row.error,
    )
    return Decided(at, tuple(row.dropped), row.ends, row.seen)
