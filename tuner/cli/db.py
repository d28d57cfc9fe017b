"""`tuner db`: managing the database, embedded or external."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.errors import DatabaseError, DatabaseUnreachableError, UserError
from tuner.settings import Settings

if TYPE_CHECKING:
    import psycopg2

    from tuner.store.address import Address


PRIVATE = 0o600
"""Permissions of a new dump, which contains everything in the database."""


@click.group(epilog=options.examples("tuner db status"))
def db() -> None:
    """Manage the database, embedded or external."""


@db.command(epilog=options.examples("tuner db start"))
@click.pass_obj
def start(settings: Settings) -> None:
    """Start the embedded server and keep it running without clients.

    Otherwise it starts with the first tuner process and stops with the last.
    """
    from tuner.store.embedded import server as embedded

    _embedded_only(settings, "started")
    with embedded.start(settings.home):
        server_status = embedded.status(settings.home)
    echo(
        f"The database in {server_status.data} is running (PID {server_status.pid}) until you "
        "call `tuner db stop`."
    )


@db.command(epilog=options.examples("tuner db stop"))
@click.option("--force", is_flag=True, help="Stop it even if processes use it.")
@click.pass_obj
def stop(settings: Settings, force: bool) -> None:
    """Stop the embedded server, unless it is in use."""
    from tuner.store.embedded import server as embedded

    _embedded_only(settings, "stopped")
    stopped = embedded.stop(settings.home, force)
    echo("The database has stopped." if stopped else "The database was not running.")


@db.command(epilog=options.examples("tuner db status --json"))
@options.json_option
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """Show the state of the database and where it is."""
    facts = _embedded_facts(settings) if settings.embedded else _server_facts(settings)
    if as_json:
        echo_json(facts, indent=2)
        return
    for name, value in facts.items():
        echo(f"{name.replace('_', ' ') + ':':<15}{_spoken(value)}")


@db.command(epilog=options.examples("tuner db url --show-password"))
@click.option("--show-password", is_flag=True, help="Show the password.")
@click.pass_obj
def url(settings: Settings, show_password: bool) -> None:
    """Print the database's address for other programs.

    The password is shown only with --show-password.
    """
    with _reach(settings) as address:
        echo(address.url(show_password))
    if settings.embedded and not (settings.home / "pinned").exists():
        echo(
            "The embedded server runs only while tuner does; `tuner db start` keeps it running.",
            err=True,
        )


@db.command(epilog=options.examples("tuner db init"))
@click.pass_obj
def init(settings: Settings) -> None:
    """Create the tables in the database, or bring them up to date."""
    from tuner.store import schema
    from tuner.store.database import Database

    with Database.open(settings, create=True) as database:
        schema.ensure(database)
    echo("The database is ready.")


@db.command(
    epilog=options.examples("tuner db psql -c 'SELECT count(*) FROM trials'"),
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def psql(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Open the database in psql.

    ARGUMENTS are passed to psql unchanged.
    """
    with _reach(context.obj) as address, _interrupts_left_to_the_child():
        code = _program("psql", [f"--dbname={_conninfo(address)}", *arguments], address)
    context.exit(code)


@db.command(epilog=options.examples("tuner db dump -o backup.dump"))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write; - is standard output. Default: tuner-DATE-TIME.dump.",
)
@options.overwrite_option
@click.pass_obj
def dump(settings: Settings, output: Path | None, *, overwrite: bool) -> None:
    """Dump the whole database to a file.

    The file is written atomically. An existing file is replaced only with
    --overwrite.
    """
    from tuner.files import check_output, open_special, whole_file

    target = output or Path(f"tuner-{datetime.now(UTC):%Y%m%d-%H%M%S}.dump")
    if str(target) == "-":
        target = Path("/dev/stdout")
    replace = check_output(target, overwrite=overwrite)
    with _reach(settings) as address, open_special(target) as special:
        form = ["--format=custom", "--no-owner", "--no-privileges"]
        words = [*form, f"--dbname={_conninfo(address)}"]
        if special is not None:
            _must("pg_dump", words, address, "No usable dump was written.", output=special)
            return
        with whole_file(target, replace=replace, mode=PRIVATE) as draft:
            _must("pg_dump", [*words, f"--file={draft}"], address, f"{target} was not written.")
    said = f"The database was saved in {target} ({target.stat().st_size:,} bytes)."
    echo(f"{said} The earlier file was replaced." if replace else said)


@db.command(epilog=options.examples("tuner db restore backup.dump"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Replace the studies in the database.")
@click.pass_obj
def restore(settings: Settings, file: Path, yes: bool) -> None:
    """Restore the database from a FILE written by `tuner db dump`.

    Refuses if the database holds studies (--yes replaces them) or if workers
    or other tuner programs are connected to it. Everything happens in one
    transaction. Trials that were running when the dump was made are resumed
    by the next workers.
    """
    with _reach(settings, create=True) as address:
        studies = _count_studies(address)
        if studies and not yes:
            raise UserError(
                f"The database {address.masked} holds studies ({studies}), which {file} "
                "would replace. Back them up with `tuner db dump` and pass --yes."
            )
        sessions = _count_sessions(address)
        if studies and sessions:
            raise UserError(
                f"Other tuner programs are connected to the database {address.masked} ({sessions} "
                "connections): workers, a dashboard or other commands. Their work would be lost. "
                "Stop them first (`tuner stop STUDY` stops workers), then restore again."
            )
        _replace(address, file)
    echo(f"The database was restored from {file}.")


def _replace(address: "Address", file: Path) -> None:
    """Convert the dump to a script, and drop the schema and run the script in one transaction.

    The whole schema is dropped, because a newer version may have tables
    that are not in the dump and would conflict with it.
    """
    kept = "The database was not changed."
    with tempfile.TemporaryDirectory(prefix="tuner-restore-") as folder:
        script, first, last = (Path(folder, f"{part}.sql") for part in ("dump", "first", "last"))
        first.write_text(
            "SET client_min_messages = warning;\nDROP SCHEMA IF EXISTS tuner CASCADE;\n"
        )
        last.write_text(_DISMISS_WORKERS)
        form = ["--clean", "--if-exists", "--no-owner", "--no-privileges", f"--file={script}"]
        _must("pg_restore", [*form, str(file)], address, kept)
        once = ["-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "--output=/dev/null"]
        files = [f"--file={path}" for path in (first, script, last)]
        _must("psql", [*once, *files, f"--dbname={_conninfo(address)}"], address, kept)


_DISMISS_WORKERS = """
-- Workers from before the restore may still be alive: cut off, frozen, or waiting for the
-- database to come back. Sequences are reset to their values at the dump, so a new worker, trial
-- or lease could get the number of one that they hold. Nothing they hold may be valid: every lease
-- is released under a new token, every worker is marked as ended, and the numbers of new workers
-- start far from all earlier ones, so that no lease of a new worker matches one of an old worker.
-- (A write needs the trial, the token and the worker of its lease.)
DO $$
BEGIN
  IF to_regclass('tuner.lease') IS NULL OR to_regclass('tuner.worker') IS NULL THEN
    RETURN;  -- not a database of tuner's
  END IF;
  INSERT INTO tuner.event (study_id, trial_id, kind, text)
    SELECT study_id, trial_id, 'given back', 'the database was restored from a dump'
    FROM tuner.lease WHERE state = 'held';
  UPDATE tuner.lease SET state = 'released', token = token + 1 WHERE state = 'held';
  UPDATE tuner.worker SET ended = clock_timestamp() WHERE ended IS NULL;
  PERFORM setval(
    pg_get_serial_sequence('tuner.worker', 'worker_id'),
    nextval(pg_get_serial_sequence('tuner.worker', 'worker_id')) + (random() * 1e9)::bigint
  );
END $$;
"""


def _embedded_only(settings: Settings, done: str) -> None:
    if not settings.embedded:
        raise UserError(
            "An external server is configured (--database, TUNER_DATABASE_URL or libpq's "
            f"variables), and it cannot be {done} by tuner. Unset these to use the embedded "
            "database."
        )


@contextmanager
def _reach(settings: Settings, *, create: bool = False) -> Iterator["Address"]:
    """Give the address of the database; an embedded server is kept running inside."""
    from tuner.store import address
    from tuner.store.database import require
    from tuner.store.embedded import server as embedded

    with ExitStack() as stack:
        if settings.embedded:
            if not create:
                require(settings)
            yield stack.enter_context(embedded.join(settings.home)).address
        else:
            yield address.of_server(settings)


@contextmanager
def _connected(address: "Address") -> Iterator["psycopg2.extensions.connection"]:
    import psycopg2

    keywords: dict[str, Any] = {"connect_timeout": "10", **address.parameters}
    try:
        connection = psycopg2.connect("", **keywords)
    except psycopg2.OperationalError as error:
        raise DatabaseUnreachableError(
            f"The database {address.masked} cannot be reached. Check the address, and that the "
            "server is running and accepts connections from this machine. Server message: "
            f"{str(error).strip()}"
        ) from error
    try:
        yield connection
    finally:
        connection.close()


def _embedded_facts(settings: Settings) -> dict[str, object]:
    from tuner.store.embedded import server as embedded

    found = asdict(embedded.status(settings.home))
    facts = {k: str(v) if isinstance(v, Path) else v for k, v in found.items()}
    return {"embedded": True, **facts}


def _server_facts(settings: Settings) -> dict[str, object]:
    with _reach(settings) as address, _connected(address) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), current_database(), current_user, "
                "pg_database_size(current_database())"
            )
            version, database, user, size = cursor.fetchone() or ("", "", "", 0)
        return {
            "embedded": False,
            "running": True,
            "address": address.masked,
            "version": version,
            "database": database,
            "account": user,
            "bytes_on_disk": size,
        }


def _spoken(value: object) -> str:
    """Format a fact for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    return "none" if value is None else str(value)


def _count_studies(address: "Address") -> int:
    with _connected(address) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('studies')")
        if (cursor.fetchone() or (None,))[0] is None:
            return 0
        cursor.execute("SELECT count(*) FROM studies")
        return int((cursor.fetchone() or (0,))[0])


def _count_sessions(address: "Address") -> int:
    """Count the sessions of tuner's programs, as far as this user may see them."""
    with _connected(address) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND application_name LIKE 'tuner%%'"
        )
        return int((cursor.fetchone() or (0,))[0])


def _conninfo(address: "Address") -> str:
    """Return the address for a program's arguments, which everyone can read: without secrets."""
    from psycopg2.extensions import make_dsn

    from tuner.store.address import SECRET_OPTIONS

    open_ones = {k: v for k, v in address.parameters.items() if k not in SECRET_OPTIONS}
    return make_dsn(**{"application_name": "tuner db", **open_ones})


def _program(
    name: str, words: list[str], address: "Address", output: BinaryIO | None = None
) -> int:
    """Run a PostgreSQL program with the password in its environment; return its exit status."""
    from tuner.store.embedded.binaries import locate

    password = address.parameters.get("password")
    # The rest of the environment is passed on unread: terminal, pager, libpq's variables.
    environ = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    command = [locate().program(name), *words]
    return subprocess.run(command, env=environ, stdout=output, check=False).returncode


def _must(
    name: str,
    words: list[str],
    address: "Address",
    otherwise: str,
    output: BinaryIO | None = None,
) -> None:
    """Run a program; if it fails, which it explains on stderr, raise a DatabaseError."""
    if _program(name, words, address, output) != 0:
        raise DatabaseError(f"{name} failed; see its output above. {otherwise}")


@contextmanager
def _interrupts_left_to_the_child() -> Iterator[None]:
    """Let Ctrl-C cancel psql's query, not us; unlike SIG_IGN, a handler is not inherited."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
