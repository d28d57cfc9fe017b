"""Workers: joining a study, staying alive in it, leaving it."""

from dataclasses import dataclass

import sqlalchemy as sa

from tuner.settings import Timing
from tuner.store.ledger.leases import Lease, LeaseLostError, Renewed
from tuner.store.ledger.transactions import in_seconds
from tuner.store.tables import lease, study, worker


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
            sa.insert(worker)
            .values(study_id=study_id, host=who.host, pid=who.pid, device=who.device)
            .returning(worker.c.worker_id)
        ).scalar_one()
    )
    return Post(study_id, worker_id)


def leave(connection: sa.Connection, post: Post, active_seconds: float) -> None:
    """Note that a worker has left."""
    connection.execute(
        sa.update(worker)
        .where(worker.c.worker_id == post.worker_id)
        .values(
            seen=sa.func.clock_timestamp(),
            ended=sa.func.clock_timestamp(),
            active_seconds=active_seconds,
        )
    )


def renew(
    connection: sa.Connection,
    post: Post,
    held: Lease | None,
    timing: Timing,
    active_seconds: float,
) -> Renewed:
    """Keep the lease and note that the worker lives; raise LeaseLostError if it is not ours.

    An expired lease that nobody adopted is renewed: only another token takes a
    trial away.
    """
    if held is not None:
        _keep(connection, post.worker_id, held, timing)
    connection.execute(
        sa.update(worker)
        .where(worker.c.worker_id == post.worker_id)
        .values(seen=sa.func.clock_timestamp(), active_seconds=active_seconds)
    )
    row = connection.execute(
        sa.select(study.c.state, study.c.spec["budget"]["hours"].label("hours")).where(
            study.c.study_id == post.study_id
        )
    ).one_or_none()
    if row is None:
        return Renewed("stopped", None)
    return Renewed(row.state, hours_left(connection, post.study_id, row.hours))


def hours_left(connection: sa.Connection, study_id: int, hours: float | None) -> float | None:
    """Return what is left of the budget of worker-active hours, if there is one."""
    if hours is None:
        return None
    used = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(worker.c.active_seconds), 0.0)).where(
            worker.c.study_id == study_id
        )
    ).scalar_one()
    return float(hours) - float(used) / 3600.0


def _keep(connection: sa.Connection, worker_id: int, held: Lease, timing: Timing) -> None:
    mine = (lease.c.trial_id == held.trial_id) & (lease.c.token == held.token)
    kept = connection.execute(
        sa.update(lease)
        .where(mine, lease.c.worker_id == worker_id, lease.c.state == "held")
        .values(renewed=sa.func.clock_timestamp(), expires=in_seconds(timing.lease))
    )
    if kept.rowcount:
        return
    row = connection.execute(
        sa.select(lease.c.token, lease.c.worker_id).where(lease.c.trial_id == held.trial_id)
    ).one_or_none()
    # Our own token on a lease that is not held means that our main loop has
    # just ended or released it: nothing to keep, and nothing lost.
    if row is None or row.token != held.token or row.worker_id != worker_id:
        raise LeaseLostError(f"trial {held.number} has another holder")
