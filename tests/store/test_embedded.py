"""The embedded server's life: who starts it, who keeps it, and when it stops."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from tests.store.embedded_clients import (
    CODE,
    Client,
    eventually,
    fresh_home,
    gone,
    server_pid,
    servers,
)
from tuner.errors import DatabaseError, MachineError, UserError
from tuner.home import make as make_home
from tuner.store.address import Address
from tuner.store.embedded import cluster
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import server as embedded
from tuner.store.embedded.places import Places


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that does not exist yet."""
    with fresh_home() as home:
        yield home


def places_of(home: Path) -> Places:
    """Return the places of a home that is already settled."""
    places = embedded_places.find(home)
    assert places is not None
    return places


def query(address: Address, statement: str) -> str:
    """Return the value of a statement on a separate connection."""
    keywords: dict[str, Any] = {**address.parameters}
    connection = psycopg2.connect("", **keywords)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return str((cursor.fetchone() or ("",))[0])
    finally:
        connection.close()


def test_first_join_makes_a_database_and_the_last_leave_stops_it(home: Path) -> None:
    """A new database is UTF-8 with our settings, and its server stops after the last client."""
    with embedded.join(home) as membership:
        assert query(membership.address, "SHOW server_encoding") == "UTF8"
        assert query(membership.address, "SHOW listen_addresses") == ""
        assert query(membership.address, "SHOW max_connections") == "200"
        assert query(membership.address, "SHOW fsync") == "on"
        assert embedded.status(home).running
    eventually(lambda: gone(home))
    assert (home / ".gitignore").read_text() == "*\n"


def test_what_was_written_is_there_at_the_next_start(home: Path) -> None:
    """Leaving and joining again finds the same data under the same password."""
    with embedded.join(home) as membership:
        query(membership.address, "CREATE TABLE t AS SELECT 7 AS x; SELECT 1")
    eventually(lambda: gone(home))
    with embedded.join(home) as membership:
        assert query(membership.address, "SELECT x FROM t") == "7"


def test_joining_while_the_server_shuts_down_gives_a_running_one(home: Path) -> None:
    """A client that joins while the last one leaves still gets a running server."""
    with embedded.join(home):
        stopping = subprocess.Popen(
            [sys.executable, "-c", _STOP, home], cwd=CODE, stdout=subprocess.PIPE
        )
        eventually(lambda: not server_pid(home))
        with embedded.join(home) as membership:
            assert query(membership.address, "SELECT 1") == "1"
        stopping.communicate()
        assert stopping.returncode == 0


_STOP = """
import sys
from pathlib import Path
from tuner.store.embedded import server as embedded
embedded.stop(Path(sys.argv[1]), force=True)
"""


def test_simultaneous_first_starts_give_one_server(home: Path) -> None:
    """Four processes without a server end up with one server and one keeper."""
    clients = [Client(home) for _ in range(4)]
    for client in clients:
        client.joined()
    assert servers(places_of(home).data) == {server_pid(home)}
    assert set(embedded.status(home).clients) == {client.process.pid for client in clients}
    for client in clients[:3]:
        client.leave()
    with embedded.join(home) as membership:
        assert query(membership.address, "SELECT 1") == "1"
        clients[3].leave()
    eventually(lambda: gone(home))


def test_the_starters_death_neither_stops_nor_leaks_the_server(home: Path) -> None:
    """kill -9 of the starter does not affect the others; the last one to leave stops the server."""
    starter = Client(home).joined()
    other = Client(home).joined()
    before = server_pid(home)
    starter.kill()
    with embedded.join(home) as membership:
        assert query(membership.address, "SELECT 1") == "1"
    assert server_pid(home) == before
    other.kill()
    eventually(lambda: gone(home))


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(home: Path) -> None:
    """SIGINT and SIGHUP to the starter's group and session do not reach the server."""
    client = Client(home, start_new_session=True).joined()
    keeper = psutil.Process(embedded.status(home).keeper)
    for process in (keeper, psutil.Process(server_pid(home))):
        assert os.getpgid(process.pid) != client.process.pid
        assert os.getsid(process.pid) != client.process.pid
        assert process.cwd() != str(CODE)
    with embedded.join(home) as membership:
        os.killpg(client.process.pid, signal.SIGINT)
        client.process.communicate()
        assert query(membership.address, "SELECT 1") == "1"
        assert keeper.is_running()


def test_a_keepers_death_is_mended_by_the_next_client(home: Path) -> None:
    """A new keeper adopts the running server, and still stops it in the end."""
    client = Client(home).joined()
    before, keeper = server_pid(home), embedded.status(home).keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: embedded.status(home).keeper is None)
    with embedded.join(home) as membership:
        assert query(membership.address, "SELECT 1") == "1"
        assert server_pid(home) == before
        assert embedded.status(home).keeper not in (None, keeper)
        client.leave()
    eventually(lambda: gone(home))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another account")
@pytest.mark.skipif(shutil.which("capsh") is None, reason="capsh is missing (libcap2-bin)")
def test_root_of_a_container_finds_a_server_whose_keeper_died(home: Path) -> None:
    """Without CAP_SYS_PTRACE a running server counts as running, is adopted, and is stopped."""
    limited = ["capsh", "--drop=cap_sys_ptrace", "--", "-c", 'exec "$@"', "capsh"]
    done = subprocess.run(
        [*limited, sys.executable, "-c", _KEEPER_KILLED, home],
        cwd=CODE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert gone(home)


_KEEPER_KILLED = """
import os, signal, sys, time
from pathlib import Path
import psutil
from tuner.store.embedded import server as embedded

home = Path(sys.argv[1])

def kill_keeper():
    before = embedded.status(home)
    os.kill(before.keeper, signal.SIGKILL)
    psutil.Process(before.keeper).wait(20)
    return before.pid

with embedded.join(home):
    pid = kill_keeper()
    assert pid, "the running server was not found"
    try:
        psutil.Process(pid).cwd()
    except psutil.AccessDenied:
        pass
    else:
        sys.exit("the capability was not dropped")
    assert embedded.status(home).running
    with embedded.join(home):
        assert embedded.status(home).pid == pid
        assert embedded.status(home).keeper
    kill_keeper()
assert embedded.stop(home)
assert not embedded.status(home).running
"""


def test_a_server_without_a_keeper_can_be_stopped(home: Path) -> None:
    """`stop` finds a server without its keeper."""
    client = Client(home).joined()
    keeper = embedded.status(home).keeper
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    client.leave()
    eventually(lambda: embedded.status(home).keeper is None)
    assert server_pid(home)
    assert embedded.stop(home)
    assert gone(home)


def test_a_server_that_dies_is_started_again(home: Path) -> None:
    """kill -9 of the server ends the sessions, and the database is started again."""
    with embedded.join(home) as membership:
        before = server_pid(home)
        query(membership.address, "CREATE TABLE t AS SELECT 7 AS x; SELECT 1")
        os.kill(before, signal.SIGKILL)
        eventually(lambda: server_pid(home) not in (0, before))
        with embedded.join(home) as again:
            assert query(again.address, "SELECT x FROM t") == "7"


def test_a_stale_pid_file_with_a_reused_pid_is_recognised(home: Path) -> None:
    """A pid file that names another program's process stops no one."""
    with embedded.join(home):
        places = places_of(home)
        lines = (places.data / "postmaster.pid").read_text().splitlines()
    eventually(lambda: gone(home))
    with subprocess.Popen(["sleep", "60"], **_as_server(places)) as sleeper:
        text = "\n".join([str(sleeper.pid), *lines[1:]]) + "\n"
        (places.data / "postmaster.pid").write_text(text)
        lock = places.socket_file.with_name(places.socket_file.name + ".lock")
        lock.write_text(text)
        assert not embedded.status(home).running
        with embedded.join(home) as membership:
            assert query(membership.address, "SELECT 1") == "1"
            assert server_pid(home) not in (0, sleeper.pid)
        assert sleeper.poll() is None
        sleeper.kill()


def _as_server(places: Places) -> dict[str, Any]:
    """Run as the server's account, so that PostgreSQL cannot distinguish it from a server."""
    return {"user": places.account.uid} if places.account else {}


def test_pinning_keeps_the_server_until_it_is_stopped(home: Path) -> None:
    """A pinned server outlives its last client until it is stopped; its log stays bounded."""
    embedded.start(home).leave()
    before, log = server_pid(home), places_of(home).log
    with log.open("a") as file:
        file.write("x" * 6_000_000)
    # The shortened log shows that the keeper has looked, and found no client.
    eventually(lambda: log.stat().st_size < 1_000_000)
    assert log.with_name("server.log.1").stat().st_size > 6_000_000
    with embedded.join(home):
        assert server_pid(home) == before
    assert embedded.status(home).pinned
    assert embedded.stop(home)
    assert gone(home)
    assert not embedded.stop(home)
    assert not embedded.status(home).pinned


def test_stop_names_those_who_still_use_the_server(home: Path) -> None:
    """A server in use is stopped only with force."""
    client = Client(home).joined()
    with pytest.raises(UserError, match=str(client.process.pid)):
        embedded.stop(home)
    assert server_pid(home)
    assert embedded.stop(home, force=True)
    assert gone(home)
    client.leave()


def test_programs_that_a_client_starts_do_not_hold_the_server(home: Path) -> None:
    """A child program that outlives its parent does not count as a client."""
    with embedded.join(home):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    eventually(lambda: gone(home))
    child.kill()
    child.wait()


def test_data_of_another_major_version_are_refused_with_advice(home: Path) -> None:
    """The message names the version, the folder and the way to upgrade."""
    with embedded.join(home):
        data = places_of(home).data
    eventually(lambda: gone(home))
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(DatabaseError, match=r"PostgreSQL 15(?s:.*)tuner db dump") as caught:
        embedded.join(home)
    assert str(data) in str(caught.value)
    (data / "PG_VERSION").write_text("18\n")


def test_a_failed_start_shows_the_end_of_the_log(home: Path) -> None:
    """The error has PostgreSQL's message and the log's path; once the cause is fixed it starts."""
    with embedded.join(home):
        places = places_of(home)
    eventually(lambda: gone(home))
    settings = places.data / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "\nno_such_setting = 1\n")
    with pytest.raises(DatabaseError, match="no_such_setting") as caught:
        embedded.join(home)
    assert str(places.log) in str(caught.value)
    settings.write_text(good)
    embedded.join(home).leave()


def test_a_failed_first_start_leaves_nothing_half_made(home: Path) -> None:
    """If initdb fails there is no data folder, and the next start is a first start."""
    make_home(home)
    places = embedded_places.settle(home)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)"
    done = subprocess.run(
        [sys.executable, "-c", limit + _JOIN, home],
        cwd=CODE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "initdb failed" in done.stderr
    assert not places.data.exists()
    assert not list(places.root.glob("draft-*"))
    embedded.join(home).leave()


def test_files_are_synced_one_by_one_where_the_file_system_cannot_be_synced(home: Path) -> None:
    """If syncing the whole file system fails, files are synced one by one."""
    make_home(home)
    places = embedded_places.settle(home)
    program, tried = places.root / "initdb", places.root / "tried"
    program.write_text(
        f'#!/bin/sh\necho "$1 $2" >> {tried}\n[ "$2" = --sync-method=fsync ] || exit 1\n'
    )
    program.chmod(0o755)
    cluster._sync([str(program), "--sync-only"], places)
    assert tried.read_text().splitlines()[-1] == "--sync-only --sync-method=fsync"
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(MachineError, match="initdb failed"):
        cluster._sync([str(program), "--sync-only"], places)


_JOIN = """
import sys
from pathlib import Path
from tuner.errors import TunerError
from tuner.store.embedded import server as embedded
try:
    embedded.join(Path(sys.argv[1]))
except TunerError as error:
    sys.exit(str(error))
"""


def test_a_lost_password_file_is_replaced(home: Path) -> None:
    """If the password file is deleted, the next start sets a new password.

    Either one has 192 random bits, so that connecting need not be made slow against guesses.
    """
    kept = "SELECT rolpassword FROM pg_authid WHERE rolname = current_user"
    with embedded.join(home) as membership:
        old = membership.address.parameters["password"]
        assert re.fullmatch(r"[0-9a-f]{48}", old)
        assert query(membership.address, kept).startswith("SCRAM-SHA-256$1:")
    eventually(lambda: gone(home))
    places_of(home).password_file.unlink()
    with embedded.join(home) as membership:
        new = membership.address.parameters["password"]
        assert new != old
        assert re.fullmatch(r"[0-9a-f]{48}", new)
        assert query(membership.address, kept).startswith("SCRAM-SHA-256$1:")


def test_nobody_without_the_password_comes_in(home: Path) -> None:
    """The password file is private, and the server requires the password."""
    with embedded.join(home) as membership:
        assert stat.S_IMODE(places_of(home).password_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(places_of(home).socket.stat().st_mode) == 0o700
        wrong = Address({**membership.address.parameters, "password": "guess"})
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            query(wrong, "SELECT 1")


def test_the_home_may_be_deleted_under_the_server(home: Path) -> None:
    """Removing the home ends its server, and a new home starts empty."""
    client = Client(home).joined()
    with embedded.join(home) as membership:
        query(membership.address, "CREATE TABLE t AS SELECT 7 AS x; SELECT 1")
    keeper = psutil.Process(embedded.status(home).keeper)
    places = places_of(home)
    home.rename(home.with_name("away"))
    eventually(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)
    assert not servers(places.data)
    client.leave()
    with embedded.join(home) as membership:
        assert query(membership.address, "SELECT to_regclass('t')") == "None"


def test_status_of_an_unused_home_changes_nothing(home: Path) -> None:
    """Status creates nothing and starts nothing, and stopping is not an error."""
    found = embedded.status(home)
    assert (found.running, found.data, found.clients, found.bytes_on_disk) == (False, None, (), 0)
    assert found.version.startswith("18")
    assert not embedded.stop(home)
    assert not home.exists()
