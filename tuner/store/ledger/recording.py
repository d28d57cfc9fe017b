"""Recording epochs: our row, Optuna's value and the pruner's decision, together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from tuner.records import Epoch
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease, LeaseLostError, Recorded
from tuner.store.ledger.promotion import Ladder
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import REPORTS, remove_reports, reports
from tuner.store.pruning import Decision, EpochJudge, Pruner
from tuner.text import storable

OUTPUT_LIMIT = 256 * 1024


@dataclass
class Progress:
    """The stored epochs of the leased trial: read once, then cached, as only we may write them."""

    epochs: dict[int, Epoch]
    curve: dict[int, float]
    """The study's metric by epoch."""
    decided: dict[int, bool]

    def before(self, first: int) -> "Progress":
        """Return the progress before epoch `first`."""
        return Progress(
            {number: epoch for number, epoch in self.epochs.items() if number < first},
            {number: value for number, value in self.curve.items() if number < first},
            {number: prune for number, prune in self.decided.items() if number < first},
        )


class Recorder:
    """Stores epochs of one trial after another."""

    def __init__(self, spec: Spec, title: str) -> None:
        self._metric = spec.search.metric
        self._pruner = Pruner(spec, title)
        self._ladder = Ladder.of(spec)
        self._judged_by_best = spec.search.at == "best"
        self._best = min if spec.direction == "minimize" else max
        self._held: tuple[int, int] | None = None
        self._progress = Progress({}, {}, {})

    def forget(self) -> None:
        """Drop the cache: a transaction was rolled back, or its answer was lost."""
        self._held = None

    def record(
        self, transaction: Transaction, lease: Lease, epochs: Sequence[Epoch], checkpoint: int
    ) -> Recorded:
        """Store new epochs in order, up to the one at which the trial must stop."""
        row = transaction.hold_row(lease)
        if row.state == "ended":
            raise LeaseLostError(f"trial {lease.number} has ended")
        # Before the pruner is asked, which must not see rungs of removed epochs.
        progress, free = self._of_one_training(transaction, lease, epochs)
        if free and row.granted is not None:
            # Reused epochs cost nothing, so they were not granted; now they must be trained too.
            # The trial is given back, and the next claim grants them if the budget has any left.
            _give_back(transaction, lease)
            self.forget()
            return Recorded()
        panel: EpochJudge | None = None
        new: list[Epoch] = []
        decisions: list[Decision] = []
        answer = Recorded()
        for epoch in epochs:
            if epoch.epoch not in progress.epochs:
                new.append(epoch)
                progress.epochs[epoch.epoch] = epoch
                progress.curve[epoch.epoch] = epoch.figure(self._metric)
            if not epoch.is_finite(self._metric):
                answer = Recorded(epoch.epoch, diverged=True)
                break
            if epoch.epoch not in progress.decided and self._pruner.asks(lease.seed, epoch.epoch):
                study_id = transaction.study.study_id
                panel = panel or self._pruner.panel(transaction.storage, study_id)
                decision = panel.decide(lease, progress.curve, epoch.epoch)
                decisions.append(decision)
                progress.decided[epoch.epoch] = decision.prune
            if progress.decided.get(epoch.epoch):
                answer = Recorded(epoch.epoch)
                break
        self._insert(transaction, lease, new, checkpoint)
        self._insert_rungs(transaction, lease, new)
        if new and (row.strikes or row.interruptions):
            _reset_setbacks(transaction, lease, new)
        _insert_decisions(transaction, lease, self._pruner.kind, decisions)
        return replace(answer, stored=len(new))

    def _progress_of(self, transaction: Transaction, lease: Lease) -> Progress:
        # While this token is the newest, only we write these rows.
        if self._held != (lease.trial_id, lease.token):
            stored = {
                epoch.epoch: epoch for epoch in read_curve(transaction.connection, lease.trial_id)
            }
            curve = {number: epoch.figure(self._metric) for number, epoch in stored.items()}
            self._progress = Progress(stored, curve, _stored_decisions(transaction, lease))
            self._held = (lease.trial_id, lease.token)
        return self._progress

    def _of_one_training(
        self, transaction: Transaction, lease: Lease, epochs: Sequence[Epoch]
    ) -> tuple[Progress, int]:
        """Remove the stored epochs from the first one whose reported figures now differ.

        Returns what is left, and how many of the removed epochs had been reused.

        A trainer that found no checkpoint of the stored epochs trains them again. With the same
        code, data and arithmetic their figures are reproduced, and they stay with their decisions.
        On another GPU or processor, or with other threads or versions, they are not: then this is
        another training, to which the rest of the stored curve does not belong. Figures are
        compared rather than descriptions of machines, because a description may omit what matters,
        and a GPU may not be deterministic; either would mix two trainings.

        This happens in the transaction that stores the first new epoch, behind the fence: a holder
        that dies before the commit has removed nothing, and a holder whose answer was lost finds
        its own epoch stored when it retries.
        """
        progress, reused = self._progress_of(transaction, lease), 0
        for epoch in epochs:
            stored = progress.epochs.get(epoch.epoch)
            if stored is not None and not epoch.has_figures_of(stored):
                reused = remove_epochs(transaction, lease.trial_id, epoch.epoch)
                self._progress = progress.before(epoch.epoch)
                break
        return self._progress, reused

    def _insert(
        self, transaction: Transaction, lease: Lease, new: Sequence[Epoch], checkpoint: int
    ) -> None:
        """Store our rows, Optuna's values and the line about a checkpoint in one statement.

        It is the most frequent statement of a fleet. The row lock of `hold` keeps all others from
        writing these rows.
        """
        text = f"at epoch {checkpoint}"
        if not new:
            # Without a new epoch, only the history shows whether an earlier try was committed.
            if checkpoint and not transaction.has_event("checkpoint", text, lease.trial_id):
                transaction.add_event("checkpoint", text, lease.trial_id)
            return
        trial = {"trial_id": lease.trial_id, "token": lease.token}
        values = {epoch.epoch: epoch.figure(self._metric) for epoch in new}
        trained = sum(not epoch.reused for epoch in new)
        worker = {"worker_id": transaction.worker_id, "trained": trained}
        rows = Rows(
            epochs=[{**asdict(epoch), **trial} for epoch in new],
            reports=reports(lease.trial_id, values),
            line=transaction.line("checkpoint", text, lease.trial_id) if checkpoint else {},
            worker=worker if trained else {},
        )
        _store(transaction.connection, rows)

    def _insert_rungs(self, transaction: Transaction, lease: Lease, new: Sequence[Epoch]) -> None:
        """Store the value by which the trial is compared at each rung that it has reached."""
        # Further seeds are for the race: they are trained to completion and not compared at rungs.
        if self._ladder is None or lease.seed > 0:
            return
        curve = self._progress.curve
        rows = [
            {"trial_id": lease.trial_id, "epoch": rung, "value": self._value(curve, rung)}
            for rung in (epoch.epoch for epoch in new if epoch.is_finite(self._metric))
            if rung in self._ladder.rungs
        ]
        if rows:
            transaction.connection.execute(sa.insert(t.rung), rows)

    def _value(self, curve: Mapping[int, float], rung: int) -> float:
        """Return the study's metric as it would be if the trial had ended at a rung."""
        if not self._judged_by_best:
            return curve[rung]
        return self._best(value for epoch, value in curve.items() if epoch <= rung)


def keep_output(connection: sa.Connection, lease: Lease, worker_id: int, text: str) -> None:
    """Store the end of what an attempt printed."""
    # A crashing program may print anything.
    stored = storable(text[-OUTPUT_LIMIT:])
    # The trial may be gone: `tuner delete` does not wait for its workers.
    exists = (
        sa.select(
            t.trial.c.trial_id, sa.literal(lease.token), sa.literal(worker_id), sa.literal(stored)
        )
        .where(t.trial.c.trial_id == lease.trial_id)
        .with_for_update(read=True, key_share=True)
    )
    connection.execute(
        insert(t.output)
        .from_select(["trial_id", "token", "worker_id", "text"], exists)
        .on_conflict_do_update(
            index_elements=[t.output.c.trial_id, t.output.c.token], set_={"text": stored}
        )
    )


def read_curve(connection: sa.Connection, trial_id: int) -> list[Epoch]:
    """Return a trial's stored epochs in order."""
    rows = connection.execute(
        sa.select(*(t.epoch.c[column.name] for column in fields(Epoch)))
        .where(t.epoch.c.trial_id == trial_id)
        .order_by(t.epoch.c.epoch)
    )
    return [Epoch(*row) for row in rows]


def remove_epochs(transaction: Transaction, trial_id: int, first: int) -> int:
    """Remove a trial's epochs from `first` on, with their decisions and reports.

    Returns how many of them had been reused from another trial.
    """
    connection = transaction.connection
    removed = connection.execute(
        sa.delete(t.epoch)
        .where(t.epoch.c.trial_id == trial_id, t.epoch.c.epoch >= first)
        .returning(t.epoch.c.epoch, t.epoch.c.reused)
    ).all()
    last = max(row.epoch for row in removed)
    reused = sum(bool(row.reused) for row in removed)
    connection.execute(_count(transaction.worker_id, reused - len(removed)))
    decisions = connection.execute(
        sa.delete(t.decision)
        .where(t.decision.c.trial_id == trial_id, t.decision.c.epoch >= first)
        .returning(t.decision.c.epoch, t.decision.c.saw)
    ).all()
    # Their values belong to the removed training; decisions based on them are not revised.
    connection.execute(
        sa.delete(t.rung).where(t.rung.c.trial_id == trial_id, t.rung.c.epoch >= first)
    )
    rungs = min(((row.epoch, row.saw.get("rungs", 0)) for row in decisions), default=None)
    remove_reports(connection, trial_id, first, None if rungs is None else rungs[1])
    # Only epochs beyond these count as progress: otherwise two kinds of machines that undo each
    # other's epochs would reset the trial's failed attempts forever.
    connection.execute(
        sa.update(t.lease)
        .where(t.lease.c.trial_id == trial_id)
        .values(removed_epochs=sa.func.greatest(t.lease.c.removed_epochs, last))
    )
    which = f"epoch {first} was" if first == last else f"epochs {first} to {last} were"
    transaction.add_event(
        "retrained",
        f"{which} removed: when trained again, epoch {first} had different figures "
        "(another machine, number of threads or version)",
        trial_id,
    )
    return reused


@dataclass(frozen=True)
class Rows:
    """The rows that one statement stores: values by column, or placeholders for them."""

    epochs: Sequence[Mapping[str, Any]]
    reports: Sequence[Mapping[str, Any]]
    """As many rows of Optuna's table."""
    line: Mapping[str, Any]
    """A line of the study's history, or empty."""
    worker: Mapping[str, Any]
    """The worker, and how many epochs it has trained; empty if none."""

    def named(self) -> dict[str, Mapping[str, Any]]:
        """Return the rows of one epoch by the prefix that keeps their names apart."""
        rows = {"epoch": self.epochs[0], "report": self.reports[0]}
        return {**rows, "line": self.line, "worker": self.worker}


TABLES = {"epoch": t.epoch, "report": REPORTS, "line": t.event, "worker": t.worker}


def _store(connection: sa.Connection, rows: Rows) -> None:
    """Store the rows; for one epoch, the usual case, the statement is built only once.

    Building it takes SQLAlchemy as long as the server takes to execute it.
    """
    if len(rows.epochs) > 1:
        connection.execute(_statement(rows))
        return
    named = rows.named()
    given = {
        f"{table}_{name}": value for table, row in named.items() for name, value in row.items()
    }
    connection.execute(_of_one_epoch(tuple((table, *row) for table, row in named.items())), given)


@cache
def _of_one_epoch(columns: tuple[tuple[str, ...], ...]) -> sa.Insert:
    """Return the statement with placeholders for values; there are four at most."""
    epoch, report, line, worker = (
        {name: sa.bindparam(f"{table}_{name}", type_=TABLES[table].c[name].type) for name in names}
        for table, *names in columns
    )
    return _statement(Rows([epoch], [report], line, worker))


def _statement(rows: Rows) -> sa.Insert:
    epochs, values = (
        several if len(several) > 1 else several[0] for several in (rows.epochs, rows.reports)
    )
    statement = sa.insert(t.epoch).values(epochs)
    statement = statement.add_cte(insert(REPORTS).values(values).on_conflict_do_nothing().cte())
    if rows.line:
        statement = statement.add_cte(sa.insert(t.event).values(rows.line).cte())
    if rows.worker:
        statement = statement.add_cte(_count(**rows.worker).cte())
    return statement


def _count(worker_id: Any, trained: Any) -> sa.Update:
    """Return the statement that adds to the number of epochs that the worker has stored.

    Counted per worker, so that no two wait for one row; a budget in epochs uses the sum.
    """
    mine = t.worker.c.worker_id == worker_id
    return sa.update(t.worker).where(mine).values(trained=t.worker.c.trained + trained)


def _give_back(transaction: Transaction, lease: Lease) -> None:
    transaction.connection.execute(
        sa.update(t.lease).where(t.lease.c.trial_id == lease.trial_id).values(state="released")
    )
    why = "reused epochs must be trained again, and the budget counts them"
    transaction.add_event("given back", why, lease.trial_id)


def _stored_decisions(transaction: Transaction, lease: Lease) -> dict[int, bool]:
    rows = transaction.connection.execute(
        sa.select(t.decision.c.epoch, t.decision.c.prune).where(
            t.decision.c.trial_id == lease.trial_id
        )
    )
    return {row.epoch: row.prune for row in rows}


def _reset_setbacks(transaction: Transaction, lease: Lease, new: Sequence[Epoch]) -> None:
    """Reset the counts of failures and interruptions, which end with any progress."""
    transaction.connection.execute(
        sa.update(t.lease)
        .where(
            t.lease.c.trial_id == lease.trial_id,
            t.lease.c.removed_epochs < max(epoch.epoch for epoch in new),
        )
        .values(strikes=0, interruptions=0, hosts=[])
    )


def _insert_decisions(
    transaction: Transaction, lease: Lease, kind: str, decisions: Sequence[Decision]
) -> None:
    if not decisions:
        return
    rows = [
        {
            "trial_id": lease.trial_id,
            "epoch": decision.epoch,
            "prune": decision.prune,
            "pruner": kind,
            "saw": dict(decision.saw),
        }
        for decision in decisions
    ]
    transaction.connection.execute(sa.insert(t.decision), rows)
