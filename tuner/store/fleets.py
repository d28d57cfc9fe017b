"""Stored fleets: the workers that a launcher started, and the requests to scale or stop them.

Requests are stored in the database, so that people can make them from any machine. The launcher of
local workers polls for them every few seconds. Fleets of other engines outlive their launcher; for
those, the command that makes a request acts on the engine itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tuner.store import tables as t
from tuner.store.studies import Study

Asked = Literal["", "stop", "now"]


@dataclass(frozen=True)
class StoredFleet:
    """A fleet, as stored."""

    fleet_id: int
    study_id: int
    engine: str
    crew: Mapping[str, Any]
    handle: Mapping[str, Any]
    workers: int
    """How many are requested."""
    asked: Asked
    """Whether its workers are to leave: after their epoch, or now."""
    host: str
    pid: int
    """The launcher's process on that host; it may have ended."""
    who: str
    started: datetime
    seen: datetime
    running: int
    """How many workers were running when it was last seen."""
    ended: datetime | None
    reason: str
    unseen: float
    """Seconds since it was last seen, by the server's clock, when this was read."""


@dataclass(frozen=True)
class Launcher:
    """The process that started a fleet."""

    host: str
    pid: int
    who: str


def begin(
    connection: sa.Connection,
    study: Study,
    engine: str,
    crew: Mapping[str, Any],
    handle: Mapping[str, Any],
    *,
    workers: int,
    launcher: Launcher,
) -> int:
    """Store a fleet that is about to be started, and return its number.

    Stored beforehand, so that the fleet can be found even if its launcher dies right afterwards.
    """
    row = {
        "study_id": study.study_id,
        "engine": engine,
        "crew": dict(crew),
        "handle": dict(handle),
        "workers": workers,
        "host": launcher.host,
        "pid": launcher.pid,
        "who": launcher.who,
    }
    inserted = connection.execute(sa.insert(t.fleet).values(row).returning(t.fleet.c.fleet_id))
    return int(inserted.scalar_one())


def find(connection: sa.Connection, fleet_id: int) -> StoredFleet | None:
    """Return a fleet, unless it was deleted with its study."""
    return _one(connection, _fleets().where(t.fleet.c.fleet_id == fleet_id))


def locked(connection: sa.Connection, fleet_id: int) -> StoredFleet | None:
    """Return a fleet, locked until the transaction ends.

    Otherwise two people who scale it at once would each start the missing workers.
    """
    query = _fleets().where(t.fleet.c.fleet_id == fleet_id).with_for_update()
    return _one(connection, query)


def of_study(connection: sa.Connection, study: Study, *, ended: bool = False) -> list[StoredFleet]:
    """Return a study's fleets, the oldest first; those that have ended only if asked for."""
    query = _fleets().where(t.fleet.c.study_id == study.study_id)
    if not ended:
        query = query.where(t.fleet.c.ended.is_(None))
    rows = connection.execute(query.order_by(t.fleet.c.fleet_id))
    return [StoredFleet(**row._mapping) for row in rows]


def keep(
    connection: sa.Connection, stored: StoredFleet, handle: Mapping[str, Any], running: int | None
) -> StoredFleet | None:
    """Store a fleet's handle and how many of its workers run; return the fleet as it is now.

    `running` is None if the engine did not answer, so that the fleet was not seen. A fleet recorded
    as ended, because its launcher was cut off, is open again if any of its workers runs.

    If somebody else has acted on the fleet since it was read, their handle stays: it names workers
    that ours does not know.
    """
    mine = t.fleet.c.fleet_id == stored.fleet_id
    unchanged = t.fleet.c.handle == sa.cast(sa.literal(dict(stored.handle), JSONB), JSONB)
    kept = sa.case(
        (unchanged, sa.cast(sa.literal(dict(handle), JSONB), JSONB)), else_=t.fleet.c.handle
    )
    values: dict[str, Any] = {"handle": kept}
    if running is not None:
        values |= {"running": running, "seen": sa.func.clock_timestamp()}
    if running:
        values |= {"ended": None, "reason": ""}
    update = sa.update(t.fleet).where(mine).values(values)
    return _one(connection, update.returning(*t.fleet.c, _UNSEEN))


def want(connection: sa.Connection, fleet_id: int, workers: int) -> None:
    """Store how many workers are requested."""
    mine = t.fleet.c.fleet_id == fleet_id
    connection.execute(sa.update(t.fleet).where(mine).values(workers=workers))


def ask_to_stop(connection: sa.Connection, fleet_id: int, how: Asked) -> None:
    """Store that its workers are to leave; a weaker request does not replace a stronger one."""
    mine = (t.fleet.c.fleet_id == fleet_id) & (t.fleet.c.asked != "now")
    connection.execute(sa.update(t.fleet).where(mine).values(asked=how))


def end(connection: sa.Connection, fleet_id: int, reason: str = "") -> None:
    """Store that a fleet has no workers left, and the reason if that was not requested."""
    values = {"ended": sa.func.clock_timestamp(), "running": 0, "reason": reason}
    mine = (t.fleet.c.fleet_id == fleet_id) & t.fleet.c.ended.is_(None)
    connection.execute(sa.update(t.fleet).where(mine).values(values))


_UNSEEN = sa.cast(sa.extract("epoch", sa.func.clock_timestamp() - t.fleet.c.seen), sa.Double).label(
    "unseen"
)


def _fleets() -> sa.Select[Any]:
    return sa.select(t.fleet, _UNSEEN)


def _one(connection: sa.Connection, query: Any) -> StoredFleet | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else StoredFleet(**row._mapping)
