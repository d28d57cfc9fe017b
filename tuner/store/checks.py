"""Results of `tuner check` on a study's data and cost, stored with the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuner.records import Value
from tuner.store import tables as t


@dataclass(frozen=True)
class Check:
    """One examination: its findings as JSON, and when it was made."""

    body: Mapping[str, Any]
    made: datetime


def keep(connection: sa.Connection, study_id: int, body: Mapping[str, Any]) -> None:
    """Store an examination; earlier ones of the study are kept."""
    connection.execute(sa.insert(t.check).values(study_id=study_id, body=dict(body)))


def latest(connection: sa.Connection, study_id: int) -> Check | None:
    """Return the newest examination of a study, if there is one."""
    query = (
        sa.select(t.check.c.body, t.check.c.made)
        .where(t.check.c.study_id == study_id)
        .order_by(t.check.c.check_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Check(row.body, row.made)


def of_data(
    connection: sa.Connection, name: str, objective: str, data: Mapping[str, Value]
) -> Mapping[str, Any] | None:
    """Return the newest findings about these data, from any version of the study.

    None if no version had these data examined.
    """
    query = (
        sa.select(t.check.c.body)
        .join(t.study, t.study.c.study_id == t.check.c.study_id)
        .where(t.study.c.name == name, t.study.c.spec["objective"].astext == objective)
        .order_by(t.check.c.check_id.desc())
    )
    entries = (entry for body in connection.execute(query).scalars() for entry in body["data"])
    return next((entry for entry in entries if entry["data"] == data), None)
