"""Ending trials: complete, pruned, failed for good, paused, or given back; and the brake."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects.postgresql import insert

from tuner.records import (
    DIVERGED,
    Dataset,
    Epoch,
    Figures,
    Labels,
    Predictions,
    Result,
    Setup,
    Value,
)
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store import uploads
from tuner.store.ledger import grants
from tuner.store.ledger.leases import Lease, Sequel
from tuner.store.ledger.recording import read_curve, remove_epochs
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import end_trial, reopen_trials
from tuner.text import storable

INTERRUPTIONS = 100
"""A trial fails after this many interruptions in a row without a new epoch.

Preemption alone does not get there: if seven attempts in ten are killed before their first epoch,
one trial in 10^15 is interrupted so often. A trial that kills its worker every time must end.
"""
HOSTS = 25
"""After interruptions on this many machines in a row, the trial itself is assumed to crash them."""
NO_TOKEN = 0
"""Smaller than any real token."""
BRAKE_TRIALS = 3
"""The study is paused when this many trials fail for the same reason before any succeeds."""
REASON_LIMIT = 2000
"""Characters of a reason that are stored; the rest is in the attempt's output."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended, with its setup, figures and predictions as far as they exist."""

    state: str
    reason: str
    setup: Setup | None
    best: Figures | None
    last: Figures | None


def complete(
    transaction: Transaction, lease: Lease, setup: Setup, data: Dataset, result: Result
) -> None:
    """End a trial that ran to its end."""
    if transaction.hold(lease) == "ended":
        return  # an earlier try was committed, and only its answer was lost
    curve = read_curve(transaction.connection, lease.trial_id)
    if curve and curve[-1].epoch > result.last.epoch:
        # Later stored epochs belong to another training than the one that ends here (see
        # `recording`).
        remove_epochs(transaction, lease.trial_id, result.last.epoch + 1)
        curve = [epoch for epoch in curve if epoch.epoch <= result.last.epoch]
    assert len(curve) == result.last.epoch, "every epoch must be stored before a trial completes"
    keep_dataset(transaction.connection, data)
    for predictions in result.predictions:
        _keep_prediction(transaction.connection, lease, predictions)
    _end(transaction, lease, Ending("COMPLETE", "", setup, result.best, result.last), curve)


def prune(transaction: Transaction, lease: Lease, setup: Setup, reason: str) -> None:
    """End a trial before its last epoch."""
    if transaction.hold(lease) == "ended":
        return
    curve = read_curve(transaction.connection, lease.trial_id)
    best, last = _figures(curve, transaction.study.spec)
    _end(transaction, lease, Ending("PRUNED", reason, setup, best, last), curve)


def pause(transaction: Transaction, lease: Lease, setup: Setup, checkpoint: str) -> None:
    """Pause a trial that has reached its rung, or the last epoch that it was granted.

    From now on its checkpoint is kept for it.

    Optuna has no paused trials. As a running one it would count as hopeless for TPE, and Optuna's
    dashboard would show hundreds of running trials. So until it is resumed it is stored as pruned.
    """
    if transaction.hold(lease, pausing=True) != "held":
        return  # an earlier try was committed, and only its answer was lost
    curve = read_curve(transaction.connection, lease.trial_id)
    assert lease.until == len(curve), "a trial pauses at the epoch of its assignment"
    best, last = _figures(curve, transaction.study.spec)
    _tell_optuna(transaction, lease, Ending("PRUNED", "", setup, best, last), curve)
    at_rung = transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == lease.trial_id)
        .values(
            state="paused",
            checkpoint=checkpoint,
            # A grant that stays marks a trial that has not reached its rung (`grants.CUT`).
            granted=sa.case((grants.rung() == lease.until, None), else_=t.lease.c.granted),
        )
        .returning(t.lease.c.granted.is_(None))
    ).scalar_one()
    why = "" if at_rung else ": the budget of epochs reaches no further"
    transaction.add_event("trial paused", f"at epoch {len(curve)}{why}", lease.trial_id)


def resume(transaction: Transaction, trial_ids: Sequence[int]) -> None:
    """Make paused trials running again, in Optuna's tables and for workers that cache them."""
    reopen_trials(transaction.connection, trial_ids)
    _count_reopening(transaction)


def fail_attempt(transaction: Transaction, lease: Lease, reason: str) -> Sequel:
    """Record a failed attempt: the trial is tried again, fails for good, or trips the brake."""
    transaction.lock_study()
    _lock_failing(transaction, lease)
    if transaction.hold(lease) == "ended":
        return "failed"
    reason = storable(reason)[:REASON_LIMIT]
    transaction.add_event("attempt failed", reason, lease.trial_id)
    strikes = transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == lease.trial_id)
        .values(strikes=t.lease.c.strikes + 1)
        .returning(t.lease.c.strikes)
    ).scalar_one()
    verdict: Sequel = "again"
    if strikes >= transaction.study.spec.limits.attempts:
        fail_for_good(transaction, lease.trial_id, lease.token, reason)
        verdict = "failed"
    else:
        _release(transaction, lease.trial_id)
    return "paused" if _brake(transaction, reason) else verdict


def _lock_failing(transaction: Transaction, lease: Lease) -> None:
    """Lock the leases that the brake may change, in the usual order.

    A worker that renews several leases locks them in the same order; otherwise the two could
    deadlock.
    """
    failing = sa.select(t.event.c.trial_id).where(
        t.event.c.study_id == transaction.study.study_id, t.event.c.kind == "attempt failed"
    )
    transaction.connection.execute(
        sa.select(t.lease.c.trial_id)
        .where(
            t.lease.c.study_id == transaction.study.study_id,
            (t.lease.c.trial_id == lease.trial_id) | t.lease.c.trial_id.in_(failing),
        )
        .order_by(t.lease.c.trial_id)
        .with_for_update()
    )


def interrupt(transaction: Transaction, lease: Lease, reason: str) -> Sequel:
    """Release a trial whose trainer was killed from outside, without counting a failed attempt."""
    if transaction.hold(lease) == "ended":
        return "failed"
    transaction.add_event("interrupted", reason, lease.trial_id)
    verdict = count_interruption(transaction, lease.trial_id, transaction.worker_id)
    if verdict is not None:
        fail_for_good(transaction, lease.trial_id, lease.token, verdict)
        return "failed"
    _release(transaction, lease.trial_id)
    return "again"


def count_interruption(transaction: Transaction, trial_id: int, worker_id: int) -> str | None:
    """Count an interruption of a trial; return the reason to give it up, if there is one."""
    connection = transaction.connection
    host = connection.execute(
        sa.select(t.worker.c.host).where(t.worker.c.worker_id == worker_id)
    ).scalar_one_or_none()
    mine = t.lease.c.trial_id == trial_id
    hosts = set(connection.execute(sa.select(t.lease.c.hosts).where(mine)).scalar_one())
    hosts |= {host} if host is not None else set()
    count = connection.execute(
        sa.update(t.lease)
        .where(mine)
        .values(interruptions=t.lease.c.interruptions + 1, hosts=sorted(hosts))
        .returning(t.lease.c.interruptions)
    ).scalar_one()
    if count < INTERRUPTIONS and len(hosts) < HOSTS:
        return None
    machines = f"{len(hosts)} machines" if len(hosts) > 1 else "one machine"
    return (
        f"interrupted {count} times in a row on {machines}, without a new epoch: its worker or "
        "trainer was killed each time. If the trial itself is the cause (memory, a driver), "
        "change the study; if not, start the trial again with `tuner retry`"
    )


def fail_for_good(transaction: Transaction, trial_id: int, token: int, reason: str) -> None:
    """End a trial as FAILED; only `tuner retry` reopens it."""
    curve = read_curve(transaction.connection, trial_id)
    best, last = _figures(curve, transaction.study.spec)
    _keep_outcome(transaction, trial_id, token, Ending("FAILED", reason, None, best, last), curve)
    uploads.drop(transaction.connection, trial_id, but=NO_TOKEN)
    end_trial(transaction.connection, trial_id, TrialState.FAIL, None, {"reason": reason})
    _close_lease(transaction, trial_id)
    transaction.add_event("failed", reason, trial_id)


def give_back(transaction: Transaction, lease: Lease, why: str) -> None:
    """Release a trial at once, without counting an attempt."""
    if transaction.hold(lease) == "ended":
        return
    _release(transaction, lease.trial_id)
    transaction.add_event("given back", why, lease.trial_id)


def reopen(transaction: Transaction, trial_ids: Sequence[int], why: str) -> None:
    """Reopen failed trials under their own numbers, with their attempts reset."""
    if not trial_ids:
        return
    reopen_trials(transaction.connection, trial_ids)
    transaction.connection.execute(sa.delete(t.outcome).where(t.outcome.c.trial_id.in_(trial_ids)))
    transaction.connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id.in_(trial_ids))
        .values(state="released", strikes=0, interruptions=0, hosts=[])
    )
    _count_reopening(transaction)
    for trial_id in trial_ids:
        transaction.add_event("reopened", why, trial_id)


def _count_reopening(transaction: Transaction) -> None:
    """Invalidate the caches of workers that have these trials as ended."""
    transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id)
        .values(reopenings=t.study.c.reopenings + 1)
    )


def _brake(transaction: Transaction, reason: str) -> bool:
    """Pause the study if no trial has succeeded and several failed for the same reason."""
    spec = transaction.study.spec
    here = t.event.c.study_id == transaction.study.study_id
    opened = sa.select(t.study.c.opened).where(t.study.c.study_id == transaction.study.study_id)
    failures = transaction.connection.execute(
        sa.select(t.event.c.trial_id, t.event.c.text)
        .where(here, t.event.c.kind == "attempt failed")
        .where(t.event.c.happened > opened.scalar_subquery())
    ).all()
    alike = {row.trial_id for row in failures if row.text == reason}
    if len(alike) < min(BRAKE_TRIALS, spec.total_trials) or len(failures) < BRAKE_TRIALS:
        return False
    if {row.text for row in failures} != {reason} or _any_success(transaction):
        return False
    failed = transaction.connection.execute(
        sa.select(t.outcome.c.trial_id).where(
            t.outcome.c.trial_id.in_(alike), t.outcome.c.state == "FAILED"
        )
    ).scalars()
    reopen(transaction, list(failed), "the study is paused after repeated failures")
    message = f"{len(alike)} trials failed for the same reason, and none succeeded: {reason}"
    transaction.connection.execute(
        sa.update(t.lease).where(t.lease.c.trial_id.in_(alike)).values(strikes=0)
    )
    transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id)
        .values(state="paused", reason=message)
    )
    transaction.add_event("paused", message)
    return True


def _any_success(transaction: Transaction) -> bool:
    """Whether a trial is complete, pruned, or paused, so that its training works."""
    mine = t.trial.c.study_id == transaction.study.study_id
    ended = t.outcome.c.state.in_(["COMPLETE", "PRUNED"])
    row = transaction.connection.execute(
        sa.select(sa.literal(1))
        .select_from(
            t.trial.join(t.lease).outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id)
        )
        .where(mine, ended | (t.lease.c.state == "paused"))
        .limit(1)
    )
    return row.first() is not None


def _end(transaction: Transaction, lease: Lease, ending: Ending, curve: Sequence[Epoch]) -> None:
    _keep_outcome(transaction, lease.trial_id, lease.token, ending, curve)
    uploads.drop(transaction.connection, lease.trial_id, but=lease.token)
    _tell_optuna(transaction, lease, ending, curve)
    _close_lease(transaction, lease.trial_id)
    transaction.add_event(ending.state.lower(), ending.reason, lease.trial_id)


def _tell_optuna(
    transaction: Transaction, lease: Lease, ending: Ending, curve: Sequence[Epoch]
) -> None:
    spec = transaction.study.spec
    judged = ending.best if spec.search.at == "best" else ending.last
    # By Optuna's convention the value of a pruned trial is the last one reported.
    at = ending.last if ending.state == "PRUNED" else judged
    value = next((o.figure(spec.search.metric) for o in curve if at and o.epoch == at.epoch), None)
    end_trial(
        transaction.connection,
        lease.trial_id,
        TrialState[ending.state],
        value,
        _attributes(ending, judged, curve),
    )


def _attributes(
    ending: Ending, judged: Figures | None, curve: Sequence[Epoch]
) -> dict[str, Value | None]:
    attributes: dict[str, Value | None] = {
        # Without reused epochs, whose seconds were spent by the trial that trained them.
        "seconds": round(sum(epoch.seconds for epoch in curve if not epoch.reused), 3),
        "epochs": len(curve),
        "epochs_reused": sum(epoch.reused for epoch in curve) or None,
        "best_epoch": None if ending.best is None else ending.best.epoch,
        "reason": ending.reason or None,
        "diverged": True if ending.reason.startswith(DIVERGED) else None,
    }
    if ending.setup is not None:
        attributes |= {
            "device": ending.setup.device,
            "parameter_count": ending.setup.parameter_count,
        }
    if judged is not None:
        attributes |= {
            "epoch": judged.epoch,
            "train_acc": judged.train_acc,
            "val_acc": judged.val_acc,
            "test_acc": judged.test_acc,
            "test_loss": judged.test_loss,
            "gap": judged.gap,
        }
    return attributes


def _keep_outcome(
    transaction: Transaction, trial_id: int, token: int, ending: Ending, curve: Sequence[Epoch]
) -> None:
    figures: dict[str, object] = {}
    for prefix, judged in (("best_", ending.best), ("last_", ending.last)):
        if judged is not None:
            figures |= {prefix + name: figure for name, figure in asdict(judged).items()}
    setup = None
    if ending.setup is not None:
        # asdict cannot copy every Mapping.
        setup = asdict(replace(ending.setup, notes=dict(ending.setup.notes)))
    transaction.connection.execute(
        sa.insert(t.outcome).values(
            trial_id=trial_id,
            state=ending.state,
            reason=ending.reason,
            token=token,
            setup=setup,
            epochs_run=len(curve),
            epochs_reused=sum(epoch.reused for epoch in curve),
            seconds=sum(epoch.seconds for epoch in curve if not epoch.reused),
            seconds_alone=sum(epoch.seconds for epoch in curve),
            **figures,
        )
    )


def _figures(curve: Sequence[Epoch], spec: Spec) -> tuple[Figures | None, Figures | None]:
    """Return the figures of the best and the last epoch, for a trial without a final evaluation."""
    if not curve:
        return None, None
    metric, sign = spec.search.metric, 1.0 if spec.direction == "minimize" else -1.0
    # A diverged epoch is never the best one, even if its accuracy is finite.
    finite = [epoch for epoch in curve if epoch.is_finite(metric)]
    best = min(finite, key=lambda epoch: sign * epoch.figure(metric), default=None)
    return (None if best is None else Figures.of(best)), Figures.of(curve[-1])


def keep_dataset(connection: sa.Connection, data: Dataset) -> None:
    """Store labels, ids and patients unless an earlier trial stored the same data."""
    connection.execute(
        insert(t.dataset)
        .values(fingerprint=data.fingerprint, classes=list(data.classes), sizes=dict(data.sizes))
        .on_conflict_do_nothing()
    )
    # Always in the same order; otherwise two trials that complete at once could deadlock.
    for labels in sorted(data.labels, key=lambda each: each.split):
        if _has_labels(connection, data.fingerprint, labels):
            continue  # saves every further trial sending megabytes of ids
        statement = insert(t.label).values(
            fingerprint=data.fingerprint,
            split=labels.split,
            ids=list(labels.ids),
            labels=np.ascontiguousarray(labels.labels, dtype="<i8").tobytes(),
            patients=list(labels.patients),
        )
        # The fingerprint covers pixels and labels only. Patients may be added or corrected later
        # for the same images: the newest list wins; data without patients leave it as it is.
        newer = sa.func.jsonb_array_length(statement.excluded.patients) > 0
        unknown = t.label.c.patients.is_(None)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[t.label.c.fingerprint, t.label.c.split],
                set_={"patients": statement.excluded.patients},
                where=unknown | (newer & (t.label.c.patients != statement.excluded.patients)),
            )
        )


def _has_labels(connection: sa.Connection, fingerprint: str, labels: Labels) -> bool:
    """Whether these labels are stored with these patients (or with any, if none are given)."""
    stored = sa.func.md5(sa.cast(t.label.c.patients, sa.Text))
    digest = connection.execute(
        sa.select(stored).where(
            t.label.c.fingerprint == fingerprint, t.label.c.split == labels.split
        )
    ).scalar_one_or_none()
    # As the server writes JSON. If Python writes it differently, the labels are just sent again.
    written = json.dumps(list(labels.patients), ensure_ascii=False).encode()
    mine = hashlib.md5(written, usedforsecurity=False).hexdigest()
    return digest is not None and (digest == mine or not labels.patients)


def _keep_prediction(connection: sa.Connection, lease: Lease, predictions: Predictions) -> None:
    row = {
        "trial_id": lease.trial_id,
        "split": predictions.split,
        "moment": predictions.at,
        "classes": predictions.log_probabilities.shape[1],
    }
    for metric, values in predictions.resampled.items():
        connection.execute(
            sa.insert(t.resampled).values(
                trial_id=lease.trial_id,
                split=predictions.split,
                moment=predictions.at,
                metric=metric,
                content=np.ascontiguousarray(values, dtype="<f4").tobytes(),
            )
        )
    if uploads.is_large(predictions):
        uploads.check_whole(connection, lease, predictions)
        connection.execute(sa.insert(t.prediction).values(**row, token=lease.token))
        return
    content = np.ascontiguousarray(predictions.log_probabilities, dtype="<f4").tobytes()
    connection.execute(sa.insert(t.prediction).values(**row, log_probabilities=content))


def _release(transaction: Transaction, trial_id: int) -> None:
    transaction.connection.execute(
        sa.update(t.lease).where(t.lease.c.trial_id == trial_id).values(state="released")
    )


def _close_lease(transaction: Transaction, trial_id: int) -> None:
    transaction.connection.execute(
        sa.update(t.lease).where(t.lease.c.trial_id == trial_id).values(state="ended")
    )
