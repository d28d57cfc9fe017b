"""Create and migrate the database in one place: Optuna's tables, then ours.

Several processes may arrive at the same moment; creating Optuna's tables from
five at once failed three times in three, so everything happens under one
advisory lock.
"""

from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from tuner.errors import DatabaseError, DatabaseNewerError
from tuner.store import tables as t
from tuner.store.database import Database

VERSION_TABLE = "schema_version"
MIGRATIONS = Path(__file__).parent / "migrations"
WHOLE = MIGRATIONS / "whole.sql"
CREATION_LOCK = 0x7475_6E65_72  # "tuner", as a number


def ensure(database: Database) -> None:
    """Create or migrate the database's tables; refuse a database newer than this program."""
    with database.transaction() as connection:
        if _is_from_another_optuna(connection):
            _ensure_optuna(database)  # Optuna's own check of its tables is slower
        if _current(connection) == t.REVISION:
            return  # the common case takes four statements and does not load Alembic
    with database.transaction() as connection:
        # Held until this transaction ends; a process that waited finds the work done.
        connection.execute(sa.text("SET LOCAL lock_timeout = '120s'"))
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        # Indexing the events of a large database may exceed the usual limit of a minute.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
        current = _current(connection)
        if current == t.REVISION:
            return
        _refuse_newer(current)
        if current is None and (script := _whole(connection)):
            # The driver must not interpret % in it as parameters.
            connection.exec_driver_sql(script, execution_options={"no_parameters": True})
            return
        _ensure_optuna(database)
        _migrate(connection)


def _current(connection: sa.Connection) -> str | None:
    table = f"{t.SCHEMA}.{VERSION_TABLE}"
    present = connection.execute(sa.select(sa.func.to_regclass(table))).scalar()
    if present is None:
        return None
    rows = connection.execute(sa.text(f"SELECT version_num FROM {table}"))
    return rows.scalar()


def _whole(connection: sa.Connection) -> str:
    """Return the script that creates all tables of an empty database; empty if it does not apply.

    It is pg_dump's output after Optuna and the migrations have created their tables, and a test
    compares it with them. It saves half a second, most of which is spent loading Alembic. With
    another Optuna or another major version of the server, or if the schema public is not empty
    (dropped tables leave their enum types, say), tables are created step by step.
    """
    about, _, script = WHOLE.read_text().partition("\n")
    number = connection.execute(sa.text("SHOW server_version_num")).scalar_one()
    if about != whole_is_for(int(number) // 10_000):
        return ""
    empty = sa.text(
        "SELECT NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = 'public' AND ("
        "EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid) "
        "OR EXISTS (SELECT FROM pg_type WHERE typnamespace = n.oid) "
        "OR EXISTS (SELECT FROM pg_proc WHERE pronamespace = n.oid))) "
        f"AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{t.SCHEMA}')"
    )
    return script if connection.execute(empty).scalar_one() else ""


def whole_is_for(server: int) -> str:
    """Return the first line of a script for this Optuna, our revision, and a server's version."""
    return f"-- Optuna {version('optuna')}, revision {t.REVISION}, PostgreSQL {server}"


def _refuse_newer(current: str | None) -> None:
    if current is None:
        return
    from alembic.script import ScriptDirectory

    revisions = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if current not in revisions:
        raise DatabaseNewerError(
            f"The database has schema {current}, which this tuner does not know: it was written "
            "by a newer version. Upgrade tuner here, or use another database."
        )


def _is_from_another_optuna(connection: sa.Connection) -> bool:
    """Return whether another Optuna version made its tables; raise for another major version.

    Major versions 4 and 5 share a revision of the tables but store times differently, so the
    revision alone would accept both.
    """
    if connection.execute(sa.select(sa.func.to_regclass("version_info"))).scalar() is None:
        return False
    writer = connection.execute(sa.text("SELECT library_version FROM version_info")).scalar()
    here = version("optuna")
    theirs, ours = (int(str(one).split(".", 1)[0]) for one in (writer or here, here))
    if theirs > ours:
        raise DatabaseNewerError(
            f"Optuna {writer} created the tables of this database, and this is Optuna {here}. "
            f"Upgrade Optuna here (and tuner with it), or use another database."
        )
    if theirs < ours:
        raise DatabaseError(
            f"Optuna {writer} created the tables of this database, and this is Optuna {here}, "
            "which writes them differently. Save the database with `tuner db dump`, stop all "
            "programs that use it, and run `optuna storage upgrade --storage URL` with this "
            "Optuna; or use another database."
        )
    return bool(writer != here)


def _ensure_optuna(database: Database) -> None:
    from tuner.store.optuna_storage import create_tables

    create_tables(database)


def _migrate(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {t.SCHEMA}"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes.update(
        connection=connection, version_table=VERSION_TABLE, version_table_schema=t.SCHEMA
    )
    command.upgrade(config, "head")
