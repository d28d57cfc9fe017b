"""Workers: joining a study, staying alive in it, leaving it."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.settings import Timing
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease, Renewed
from tuner.store.ledger.transactions import in_seconds


@dataclass(frozen=True)
class Post:
    """A worker's place in a study, as the database knows it."""

    study_id: int
    worker_id: int


@dataclass(frozen=True)
class Worker:
    """Who a worker is: what `tuner status` shows of it."""

    host: str
    pid: int
    device: str


def join(connection: sa.Connection, study_id: int, who: Worker) -> Post:
    """Register a worker and return its post."""
    worker_id = int(
        connection.execute(
            sa.insert(t.worker)
            .values(study_id=study_id, host=who.host, pid=who.pid, device=who.device)
            .returning(t.worker.c.worker_id)
        ).scalar_one()
    )
    return Post(study_id, worker_id)


def leave(connection: sa.Connection, post: Post, active_seconds: float) -> None:
    """Note that a worker has left."""
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
) -> Renewed:
    """Keep the leases that are ours, say which are not, and note that the worker lives.

    An expired lease that nobody adopted is renewed: only another token takes a
    trial away.
    """
    # In one order, as all who lock several: two that renewed each other's last one would wait.
    in_order = sorted(leases, key=lambda lease: lease.trial_id)
    lost = [lease for lease in in_order if not _keep(connection, post.worker_id, lease, timing)]
    connection.execute(
        sa.update(t.worker)
        .where(t.worker.c.worker_id == post.worker_id)
        .values(seen=sa.func.clock_timestamp(), active_seconds=active_seconds)
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
    """Return what is left of the budget of worker-active hours, if there is one."""
    if hours is None:
        return None
    used = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(t.worker.c.active_seconds), 0.0)).where(
            t.worker.c.study_id == study_id
        )
    ).scalar_one()
    return float(hours) - float(used) / 3600.0


def _keep(connection: sa.Connection, worker_id: int, lease: Lease, timing: Timing) -> bool:
    """Renew a lease; say whether it is ours."""
    mine = (t.lease.c.trial_id == lease.trial_id) & (t.lease.c.token == lease.token)
    kept = connection.execute(
        sa.update(t.lease)
        .where(mine, t.lease.c.worker_id == worker_id, t.lease.c.state == "held")
        .values(renewed=sa.func.clock_timestamp(), expires=in_seconds(timing.lease))
    )
    if kept.rowcount:
        return True
    row = connection.execute(
        sa.select(t.lease.c.token, t.lease.c.worker_id).where(t.lease.c.trial_id == lease.trial_id)
    ).one_or_none()
    # Our own token on a lease that is not held means that our main loop has
    # just ended or released it: nothing to keep, and nothing lost.
    return row is not None and row.token == lease.token and row.worker_id == worker_id
