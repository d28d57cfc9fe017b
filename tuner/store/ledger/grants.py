"""Budgets in epochs: how far each trial may be trained, so that the total never exceeds the limit.

    limit = trained + granted to trials that are in training and not yet trained
          + promised to chosen trials that wait for a worker + free

A claim grants a trial the epochs up to its pause or end, or as many as are left. In that case it
pauses early, and is resumed when other trials leave epochs over or a launch raises the limit.
Epochs that a trial does not use (it is pruned, out of patience, diverged, or starts with reused
epochs) are free again as soon as its ending is stored, because only trials in training count.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from tuner.records import Value
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.ledger.transactions import Transaction

CUT = (t.lease.c.state == "paused") & t.lease.c.granted.is_not(None)
"""Whether the budget has paused the trial of a lease; such trials are resumed before all others."""


class Left(NamedTuple):
    """The epochs of a budget that are neither trained nor granted."""

    free: int
    """Epochs for any trial. Below 0 if the budget was lowered, or no longer covers the promised."""
    promised: int
    """Epochs needed by trials that a person chose and no worker holds."""


def left(transaction: Transaction, spec: Spec, but: int | None = None) -> Left | None:
    """Return how many epochs may still be granted; None without a limit.

    Epochs granted to trial `but` count as free. Call it under the study's lock: only claims grant.
    """
    if spec.epoch_limit is None:
        return None
    study_id = transaction.study.study_id
    spent = sa.select(sa.func.coalesce(sa.func.sum(t.worker.c.trained), 0)).where(
        t.worker.c.study_id == study_id
    )
    here = t.lease.c.study_id == study_id
    if but is not None:
        here &= t.lease.c.trial_id != but
    ahead = sa.func.greatest(sa.func.coalesce(t.lease.c.granted, _end(spec)) - _stored(), 0)
    granted = (
        sa.select(sa.func.coalesce(sa.func.sum(ahead), 0))
        .select_from(t.lease.join(t.trial))
        .where(here, t.lease.c.state == "held")
    )
    # All epochs to their end, even if they were interrupted so often that others go first now:
    # there was room for them when they were chosen, and there must be when they are resumed.
    promised = (
        sa.select(sa.func.coalesce(sa.func.sum(_end(spec) - _stored()), 0))
        .select_from(t.lease.join(t.trial))
        .where(here, t.lease.c.state == "released", is_chosen())
    )
    # In one statement, so in one snapshot. A worker that stores an epoch or gives a trial back
    # takes no lock of the study: all sums see its change, or none does. So an epoch that is being
    # stored never counts as left, and a chosen trial counts exactly once.
    statement = sa.select(
        spent.scalar_subquery(),
        granted.scalar_subquery(),
        promised.scalar_subquery().label("promised"),
        sa.exists().where(_unlimited(study_id)).label("unlimited"),
    )
    row = transaction.connection.execute(statement).one()
    if row.unlimited:
        _limit(transaction, spec)
        row = transaction.connection.execute(statement).one()
    kept = int(row.promised)
    return Left(spec.epoch_limit - int(row[0]) - int(row[1]) - kept, kept)


def _unlimited(study_id: int) -> sa.ColumnElement[bool]:
    """Return whether a trial in training was claimed while the study had no limit."""
    return (
        (t.lease.c.study_id == study_id) & (t.lease.c.state == "held") & t.lease.c.granted.is_(None)
    )


def _limit(transaction: Transaction, spec: Spec) -> None:
    """Grant trials that were claimed without a limit the epochs that they were assigned.

    From the grant their holders learn that epochs are counted now: a holder whose reused epochs
    come out with other figures gives its trial back. One that is removing such epochs right now
    holds the row's lock: this waits for it, and the epochs left are read afterwards.
    """
    mine = _unlimited(transaction.study.study_id)
    # In the order in which a renewal locks several leases; otherwise the two could deadlock.
    transaction.connection.execute(
        sa.select(t.lease.c.trial_id).where(mine).order_by(t.lease.c.trial_id).with_for_update()
    )
    transaction.connection.execute(
        sa.update(t.lease)
        .where(mine, t.trial.c.trial_id == t.lease.c.trial_id)
        .values(granted=_end(spec))
    )


def regrant(transaction: Transaction, spec: Spec, trial_id: int, *, lost: bool) -> None:
    """Grant an orphan the epochs that it needs, as far as any are left.

    If its worker was `lost`, the trial keeps at least what it was granted before.
    """
    if (more := left(transaction, spec, but=trial_id)) is None:
        granted: Any = None
    else:
        granted = sa.func.least(_end(spec), _stored() + max(0, more.free))
        if lost:
            # Its holder may be alive and store epochs until we take the lease. Those move from
            # granted to trained, so the sum stays the same.
            granted = sa.func.greatest(granted, sa.func.coalesce(t.lease.c.granted, _end(spec)))
    transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == trial_id, t.trial.c.trial_id == t.lease.c.trial_id)
        .values(granted=granted)
    )


def reach(start: int, end: int, more: int | None) -> int | None:
    """Return the last epoch granted to a trial that starts here; None without a limit."""
    return None if more is None else min(end, start + more)


def pause_epoch(
    spec: Spec, chosen: Mapping[str, Value], granted: int | None, rung: int | None
) -> int | None:
    """Return the epoch at which a trial pauses; None if it is trained to its end."""
    ends = [end for end in (granted, rung) if end is not None]
    until = min(ends, default=None)
    return until if until is not None and until < spec.length(chosen) else None


def any_in_training(transaction: Transaction) -> bool:
    """Return whether a trial in training may still leave epochs over."""
    held = sa.exists().where(
        t.lease.c.study_id == transaction.study.study_id, t.lease.c.state == "held"
    )
    return bool(transaction.connection.execute(sa.select(held)).scalar_one())


def rung() -> sa.ScalarSelect[Any]:
    """Return the rung at which the trial of a lease pauses next; NULL for none before its end."""
    return (
        sa.select(t.stretch.c.until)
        .where(t.stretch.c.trial_id == t.lease.c.trial_id)
        .order_by(t.stretch.c.stretch_id.desc())
        .limit(1)
        .correlate(t.lease)
        .scalar_subquery()
    )


def is_chosen() -> sa.ColumnElement[bool]:
    """Return whether a person has chosen the trial of a lease to be completed."""
    return sa.exists().where(
        t.stretch.c.trial_id == t.lease.c.trial_id, t.stretch.c.why == "chosen"
    )


def _end(spec: Spec) -> sa.ColumnElement[int]:
    """Return the epoch up to which a trial would be trained now without a budget in epochs."""
    chosen = sa.cast(t.trial.c.chosen["epochs"].astext, sa.Integer)
    longest = sa.func.coalesce(chosen, spec.longest)
    return sa.func.coalesce(rung(), longest)


def _stored() -> sa.ScalarSelect[Any]:
    """Return the last stored epoch of the trial of a lease; none is missing before it."""
    return (
        sa.select(sa.func.coalesce(sa.func.max(t.epoch.c.epoch), 0))
        .where(t.epoch.c.trial_id == t.lease.c.trial_id)
        .correlate(t.lease)
        .scalar_subquery()
    )
