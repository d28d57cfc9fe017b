"""Forgets a fleet whose cluster is gone for good, without asking its engine.

Nothing here loads an engine, since its package may be gone as well. What may still be running is
derived from what was stored.
"""

from collections.abc import Iterator
from datetime import UTC

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.fleet.tending import LOST_SECONDS
from tuner.store import fleets, studies
from tuner.store.fleets import StoredFleet
from tuner.store.studies import Study

SHOWN_MOST = 20
"""At most this many jobs are named."""


def refuse_present(stored: StoredFleet) -> None:
    """Refuse a fleet that was seen recently: it can be asked to stop."""
    if stored.unseen <= LOST_SECONDS:
        raise UserError(
            f"Fleet {stored.fleet_id} was seen {stored.unseen:.0f} s ago, so its workers can "
            "be asked to leave: `tuner fleet stop`. If that fails, forget it after "
            f"{LOST_SECONDS:.0f} s."
        )


def remains(stored: StoredFleet) -> Iterator[str]:
    """Yield a phrase for everything that may be left of a fleet, and where it is."""
    handle, options = stored.handle, stored.crew.get("options", {})
    if stored.engine == "slurm":
        jobs = list(map(str, handle.get("jobs", ())))
        shown = ",".join(jobs[:SHOWN_MOST]) + (",…" if len(jobs) > SHOWN_MOST else "")
        where = f"the Slurm cluster {handle['cluster']}" if handle.get("cluster") else "Slurm"
        yield f"jobs {shown or 'none'} on {where}, which end by `scancel`"
        yield f"its files, with the database's password (if it has one), in {handle.get('folder')}"
    elif stored.engine == "ray":
        cluster = handle.get("cluster", {}).get("address") or options.get("address", "auto")
        last = handle.get("made", 1) - 1
        named = f"{handle.get('prefix')}-0 to -{last}" if last > 0 else f"{handle.get('prefix')}-0"
        yield f"actors {named} on the Ray cluster at {cluster}, in the namespace tuner"
    elif stored.engine == "kubernetes":
        cluster = handle.get("cluster", {}).get("server") or "its cluster"
        space = options.get("namespace", "default")
        yield (
            f"the Job {handle.get('job')} at {cluster}, which ends with its Secret by "
            f"`kubectl delete job {handle.get('job')} --namespace {space}`"
        )
    else:
        yield f"workers of process {stored.pid} on {stored.host}"


def forget(connection: sa.Connection, study: Study, stored: StoredFleet, who: str) -> StoredFleet:
    """End a fleet in the database only, and record that in the study's history."""
    # Under its lock: if somebody is acting on its engine right now, the fleet does exist.
    current = fleets.locked(connection, stored.fleet_id)
    if current is None or current.ended is not None:
        raise UserError("The fleet has ended meanwhile; `tuner fleet status` shows what is left.")
    refuse_present(current)
    seen = current.seen.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    reason = f"forgotten by {who}; last seen {seen} with {current.running} workers"
    fleets.end(connection, current.fleet_id, reason)
    text = f"{current.engine} fleet {current.fleet_id}, last seen {seen}"
    studies.add_event(connection, study, "fleet forgotten", text, who)
    return current
