"""Recording epochs: our row, Optuna's value and the pruner's decision, together."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tuner.records import Epoch
from tuner.spec.study import Spec
from tuner.store.ledger.leases import Lease, LeaseLostError, Recorded
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import report
from tuner.store.pruning import Decision, Pruner
from tuner.store.tables import decision, epoch, lease, output, trial
from tuner.text import storable

OUTPUT_LIMIT = 256 * 1024


@dataclass
class Progress:
    """What is stored of the held trial: read once, then kept while nobody else may write it."""

    curve: dict[int, float]
    """The study's metric by epoch."""
    decided: dict[int, bool]


class Recorder:
    """Stores epochs of one trial after another."""

    def __init__(self, spec: Spec, title: str) -> None:
        self._metric = spec.search.metric
        self._pruner = Pruner(spec, title)
        self._held: tuple[int, int] | None = None
        self._progress = Progress({}, {})

    def forget(self) -> None:
        """Read anew what is stored: a transaction was rolled back, or its answer was lost."""
        self._held = None

    def record(self, transaction: Transaction, held: Lease, epochs: Sequence[Epoch]) -> Recorded:
        """Store epochs that are new, in order, up to the one at which the trial is to stop."""
        if transaction.hold(held) == "ended":
            raise LeaseLostError(f"trial {held.number} has ended")
        progress = self._progress_of(transaction, held)
        panel = self._pruner.panel(transaction.storage, transaction.study.study_id)
        new: list[Epoch] = []
        decisions: list[Decision] = []
        answer = Recorded()
        for one in epochs:
            if one.epoch not in progress.curve:
                new.append(one)
                progress.curve[one.epoch] = one.figure(self._metric)
            if not _finite(one, progress.curve[one.epoch]):
                answer = Recorded(one.epoch, diverged=True)
                break
            if one.epoch not in progress.decided and self._pruner.asks(held.seed, one.epoch):
                made = panel.decide(held, progress.curve, one.epoch)
                decisions.append(made)
                progress.decided[one.epoch] = made.prune
            if progress.decided.get(one.epoch):
                answer = Recorded(one.epoch)
                break
        self._insert(transaction, held, new, decisions)
        return answer

    def _progress_of(self, transaction: Transaction, held: Lease) -> Progress:
        # While this token is the newest, no one but us writes these rows.
        if self._held != (held.trial_id, held.token):
            self._progress = Progress(
                _stored_curve(transaction, held, self._metric), _stored_decisions(transaction, held)
            )
            self._held = (held.trial_id, held.token)
        return self._progress

    def _insert(
        self,
        transaction: Transaction,
        held: Lease,
        new: Sequence[Epoch],
        decisions: Sequence[Decision],
    ) -> None:
        values = {one.epoch: one.figure(self._metric) for one in new}
        report(transaction.connection, held.trial_id, values)
        _insert_epochs(transaction, held, new)
        _insert_decisions(transaction, held, self._pruner.kind, decisions)


def keep_output(connection: sa.Connection, held: Lease, worker_id: int, text: str) -> None:
    """Keep the end of what an attempt printed."""
    # A crashed program may print anything.
    kept = storable(text[-OUTPUT_LIMIT:])
    # The trial may be gone: `tuner delete` does not wait for its workers.
    there = (
        sa.select(trial.c.trial_id, sa.literal(held.token), sa.literal(worker_id), sa.literal(kept))
        .where(trial.c.trial_id == held.trial_id)
        .with_for_update(read=True, key_share=True)
    )
    connection.execute(
        insert(output)
        .from_select(["trial_id", "token", "worker_id", "text"], there)
        .on_conflict_do_update(
            index_elements=[output.c.trial_id, output.c.token], set_={"text": kept}
        )
    )


def _finite(one: Epoch, value: float) -> bool:
    # As the trainer sees it (train/run.py, is_finite): it ends a trial that diverged.
    return all(math.isfinite(it) for it in (one.train_loss, one.train_nll, one.val_loss, value))


def _stored_curve(transaction: Transaction, held: Lease, metric: str) -> dict[int, float]:
    rows = transaction.connection.execute(
        sa.select(epoch.c.epoch, epoch.c[metric])
        .where(epoch.c.trial_id == held.trial_id)
        .order_by(epoch.c.epoch)
    )
    return {int(row[0]): float(row[1]) for row in rows}


def _stored_decisions(transaction: Transaction, held: Lease) -> dict[int, bool]:
    rows = transaction.connection.execute(
        sa.select(decision.c.epoch, decision.c.prune).where(decision.c.trial_id == held.trial_id)
    )
    return {row.epoch: row.prune for row in rows}


def _insert_epochs(transaction: Transaction, held: Lease, kept: Sequence[Epoch]) -> None:
    if not kept:
        return
    rows = [{**asdict(one), "trial_id": held.trial_id, "token": held.token} for one in kept]
    transaction.connection.execute(sa.insert(epoch), rows)
    # Progress: attempts count only when they follow one another without any.
    transaction.connection.execute(
        sa.update(lease)
        .where(lease.c.trial_id == held.trial_id, lease.c.strikes > 0)
        .values(strikes=0)
    )


def _insert_decisions(
    transaction: Transaction, held: Lease, kind: str, decisions: Sequence[Decision]
) -> None:
    if not decisions:
        return
    rows = [
        {
            "trial_id": held.trial_id,
            "epoch": made.epoch,
            "prune": made.prune,
            "pruner": kind,
            "saw": dict(made.saw),
        }
        for made in decisions
    ]
    transaction.connection.execute(sa.insert(decision), rows)
