"""Create and migrate the database in one place: Optuna's tables, then ours.

Several processes may come at the same moment; creating Optuna's tables from
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
CREATION_LOCK = 0x7475_6E65_72  # "tuner", as a number


def ensure(database: Database) -> None:
    """Make the database ready: create or migrate it, or refuse one that is newer than we are."""
    with database.transaction() as connection:
        if _made_by_another_optuna(connection):
            _ensure_optuna(database)  # whose own look at its tables costs more
        if _current(connection) == t.REVISION:
            return  # the common case costs four statements and loads no Alembic
    with database.transaction() as connection:
        # Held to the end of this transaction; whoever waited finds the work done.
        connection.execute(sa.text("SET LOCAL lock_timeout = '120s'"))
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CREATION_LOCK)))
        current = _current(connection)
        if current == t.REVISION:
            return
        _refuse_newer(current)
        _ensure_optuna(database)
        _migrate(connection)


def _current(connection: sa.Connection) -> str | None:
    table = f"{t.SCHEMA}.{VERSION_TABLE}"
    present = connection.execute(sa.select(sa.func.to_regclass(table))).scalar()
    if present is None:
        return None
    rows = connection.execute(sa.text(f"SELECT version_num FROM {table}"))
    return rows.scalar()


def _refuse_newer(current: str | None) -> None:
    if current is None:
        return
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if current not in known:
        raise DatabaseNewerError(
            f"The database is at schema {current}, which this tuner does not know: "
            "it was written by a newer one. Upgrade tuner here, or use another database."
        )


def _made_by_another_optuna(connection: sa.Connection) -> bool:
    """Tell whether another Optuna made its tables; another major version's are refused.

    Major versions have shared one revision of the tables and written other things into them
    (times, between 4 and 5), so that the revision alone lets both in.
    """
    if connection.execute(sa.select(sa.func.to_regclass("version_info"))).scalar() is None:
        return False
    writer = connection.execute(sa.text("SELECT library_version FROM version_info")).scalar()
    here = version("optuna")
    theirs, ours = (int(str(one).split(".", 1)[0]) for one in (writer or here, here))
    if theirs > ours:
        raise DatabaseNewerError(
            f"Optuna {writer} made the tables of this database, and this is Optuna {here}. "
            f"Upgrade Optuna here (and tuner with it), or use another database."
        )
    if theirs < ours:
        raise DatabaseError(
            f"Optuna {writer} made the tables of this database, and this is Optuna {here}, which "
            "writes them differently. Save the database with `tuner db dump`, let all programs "
            "that use it end, and run `optuna storage upgrade --storage URL` with this Optuna; or "
            "use another database."
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
