"""The schema is created once, by the first process, and never by two at a time."""

import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage

from tests.conftest import QUICK
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.errors import DatabaseError, DatabaseNewerError
from tuner.settings import Settings, worker_environment
from tuner.spec.study import Replicates
from tuner.store import schema
from tuner.store import tables as t
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.store.embedded.binaries import MAJOR, locate
from tuner.store.ledger.leases import Claimed, Ended, NeedsLook
from tuner.store.ledger.looks import Decided


@pytest.fixture
def empty(server: Address, tmp_path: Any) -> Iterator[Database]:
    """Open a database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    execute(server, f"CREATE DATABASE {name}")
    with Database(Address({**server.parameters, "dbname": name})) as database:
        yield database
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def execute(address: Address, statement: str) -> None:
    """Run one statement outside of any transaction."""
    with Database(address) as database:
        engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))


def tables_of(database: Database) -> set[str]:
    """Return the names of all tables of both schemas."""
    inspector = sa.inspect(database.engine)
    ours = {f"{t.SCHEMA}.{name}" for name in inspector.get_table_names(t.SCHEMA)}
    return ours | set(inspector.get_table_names())


def test_migrations_make_exactly_the_tables(database: Database) -> None:
    """The migrations create exactly what tables.py declares."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name == t.SCHEMA
        return not (kind == "table" and name == schema.VERSION_TABLE)

    with database.transaction() as connection:
        # A server's user may be called tuner too; then PostgreSQL takes our schema for the default
        # one, and Alembic would leave it out.
        connection.dialect.default_schema_name = "public"
        options = {
            "include_schemas": True,
            "include_name": ours,
            "compare_type": True,
            "compare_server_default": True,
            "version_table": schema.VERSION_TABLE,
            "version_table_schema": t.SCHEMA,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, t.metadata) == []


def test_the_revision_is_the_newest_migration() -> None:
    """The program's schema revision is that of the newest migration."""
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(schema.MIGRATIONS)).get_current_head() == t.REVISION


def test_an_empty_database_gets_both_schemas(empty: Database) -> None:
    """Optuna's tables and ours are created; a second call changes nothing."""
    schema.ensure(empty)
    tables = tables_of(empty)
    assert {"studies", "trials", "tuner.study", "tuner.lease"} <= tables
    before = oids(empty)
    schema.ensure(empty)
    assert oids(empty) == before


def test_the_whole_schema_is_what_the_migrations_make(empty: Database, server: Address) -> None:
    """The script for empty databases gives the same tables, column order, triggers and versions.

    After a new migration or Optuna: GOLDEN=write pytest tests/store/test_schema.py -k whole
    """
    with empty.transaction() as connection:
        number = connection.execute(sa.text("SHOW server_version_num")).scalar_one()
        schema._ensure_optuna(empty)
        schema._migrate(connection)
    if int(number) // 10_000 != MAJOR:
        pytest.skip("the script is for the embedded server's version")
    about = schema.whole_is_for(MAJOR)
    expected = f"{about}\n{dumped(empty)}"
    if os.environ.get("GOLDEN") == "write":
        schema.WHOLE.write_text(expected)
    assert schema.WHOLE.read_text() == expected
    name = f"whole_{uuid.uuid4().hex[:12]}"
    execute(server, f"CREATE DATABASE {name}")
    with Database(Address({**server.parameters, "dbname": name})) as database:
        with database.transaction() as connection:
            assert schema._whole(connection) != ""
        schema.ensure(database)
        assert dumped(database) == dumped(empty)
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(
    "there",
    [
        "CREATE TABLE public.mine (id int)",
        "CREATE TYPE public.studydirection AS ENUM ('NOT_SET', 'MINIMIZE', 'MAXIMIZE')",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA tuner",
        "-- Optuna 4.9",
    ],
)
def test_the_whole_schema_is_for_empty_databases_of_this_version(
    there: str, empty: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If public or our schema has content, or the script is out of date, migrations run instead."""
    if there.startswith("--"):
        monkeypatch.setattr(schema, "WHOLE", tmp_path / "whole.sql")
        schema.WHOLE.write_text(f"{there}\nCREATE TABLE wrong (id int);\n")
    else:
        execute(empty.address, there)
    with empty.transaction() as connection:
        assert schema._whole(connection) == ""
    schema.ensure(empty)
    tables = tables_of(empty)
    assert {"studies", "tuner.study"} <= tables
    assert "wrong" not in tables


def dumped(database: Database) -> str:
    """Return a database as statements, without session settings."""
    known = database.address.parameters
    words = [locate().program("pg_dump"), "--no-owner", "--no-privileges", "--inserts"]
    words += ["--no-comments", f"--host={known['host']}", f"--port={known['port']}"]
    text = subprocess.run(
        [*words, f"--username={known['user']}", known["dbname"]],
        env={**os.environ, "PGPASSWORD": known.get("password", "")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    others = ("SET ", "--", "\\", "SELECT pg_catalog.set_config")
    kept = [line for line in text.splitlines() if line and not line.startswith(others)]
    return "\n".join(kept) + "\n"


def oids(database: Database) -> list[tuple[Any, ...]]:
    """Return the oid of every table: if recreated it would have another."""
    query = "SELECT oid, relfilenode FROM pg_class WHERE relkind = 'r' ORDER BY oid"
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_five_processes_at_once_succeed(empty: Database, tmp_path: Any) -> None:
    """Five processes on an empty database all succeed, and the schema is complete."""
    url = empty.address.url(show_password=True)
    settings = Settings(home=tmp_path / "home", database_url=url, timing=QUICK)
    code = (
        "import os, sys\nfrom tuner.settings import from_environment\n"
        "from tuner.store import schema\nfrom tuner.store.database import Database\n"
        "import tuner.store.optuna_storage\n"
        "with Database.open(from_environment(os.environ)) as database:\n"
        "    database.check(); print('ready', flush=True); sys.stdin.readline()\n"
        "    schema.ensure(database)\n"
    )
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=worker_environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(5)
    ]
    for process in crew:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in crew:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[1].decode() for process in crew]
    assert [process.returncode for process in crew] == [0] * 5, said
    assert "tuner.event" in tables_of(empty)
    with empty.transaction() as connection:
        table = f"{t.SCHEMA}.{schema.VERSION_TABLE}"
        rows = connection.execute(sa.text(f"SELECT version_num FROM {table}")).all()
    assert [row[0] for row in rows] == [t.REVISION]


def test_a_newer_database_is_refused(database: Database) -> None:
    """A database with an unknown schema is left alone, with a message what to do."""
    with database.transaction() as connection:
        table = f"{t.SCHEMA}.{schema.VERSION_TABLE}"
        connection.execute(sa.text(f"UPDATE {table} SET version_num = '9999'"))
    with pytest.raises(DatabaseNewerError, match=r"9999(.|\n)*Upgrade"):
        schema.ensure(database)


def test_a_newer_optuna_is_refused(empty: Database) -> None:
    """Unknown Optuna tables are refused before ours are created."""
    from tuner.store.optuna_storage import create_tables

    create_tables(empty)
    with empty.transaction() as connection:
        connection.execute(sa.text("UPDATE version_info SET schema_version = 99"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v99.0.0.a'"))
    with pytest.raises(DatabaseNewerError, match="Optuna"):
        schema.ensure(empty)
    assert not any(name.startswith("tuner.") for name in tables_of(empty))


def test_a_creation_that_breaks_leaves_no_half_schema(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle of our migrations rolls all back; the next attempt succeeds."""
    original = schema._migrate

    def broken(connection: sa.Connection) -> None:
        original(connection)
        raise RuntimeError("power cut")

    monkeypatch.setattr(schema, "_migrate", broken)
    monkeypatch.setattr(schema, "_whole", lambda _: "")
    with pytest.raises(RuntimeError):
        schema.ensure(empty)
    assert not any(name.startswith("tuner.") for name in tables_of(empty))
    monkeypatch.undo()
    schema.ensure(empty)
    assert "tuner.lease" in tables_of(empty)


def test_a_script_that_breaks_leaves_nothing(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script for empty databases is one transaction too."""
    script = schema.WHOLE.read_text() + "SELECT 1 / 0;"
    monkeypatch.setattr(schema, "_whole", lambda _: script)
    with pytest.raises(sa.exc.DataError):
        schema.ensure(empty)
    assert tables_of(empty) == set()


def test_an_older_database_is_migrated_with_its_rows(empty: Database) -> None:
    """Trials stored under the first schema stay; figures not measured then are unknown."""
    migrate_to(empty, "0001")
    with empty.transaction() as connection:
        for statement in FIRST_SCHEMA_ROWS:
            connection.execute(sa.text(statement))
    schema.ensure(empty)
    with empty.transaction() as connection:
        row = connection.execute(sa.select(t.epoch)).one()
        assert (row.val_acc, math.isnan(row.val_seconds)) == (0.8, True)
        ended = connection.execute(sa.select(t.outcome)).one()
        assert (ended.best_val_acc, ended.best_test_auc) == (0.8, None)
        assert (ended.epochs_run, ended.epochs_reused, ended.seconds) == (1, 0, 1.0)


def test_epochs_are_counted_before_the_tables_are_locked(empty: Database) -> None:
    """In a large database counting takes minutes, during which workers continue."""
    migrate_to(empty, "0001")
    with empty.transaction() as connection:
        for statement in FIRST_SCHEMA_ROWS:
            connection.execute(sa.text(statement))
        for pid in (1, 2):
            values = f"(1, 'here', {pid}, 'cpu')"
            connection.execute(
                sa.text(f"INSERT INTO tuner.worker (study_id, host, pid, device) VALUES {values}")
            )
    told: list[str] = []

    def listen(*given: Any) -> None:
        told.append(given[2])

    sa.event.listen(empty.engine, "before_cursor_execute", listen)
    schema.ensure(empty)
    (counting,) = [place for place, text in enumerate(told) if "FROM tuner.epoch JOIN" in text]
    (locking,) = [place for place, text in enumerate(told) if "ADD COLUMN trained" in text]
    assert counting < locking
    with empty.transaction() as connection:
        rows = connection.execute(sa.select(t.worker.c.trained).order_by(t.worker.c.worker_id))
        assert list(rows.scalars()) == [1, 0]


SINCE_0002 = (
    ("DROP FUNCTION tuner.announce_inserted, tuner.announce_of_trials, tuner.announce_row CASCADE"),
    "DROP TABLE tuner.look",
    "DROP TABLE tuner.identity",
    "DROP TABLE tuner.queued",
    "ALTER TABLE tuner.label DROP COLUMN patients",
    (
        "ALTER TABLE tuner.lease DROP COLUMN interruptions, DROP COLUMN hosts, "
        "DROP COLUMN removed_epochs, DROP COLUMN stretches, DROP COLUMN checkpoint, "
        "DROP COLUMN granted"
    ),
    (
        "ALTER TABLE tuner.study DROP COLUMN reopenings, DROP COLUMN tags, DROP COLUMN archived, "
        "DROP COLUMN note, DROP COLUMN priority"
    ),
    "ALTER TABLE tuner.event DROP COLUMN who",
    "DROP TABLE tuner.session, tuner.link, tuner.token, tuner.account",
    "DROP TABLE tuner.fleet",
    "DROP TABLE tuner.resampled",
    "DROP TABLE tuner.rung, tuner.stretch",
    "DROP TABLE tuner.piece",
    "DROP TABLE tuner.upload",
    ("ALTER TABLE tuner.prediction DROP COLUMN token, ALTER COLUMN log_probabilities SET NOT NULL"),
    "ALTER TABLE tuner.epoch DROP COLUMN own",
    "ALTER TABLE tuner.outcome DROP COLUMN best_own, DROP COLUMN last_own",
    (
        "ALTER TABLE tuner.outcome DROP COLUMN epochs_run, DROP COLUMN epochs_reused, "
        "DROP COLUMN seconds, DROP COLUMN seconds_alone"
    ),
    (
        "ALTER TABLE tuner.worker DROP COLUMN load, DROP COLUMN trained, "
        "DROP COLUMN device_seconds, "
        "DROP COLUMN price_per_hour, DROP COLUMN tally"
    ),
    "DROP TABLE tuner.notice, tuner.hook",
    "DROP INDEX tuner.event_rare",
    f"UPDATE tuner.{schema.VERSION_TABLE} SET version_num = '0002'",
    "DROP INDEX tuner.event_by_trial, tuner.trial_by_seed",
)
"""Reverts the current schema to the second migration; every later one adds a line."""


def test_a_study_stored_before_races_goes_on_after_the_migration(empty: Database) -> None:
    """Half of its replicates were trained under the former schema: none counts as dropped.

    Looks that were due then are taken now, and no trial has been interrupted or reopened.
    """
    schema.ensure(empty)
    spec = replace(make_spec(), replicates=Replicates(5, "top", 2))
    bench = Bench.launch(empty, spec)
    worker = bench.worker()
    for _ in range(6):
        finish(worker, claim_trial(worker))
    with empty.transaction() as connection:
        for statement in SINCE_0002:
            connection.execute(sa.text(statement))
    schema.ensure(empty)
    assert [row.trained for row in bench.rows(t.worker)] == [6 * 3], "they count in a budget"
    later = bench.worker()
    while not isinstance(answer := later.claim(None, adopt=True), Ended):
        if isinstance(answer, NeedsLook):
            assert later.decide(Decided(answer.look, ()))
        elif isinstance(answer, Claimed):
            finish(later, answer.lease)
    pairs = {(row.configuration, row.seed) for row in bench.rows(t.trial)}
    assert pairs == {(c, 0) for c in range(3)} | {(c, s) for c in (0, 1) for s in range(1, 5)}
    assert bench.state() == "complete"


def test_labels_stored_before_patients_keep_unknown_patients(empty: Database) -> None:
    """NULL (unknown) is not the empty list of data without patients."""
    migrate_to(empty, "0003")
    with empty.transaction() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO tuner.dataset (fingerprint, classes, sizes) VALUES ('d', '[]', '{}');"
                "INSERT INTO tuner.label (fingerprint, split, ids, labels) "
                "VALUES ('d', 'val', '[]', '')"
            )
        )
    schema.ensure(empty)
    with empty.transaction() as connection:
        assert connection.execute(sa.select(t.label.c.patients)).scalars().all() == [None]


FIRST_SCHEMA_ROWS = (
    (
        "INSERT INTO tuner.study (study_id, name, version, spec, fingerprint, state, provenance) "
        "VALUES (1, 's', 1, '{}', 'f', 'open', '{}')"
    ),
    (
        "INSERT INTO tuner.trial (trial_id, study_id, number, configuration, seed, chosen) "
        "VALUES (1, 1, 0, 0, 0, '{}')"
    ),
    (
        "INSERT INTO tuner.epoch (trial_id, epoch, token, train_loss, train_nll, train_acc, "
        "val_loss, val_acc, val_auc, val_balanced_acc, lr, seconds, reused) "
        "VALUES (1, 1, 1, 1, 1, 0.7, 1, 0.8, 0.9, 0.8, 0.1, 1, false)"
    ),
    (
        "INSERT INTO tuner.outcome (trial_id, state, token, best_epoch, best_val_acc) "
        "VALUES (1, 'COMPLETE', 1, 1, 0.8)"
    ),
)


def migrate_to(database: Database, revision: str) -> None:
    """Migrate an empty database to an older schema of ours."""
    from alembic import command
    from alembic.config import Config

    from tuner.store.optuna_storage import create_tables

    create_tables(database)
    with database.transaction() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {t.SCHEMA}"))
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes.update(
            connection=connection,
            version_table=schema.VERSION_TABLE,
            version_table_schema=t.SCHEMA,
        )
        command.upgrade(config, revision)


@pytest.mark.parametrize(
    ("writer", "kind", "advice"),
    [
        ("4.6.0", DatabaseError, "optuna storage upgrade"),
        ("99.0.1", DatabaseNewerError, "Upgrade Optuna here"),
    ],
)
def test_tables_of_another_optuna_are_refused(
    database: Database, writer: str, kind: type[DatabaseError], advice: str
) -> None:
    """Another major version is named with what to do, before anything is read or written."""
    with database.transaction() as connection:
        connection.execute(sa.text(f"UPDATE version_info SET library_version = '{writer}'"))
    with pytest.raises(kind, match=advice) as caught:
        schema.ensure(database)
    assert type(caught.value) is kind
    assert f"Optuna {writer} created the tables" in str(caught.value)


def test_tables_of_a_later_revision_are_refused(database: Database) -> None:
    """Within one major version the revision of the tables decides."""
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE version_info SET library_version = '5.99.0'"))
    schema.ensure(database)
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v5.99.0.a'"))
    with pytest.raises(DatabaseNewerError, match="do not fit Optuna"):
        schema.ensure(database)


def test_optunas_own_upgrade_lets_its_tables_in_again(database: Database) -> None:
    """The upgrade that the message recommends works."""
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE version_info SET library_version = '4.6.0'"))
    with pytest.raises(DatabaseError, match="optuna storage upgrade"):
        schema.ensure(database)
    storage = RDBStorage(database.address.url(show_password=True).replace("://", "+psycopg2://", 1))
    storage.upgrade()
    storage.engine.dispose()
    schema.ensure(database)
