"""Workers: joining a study, staying alive in it, leaving it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from tuner.settings import Timing
from tuner.spec.study import Budget
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease, Renewed
from tuner.store.ledger.transactions import in_seconds
from tuner.store.spending import Used, exhausted


@dataclass(frozen=True)
class Post:
    """A worker's registration in a study."""

    study_id: int
    worker_id: int


@dataclass(frozen=True)
class Worker:
    """A worker's description when it joins."""

    host: str
    pid: int
    device: str
    price_per_hour: float | None = None
    """The price of its device, if its machine has another one than the study."""


def join(connection: sa.Connection, study_id: int, who: Worker) -> Post:
    """Register a worker in a study."""
    worker_id = int(
        connection.execute(
            sa.insert(t.worker)
            .values(
                study_id=study_id,
                host=who.host,
                pid=who.pid,
                device=who.device,
                price_per_hour=who.price_per_hour,
            )
            .returning(t.worker.c.worker_id)
        ).scalar_one()
    )
    return Post(study_id, worker_id)


def leave(
    connection: sa.Connection, post: Post, used: Used, tally: Mapping[str, Any] | None = None
) -> None:
    """Record that a worker has left, with its final counts."""
    connection.execute(
        sa.update(t.worker)
        .where(t.worker.c.worker_id == post.worker_id)
        .values(
            seen=sa.func.clock_timestamp(),
            ended=sa.func.clock_timestamp(),
            **_at_least(used),
            **({} if tally is None else {"tally": dict(tally)}),
        )
    )


def charge(connection: sa.Connection, worker_id: int, used: Used) -> None:
    """Store a worker's usage in the transaction that stores what it trained.

    In the order of locks, the worker's row comes last.
    """
    connection.execute(
        sa.update(t.worker).where(t.worker.c.worker_id == worker_id).values(_at_least(used))
    )


def _at_least(used: Used) -> dict[str, sa.ColumnElement[float]]:
    # The renewal thread may read its clock before the main loop, but get the row's lock after it.
    # The stored value never falls, so no time is lost. Nor is any counted twice: each value is the
    # worker's whole time, not an increment, so it may be sent repeatedly. (In PostgreSQL
    # `greatest` ignores NULL.)
    return {
        name: sa.func.greatest(t.worker.c[name], seconds) for name, seconds in asdict(used).items()
    }


def renew(
    connection: sa.Connection,
    post: Post,
    leases: Sequence[Lease],
    timing: Timing,
    used: Used,
    *,
    load: Mapping[str, Any] | None = None,
    tally: Mapping[str, Any] | None = None,
) -> Renewed:
    """Renew the leases that are still ours, return those that are not, and update `seen`.

    The device's load, if measured, and the worker's counts are stored along with it. An expired
    lease that was not adopted is renewed: only another token takes a trial away.
    """
    # In the order in which every transaction locks several leases; otherwise two could deadlock.
    in_order = sorted(leases, key=lambda lease: lease.trial_id)
    lost = [lease for lease in in_order if not _keep(connection, post.worker_id, lease, timing)]
    connection.execute(
        sa.update(t.worker)
        .where(t.worker.c.worker_id == post.worker_id)
        .values(
            seen=sa.func.clock_timestamp(),
            **_at_least(used),
            **({} if load is None else {"load": dict(load)}),
            **({} if tally is None else {"tally": dict(tally)}),
        )
    )
    row = connection.execute(
        # The current budget: a launch may have raised it since the worker joined.
        sa.select(t.study.c.state, t.study.c.spec["budget"].label("budget")).where(
            t.study.c.study_id == post.study_id
        )
    ).one_or_none()
    if row is None:
        return Renewed("stopped", tuple(lost))
    spent = exhausted(connection, post.study_id, Budget(**row.budget))
    return Renewed(row.state, tuple(lost), spent)


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
    # Our own token on a lease that is not held means that our main loop has just ended or released
    # it: there is nothing to renew, and nothing was lost.
    return row is not None and row.token == lease.token and row.worker_id == worker_id
