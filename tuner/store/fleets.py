"""Fleets as they are stored: what a launcher started, and what people want of it.

A fleet is asked to scale or to stop by the database, so that any machine can do it. The launcher of
local workers looks here every few seconds. Fleets of other engines outlive their launcher, and
whoever asks acts on the engine at once.
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
    """A fleet, as it is stored."""

    fleet_id: int
    study_id: int
    engine: str
    crew: Mapping[str, Any]
    handle: Mapping[str, Any]
    workers: int
    """How many are wanted."""
    asked: Asked
    """Whether its workers are to leave: politely, or now."""
    host: str
    pid: int
    """Where its launcher ran, or still runs."""
    who: str
    started: datetime
    seen: datetime
    running: int
    """How many workers ran when it was seen last."""
    ended: datetime | None
    reason: str
    unseen: float
    """For how many seconds it had not been seen when it was read, by the server's clock."""


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

    Before it is started: a launcher that dies right afterwards leaves a fleet that can be found.
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
    """Return a fleet, and let nobody else act on it until the transaction ends.

    Two people who scale it at once would each start the workers that are missing.
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
    """Store what finds a fleet again and how many of it run; return the fleet as it is now.

    None: its engine could not say, so the fleet was not seen. One that was taken for ended, because
    its launcher was cut off, works again if any of it runs.

    If somebody else has acted on it since it was read, the handle of that person stays: it names
    workers that ours does not know.
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
    """Store how many workers are wanted."""
    mine = t.fleet.c.fleet_id == fleet_id
    connection.execute(sa.update(t.fleet).where(mine).values(workers=workers))


def ask_to_stop(connection: sa.Connection, fleet_id: int, how: Asked) -> None:
    """Store that its workers are to leave; what was asked before is not taken back by less."""
    mine = (t.fleet.c.fleet_id == fleet_id) & (t.fleet.c.asked != "now")
    connection.execute(sa.update(t.fleet).where(mine).values(asked=how))


def end(connection: sa.Connection, fleet_id: int, reason: str = "") -> None:
    """Store that no worker of a fleet is left, and why if that was not as wanted."""
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
