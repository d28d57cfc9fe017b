"""What a person may do to a stored study: stop it, or retry its failed trials."""

from collections.abc import Sequence

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.store import identities, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import endings
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import Binding
from tuner.store.studies import Study

NOBODY = 0
"""The worker id of actions taken on the command line."""


def retry(database: Database, binding: Binding, study: Study, numbers: Sequence[int]) -> list[int]:
    """Reopen failed trials under their own numbers, all or those listed; return their numbers."""
    with database.transaction() as connection, binding.within(connection) as storage:
        transaction = Transaction(connection, storage, study, NOBODY)
        transaction.lock_study()
        failed = _failed(connection, study)
        wrong = sorted(set(numbers) - set(failed))
        if wrong:
            listed = ", ".join(map(str, wrong))
            have = ", ".join(map(str, sorted(failed))) or "none"
            raise UserError(
                f"Only failed trials can be retried; these did not fail: {listed}. "
                f"Failed trials of {study.title}: {have}."
            )
        chosen = sorted(numbers or failed)
        endings.reopen(transaction, [failed[number] for number in chosen], "retried")
        identities.reset(connection, study.study_id)
        if chosen or study.state != "complete":
            _open(transaction)
        return chosen


def stop(database: Database, study: Study) -> None:
    """Ask all workers of a study, on every machine, to finish their epoch and leave."""
    with database.transaction() as connection:
        studies.set_state(connection, study, "stopped", "Stopped by `tuner stop`.")


def _failed(connection: sa.Connection, study: Study) -> dict[int, int]:
    rows = connection.execute(
        sa.select(t.trial.c.number, t.trial.c.trial_id)
        .select_from(t.trial.join(t.outcome))
        .where(t.trial.c.study_id == study.study_id, t.outcome.c.state == "FAILED")
    )
    return {row.number: row.trial_id for row in rows}


def _open(transaction: Transaction) -> None:
    transaction.connection.execute(
        sa.update(t.study)
        .where(t.study.c.study_id == transaction.study.study_id)
        .values(state="open", reason="", opened=sa.func.clock_timestamp())
    )
