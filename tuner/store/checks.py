"""What `tuner check` found of a study's data and cost, kept with the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tuner.store.tables import check


@dataclass(frozen=True)
class Check:
    """One examination: what it found, as JSON, and when it was made."""

    body: Mapping[str, Any]
    made: datetime


def keep(connection: sa.Connection, study_id: int, body: Mapping[str, Any]) -> None:
    """Keep an examination beside the study's earlier ones."""
    connection.execute(sa.insert(check).values(study_id=study_id, body=dict(body)))


def latest(connection: sa.Connection, study_id: int) -> Check | None:
    """Return the newest examination of a study, if there is one."""
    query = (
        sa.select(check.c.body, check.c.made)
        .where(check.c.study_id == study_id)
        .order_by(check.c.check_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Check(row.body, row.made)
