"""`tuner db` with the embedded server, and with a server given by its address."""

import json
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psycopg2
import pytest
from click.testing import CliRunner, Result

from tests.store.embedded_clients import Client, eventually, fresh_home, gone
from tuner.cli.db import db
from tuner.errors import DatabaseError, DatabaseUnreachableError, MachineError, UserError
from tuner.settings import Settings
from tuner.store.address import Address, parse
from tuner.store.embedded import server as embedded

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
"""The same as for `tuner`: a command remembers the names of its first use."""
ODD_PASSWORD = "p{}%@:/#?& ü'\"\\w"


def tuner(settings: Settings, *words: str) -> Result:
    """Run `tuner db WORDS` with these settings; tuner's own errors are raised."""

    @click.group(context_settings=HELP)
    @click.pass_context
    def cli(context: click.Context) -> None:
        context.obj = settings

    cli.add_command(db)
    result = CliRunner().invoke(cli, ["db", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def execute(address: Address, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements one by one; return the rows of the last."""
    keywords: dict[str, Any] = {**address.parameters}
    connection = psycopg2.connect("", **keywords)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture
def fresh() -> Iterator[Settings]:
    """Settings of an embedded database that does not exist yet."""
    with fresh_home() as home:
        yield Settings(home=home)


@pytest.fixture(scope="module")
def membership() -> Iterator[embedded.Membership]:
    """Settings of a membership in an embedded server that serves as the external one."""
    with fresh_home() as home, embedded.join(home) as membership:
        yield membership


@pytest.fixture
def server(membership: embedded.Membership) -> Iterator[Address]:
    """An empty database of a user whose password has special characters."""
    literal = ODD_PASSWORD.replace("'", "''")
    execute(
        membership.address,
        f"CREATE ROLE lab LOGIN PASSWORD '{literal}'",
        "CREATE DATABASE lab OWNER lab",
    )
    changes = {"user": "lab", "dbname": "lab", "password": ODD_PASSWORD}
    yield Address({**membership.address.parameters, **changes})
    execute(membership.address, "DROP DATABASE lab WITH (FORCE)", "DROP ROLE lab")


@pytest.fixture
def given(server: Address, tmp_path: Path) -> Settings:
    """Settings that name the server by a URL."""
    return Settings(home=tmp_path / "home", database_url=server.url(show_password=True))


def fill(address: Address, studies: int) -> None:
    """Create a table like Optuna's with this many studies, and one in our schema."""
    execute(
        address,
        "CREATE TABLE studies AS SELECT x, 'naïve' AS name "
        f"FROM generate_series(1, {studies}) AS x",
        "CREATE SCHEMA tuner",
        "CREATE TABLE tuner.epoch AS SELECT 1.5::float8 AS val_loss",
    )


def test_start_status_stop(fresh: Settings) -> None:
    """A started server runs without clients, reports its paths, and can be stopped."""
    assert not json.loads(tuner(fresh, "status", "--json").output)["running"]
    assert "was not running" in tuner(fresh, "stop").output
    assert str(fresh.home) in tuner(fresh, "start").output
    found = json.loads(tuner(fresh, "status", "--json").output)
    assert found["embedded"]
    assert found["running"]
    assert found["pinned"]
    assert found["clients"] == []
    assert found["data"].startswith(str(fresh.home))
    text = tuner(fresh, "status").output
    assert found["data"] in text
    assert found["binaries"] in text
    assert "has stopped" in tuner(fresh, "stop").output
    assert gone(fresh.home)


def test_stop_leaves_a_used_server_alone_unless_forced(fresh: Settings) -> None:
    """A server in use is not stopped without --force; the message names its users."""
    client = Client(fresh.home).joined()
    with pytest.raises(UserError, match=str(client.process.pid)):
        tuner(fresh, "stop")
    assert "has stopped" in tuner(fresh, "stop", "--force").output
    client.leave()


def test_url_hides_the_password_unless_asked(fresh: Settings) -> None:
    """`url --show-password` prints a working address; `url` alone hides the password."""
    tuner(fresh, "start")
    shown = parse(tuner(fresh, "url", "--show-password").output)
    assert execute(shown, "SELECT 1") == [(1,)]
    hidden = tuner(fresh, "url").output
    assert shown.parameters["password"] not in hidden
    assert ":***@" in hidden


def test_url_says_when_the_server_will_stop(fresh: Settings) -> None:
    """If the server will stop soon, `url` warns on standard error."""
    embedded.join(fresh.home).leave()
    result = tuner(fresh, "url")
    assert "tuner db start" in result.stderr
    assert "tuner db start" not in result.stdout
    eventually(lambda: gone(fresh.home))


def test_a_given_server_is_neither_started_nor_stopped(given: Settings) -> None:
    """The embedded server's commands are refused for a given server, and create no home."""
    for command in ("start", "stop"):
        with pytest.raises(UserError, match="external server is configured"):
            tuner(given, command)
    assert not given.home.exists()


def test_a_given_servers_status_and_url_hide_the_password(given: Settings) -> None:
    """Status and address of a given server are shown without its password."""
    found = json.loads(tuner(given, "status", "--json").output)
    assert (found["embedded"], found["running"], found["database"]) == (False, True, "lab")
    assert ":***@" in found["address"]
    assert ":***@" in tuner(given, "url").output
    assert parse(tuner(given, "url", "--show-password").output) == parse(given.database_url or "")


def test_an_unreachable_server_is_told_without_its_password(tmp_path: Path) -> None:
    """An unreachable server is named with its password masked, and the next step."""
    nowhere = f"postgresql://lab:hunter2@/lab?host={tmp_path}"
    with pytest.raises(DatabaseUnreachableError, match="cannot be reached") as caught:
        tuner(Settings(home=tmp_path, database_url=nowhere), "status")
    assert "hunter2" not in str(caught.value)


def test_psql_runs_with_the_given_arguments(
    given: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    """Arguments reach psql unchanged, its exit status comes back, passwords are not in argv."""
    assert tuner(given, "psql", "-X", "-At", "-c", "SELECT 6 * 7").return_value == 0
    assert capfd.readouterr().out == "42\n"
    shell = r"\! tr '\0' ' ' < /proc/$PPID/cmdline"
    if Path("/proc/self/cmdline").exists():
        tuner(given, "psql", "-X", "-c", shell)
        arguments = capfd.readouterr().out
        assert "--dbname=" in arguments
        assert "p{" not in arguments
    assert tuner(given, "psql", "-X", "-c", "SELECT nonsense").return_value == 1


@pytest.fixture
def by_file(server: Address, tmp_path: Path) -> Settings:
    """Settings whose URL has no password, and a file that has it, as in the compose file."""
    file = tmp_path / "password"
    file.write_text(ODD_PASSWORD + "\n", encoding="utf-8")
    without = {k: v for k, v in server.parameters.items() if k != "password"}
    return Settings(home=tmp_path / "home", database_url=Address(without).url(), password_file=file)


def test_every_command_takes_the_password_from_its_file(
    by_file: Settings, server: Address, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """status, url, dump, restore and psql reach the server as the workers do; argv is clean."""
    with pytest.raises(DatabaseUnreachableError, match="password"):
        tuner(replace(by_file, password_file=None), "status")
    assert json.loads(tuner(by_file, "status", "--json").output)["account"] == "lab"
    assert ":***@" in tuner(by_file, "url").output
    shown = parse(tuner(by_file, "url", "--show-password").output)
    assert shown.parameters["password"] == ODD_PASSWORD
    fill(server, 1)
    tuner(by_file, "dump", "-o", str(tmp_path / "d"))
    capfd.readouterr()
    shell = r"\! tr '\0' ' ' < /proc/$PPID/cmdline"
    assert tuner(by_file, "psql", "-X", "-q", "-c", shell).return_value == 0
    arguments = capfd.readouterr().out
    assert "--dbname=" in arguments
    assert "p{" not in arguments
    assert tuner(by_file, "psql", "-X", "-q", "-c", "DROP TABLE studies").return_value == 0
    tuner(by_file, "restore", str(tmp_path / "d"), "--yes")
    assert execute(server, "SELECT x FROM studies") == [(1,)]


def test_libpqs_own_variables_are_used(
    server: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PGHOST, its kin and a password file no other setting is needed."""
    escaped = ODD_PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passfile = tmp_path / "pass"
    passfile.write_text(f"*:*:lab:lab:{escaped}\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGHOST", server.parameters["host"])
    monkeypatch.setenv("PGDATABASE", "lab")
    monkeypatch.setenv("PGUSER", "lab")
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    settings = Settings(home=tmp_path / "home", libpq=True)
    assert json.loads(tuner(settings, "status", "--json").output)["account"] == "lab"
    fill(server, 1)
    tuner(settings, "dump", "-o", str(tmp_path / "d"))
    assert tuner(settings, "psql", "-X", "-q", "-c", "DROP TABLE studies").return_value == 0
    tuner(settings, "restore", str(tmp_path / "d"))
    assert execute(server, "SELECT x FROM studies") == [(1,)]


def test_init_makes_the_tables_once(given: Settings, server: Address) -> None:
    """init creates both schemas, also with special characters in the password, and only once."""
    for _ in range(2):
        assert "ready" in tuner(given, "init").output
    assert execute(server, "SELECT count(*) FROM studies") == [(0,)]
    assert execute(server, "SELECT 1 FROM pg_namespace WHERE nspname = 'tuner'") == [(1,)]


def test_dump_and_restore_carry_a_database_over(
    given: Settings, server: Address, fresh: Settings, tmp_path: Path
) -> None:
    """A given server's data is restored to the embedded one, and back over later changes."""
    fill(server, 3)
    file = tmp_path / "backup.dump"
    assert str(file) in tuner(given, "dump", "-o", str(file)).output
    assert list(tmp_path.iterdir()) == [file]
    tuner(fresh, "start")
    tuner(fresh, "restore", str(file))
    with embedded.join(fresh.home) as membership:
        query = "SELECT count(*), min(name) FROM studies"
        assert execute(membership.address, query) == [(3, "naïve")]
        assert execute(membership.address, "SELECT val_loss FROM tuner.epoch") == [(1.5,)]
    execute(server, "DELETE FROM studies WHERE x > 1", "CREATE TABLE tuner.newer (x int)")
    with pytest.raises(UserError, match=r"holds studies \(1\)"):
        tuner(given, "restore", str(file))
    tuner(given, "restore", "--yes", str(file))
    assert execute(server, "SELECT count(*) FROM studies") == [(3,)]
    assert execute(server, "SELECT to_regclass('tuner.newer')") == [(None,)]


def test_a_dump_goes_to_standard_output_when_asked(
    given: Settings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """`-o -` writes the dump and nothing else to standard output."""
    tuner(given, "dump", "-o", "-")
    assert capfdbinary.readouterr().out.startswith(b"PGDMP")


def test_a_failed_dump_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    """A failed dump leaves the old file unchanged."""
    file = tmp_path / "backup.dump"
    file.write_text("precious")
    nowhere = Settings(home=tmp_path, database_url=f"postgresql:///lab?host={tmp_path}")
    with pytest.raises(UserError, match=r"exists already.*--overwrite"):
        tuner(nowhere, "dump", "-o", str(file))
    with pytest.raises(DatabaseError, match="was not written"):
        tuner(nowhere, "dump", "-o", str(file), "--overwrite")
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(MachineError, match="cannot be written"):
        tuner(nowhere, "dump", "-o", str(file / "below"))


def test_a_dump_replaces_an_earlier_one_only_when_told(given: Settings, tmp_path: Path) -> None:
    """--overwrite replaces a dump, says so and keeps its permissions; a new one is private."""
    file = tmp_path / "backup.dump"
    tuner(given, "dump", "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("older")
    file.chmod(0o640)
    said = tuner(given, "dump", "-o", str(file), "--overwrite").output
    assert "The earlier file was replaced." in said
    assert file.read_bytes().startswith(b"PGDMP")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_dump_goes_through_a_fifo(given: Settings, tmp_path: Path) -> None:
    """`-o FIFO` writes the dump to the FIFO's reader, and the FIFO remains."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    tuner(given, "dump", "-o", str(fifo))
    reader.join(60)
    assert got[0].startswith(b"PGDMP")
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_file_that_is_no_dump_changes_nothing(
    given: Settings, server: Address, tmp_path: Path
) -> None:
    """An invalid file is refused before anything is dropped."""
    fill(server, 2)
    file = tmp_path / "notes.txt"
    file.write_text("not a dump")
    with pytest.raises(DatabaseError, match="was not changed"):
        tuner(given, "restore", "--yes", str(file))
    assert execute(server, "SELECT count(*) FROM studies") == [(2,)]


def commands() -> Sequence[str]:
    """Return the names of all commands of `tuner db`."""
    return sorted(db.commands)


@pytest.mark.parametrize("command", commands())
def test_every_help_text_ends_with_an_example(command: str) -> None:
    """Each help text of `tuner db` ends with an example to copy."""
    lines = CliRunner().invoke(db, [command, "--help"], **HELP).output.strip().splitlines()
    assert lines[-2].strip() == "Example:"
    assert lines[-1].strip().startswith(f"tuner db {command}")
