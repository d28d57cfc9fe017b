"""Workers: joining a study, staying alive in it, leaving it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.settings import Timing
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease, Renewed
from tuner.store.ledger.transactions import in_seconds


@dataclass(frozen=True)
class Post:
    """A worker's registration in a study."""

    study_id: int
    worker_id: int


@dataclass(frozen=True)
class Worker:
    """What `tuner status` shows about a worker."""

    host: str
    pid: int
    device: str


def join(connection: sa.Connection, study_id: int, who: Worker) -> Post:
    """Register a worker in a study."""
    worker_id = int(
        connection.execute(
            sa.insert(t.worker)
            .values(study_id=study_id, host=who.host, pid=who.pid, device=who.device)
            .returning(t.worker.c.worker_id)
        ).scalar_one()
    )
    return Post(study_id, worker_id)


def leave(connection: sa.Connection, post: Post, active_seconds: float) -> None:
    """Record that a worker has left."""
    connection.execute(
        sa.update(t.worker)
        .where(t.worker.c.worker_id == post.worker_id)
        .values(
            seen=sa.func.clock_timestamp(),
            ended=sa.func.clock_timestamp(),
            active_seconds=active_seconds,
        )
    )


def renew(
    connection: sa.Connection,
    post: Post,
    leases: Sequence[Lease],
    timing: Timing,
    active_seconds: float,
    *,
    load: Mapping[str, Any] | None = None,
) -> Renewed:
    """Renew the leases that are still ours, return those that are not, and update `seen`.

    The load of the worker's device is kept with it, if it was measured.
    An expired lease that was not adopted is renewed: only another token takes a
    trial away.
    """
    # In the order in which every transaction locks several leases; otherwise two could deadlock.
    in_order = sorted(leases, key=lambda lease: lease.trial_id)
    lost = [lease for lease in in_order if not _keep(connection, post.worker_id, lease, timing)]
    connection.execute(
        sa.update(t.worker)
        .where(t.worker.c.worker_id == post.worker_id)
        .values(
            seen=sa.func.clock_timestamp(),
            active_seconds=active_seconds,
            **({} if load is None else {"load": dict(load)}),
        )
    )
    row = connection.execute(
        sa.select(t.study.c.state, t.study.c.spec["budget"]["hours"].label("hours")).where(
            t.study.c.study_id == post.study_id
        )
    ).one_or_none()
    if row is None:
        return Renewed("stopped", None, tuple(lost))
    return Renewed(row.state, hours_left(connection, post.study_id, row.hours), tuple(lost))


def hours_left(connection: sa.Connection, study_id: int, hours: float | None) -> float | None:
    """Return the remaining hours of the worker-hours budget; None without a budget."""
    if hours is None:
        return None
    used = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(t.worker.c.active_seconds), 0.0)).where(
            t.worker.c.study_id == study_id
        )
    ).scalar_one()
    return float(hours) - float(used) / 3600.0


def _keep(connection: sa.Connection, worker_id: int, lease: Lease, timing: Timing) -> bool:
    """Renew a lease; return whether it is still ours."""
    mine = (t.lease.c.trial_id == lease.trial_id) & (t.lease.c.token == lease.token)
    renewed = connection.execute(
        sa.update(t.lease)
        .where(mine, t.lease.c.worker_id == worker_id, t.lease.c.state == "held")
        .values(renewed=sa.func.clock_timestamp(), expires=in_seconds(timing.lease))
    )
    if renewed.rowcount:
        return True
    row = connection.execute(
        sa.select(t.lease.c.token, t.lease.c.worker_id).where(t.lease.c.trial_id == lease.trial_id)
    ).one_or_none()
    # Our own token on a lease that is not held means that our main loop has
    # just ended or released it: there is nothing to renew, and nothing was lost.
    return row is not None and row.token == lease.token and row.worker_id == worker_id
