"""The connection: which errors count as an outage, and for how long one is waited out."""

import re
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from tenacity.stop import stop_after_attempt

from tests.store.specs import Bench, claim_trial, make_curve, optuna_trials
from tuner.errors import DatabaseError, DatabaseUnreachableError
from tuner.store import database as stored
from tuner.store.address import Address
from tuner.store.database import Database, is_outage, patiently

CUT = psycopg2.OperationalError("server closed the connection unexpectedly")


def wrapped(error: Exception) -> Exception:
    """Wrap a cause as Optuna's storage does."""
    outer = StorageInternalError("An exception is raised during the commit.")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OperationalError("x", {}, CUT), True),
        (DBAPIError("x", {}, psycopg2.InterfaceError("connection already closed")), True),
        (DBAPIError("x", {}, psycopg2.DatabaseError("error with status PGRES_TUPLES_OK")), True),
        (OperationalError("x", {}, psycopg2.errors.DeadlockDetected()), True),
        (OperationalError("x", {}, psycopg2.errors.LockNotAvailable()), True),
        (sa.exc.PendingRollbackError("x"), True),
        (wrapped(OperationalError("x", {}, CUT)), True),
        (IntegrityError("x", {}, psycopg2.errors.UniqueViolation()), False),
        (ProgrammingError("x", {}, psycopg2.errors.UndefinedTable()), False),
        (wrapped(IntegrityError("x", {}, psycopg2.errors.UniqueViolation())), False),
        (ValueError("x"), False),
    ],
)
def test_an_outage_is_told_from_a_fault(error: Exception, passes: bool) -> None:
    """Lost connections and lost races are retried; faults of ours are not."""
    assert is_outage(error) is passes


def test_work_is_tried_again_until_it_passes() -> None:
    """Outages are waited out, each is reported, and the result is returned."""
    told: list[BaseException] = []
    tries = iter([OperationalError("x", {}, CUT), wrapped(OperationalError("x", {}, CUT)), None])

    def work() -> str:
        error = next(tries)
        if error is not None:
            raise error
        return "done"

    assert patiently(work, stop=stop_after_attempt(9), before_sleep=told.append) == "done"
    assert len(told) == 2


@pytest.mark.parametrize("state", ["53100", "53200", "54000", "57014", "25P03"])
def test_a_stubborn_refusal_is_tried_a_few_times_only(
    database: Database, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A full disk or a timeout is retried a few times, but not like an outage."""
    monkeypatch.setattr(stored, "STUBBORN_TRIES", 3)
    tries: list[BaseException] = []

    def work() -> None:
        with database.transaction() as connection:
            raised = f"RAISE EXCEPTION 'no room for %', 7 USING ERRCODE = '{state}'"
            connection.exec_driver_sql(f"DO $$ BEGIN {raised}; END $$".replace("%", "%%"))

    with pytest.raises(DBAPIError) as caught:
        patiently(work, stop=stop_after_attempt(50), before_sleep=tries.append)
    assert len(tries) == 2
    assert not is_outage(caught.value)
    assert database.words(caught.value) == f"no room for 7 (SQLSTATE {state})"


def test_faults_are_not_tried_again() -> None:
    """Permanent errors are raised at once, unchanged."""
    tries = []

    def work() -> None:
        tries.append(1)
        raise IntegrityError("x", {}, psycopg2.errors.UniqueViolation())

    with pytest.raises(IntegrityError):
        patiently(work, stop=stop_after_attempt(9), before_sleep=lambda _: None)
    assert len(tries) == 1


def test_a_cut_pool_heals(database: Database) -> None:
    """Connections that died in the pool are replaced without an error."""
    with database.transaction() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    with Database(database.address) as other, other.transaction() as killer:
        killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with database.transaction() as connection:
        assert connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_an_unreachable_server_is_explained_without_the_password(server: Address) -> None:
    """The error names the address and the next step; the password is not in it."""
    nowhere = {"host": "127.0.0.1", "port": "1", "user": "me", "password": "s3cret", "dbname": "x"}
    with (
        Database(Address(nowhere)) as database,
        pytest.raises(DatabaseUnreachableError, match="tuner db status") as caught,
    ):
        database.check()
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(database.engine)


def test_a_refusal_is_no_outage(database: Database) -> None:
    """A refused statement is distinguished from a missing answer."""
    with pytest.raises(DBAPIError) as caught, database.transaction() as connection:
        connection.execute(sa.text("SELECT * FROM nowhere"))
    explained = database.explain(caught.value)
    assert type(explained) is DatabaseError


def test_connections_carry_their_timeouts(database: Database) -> None:
    """The server has our timeouts, so a frozen peer cannot block us for ever."""
    with database.transaction() as connection:
        for name in ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout"):
            assert connection.execute(sa.text(f"SHOW {name}")).scalar_one() != "0"


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores options", "refuses options"])
def test_a_pooler_without_our_settings_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    """If PgBouncer drops or refuses `options`, the error lists the settings for the role."""
    connect = psycopg2.connect

    def pooled(dsn: str, **arguments: Any) -> Any:
        if arguments.pop("options", None) and refuses:
            raise psycopg2.OperationalError("FATAL:  unsupported startup parameter: options")
        return connect(dsn, **arguments)

    with monkeypatch.context() as patch, Database(database.address) as behind:
        patch.setattr(psycopg2, "connect", pooled)
        with pytest.raises(DatabaseError) as caught:
            behind.check()
    statements = re.findall(r"ALTER ROLE .*;", str(caught.value))
    assert len(statements) == len(stored.SERVER_SIDE)
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    # With the settings from the message the pooler works.
    monkeypatch.setattr(psycopg2, "connect", pooled)
    with Database(database.address) as behind, behind.transaction() as connection:
        for name, value in stored.SERVER_SIDE.items():
            assert connection.execute(sa.text(f"SHOW {name}")).scalar_one() == value


def test_a_rolled_back_trial_leaves_no_phantom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's storage forgets everything from a rolled-back transaction."""
    worker = bench.worker()
    held = claim_trial(worker)

    def add_and_break() -> None:
        with (
            bench.database.transaction() as connection,
            worker.binding.within(connection) as storage,
        ):
            storage.create_new_trial(bench.study.study_id)
            raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError):
        add_and_break()
    assert [one.number for one in optuna_trials(worker)] == [held.number]
    worker.record(held, make_curve(0.5))
    assert claim_trial(bench.worker()).number == 1
