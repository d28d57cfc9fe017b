"""One data folder and several machines: only one of them runs a server on it.

A machine is simulated by namespaces with their own processes, host name and boot. Locks that are
not shared are simulated by lock files that are replaced under their holders.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.store.embedded_clients import Client, eventually, fresh_home, gone, servers
from tuner.errors import DatabaseError, MachineError
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import server as embedded
from tuner.store.embedded.places import Places

_MACHINE = """#!/bin/sh
exec unshare --mount --uts --pid --fork --kill-child --mount-proc sh -c '
    set -e
    hostname {host}
    mount --bind {boot} /proc/sys/kernel/random/boot_id
    {python} "$@"
    while grep -qs embedded[.]keeper /proc/[0-9]*/cmdline; do sleep 0.1; done' machine "$@"
"""
"""It ends after its keeper, because the end of a machine's first process kills all others."""


def _can_make_machines() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    options = ["--mount", "--uts", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(
    not _can_make_machines(), reason="making namespaces needs root, CAP_SYS_ADMIN and unshare"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that does not exist yet."""
    with fresh_home() as home:
        yield home


def client_on(host: str, boot: str, home: Path, folder: Path) -> Client:
    """Start a client on another machine."""
    (folder / boot).write_text(boot + "\n")
    program = folder / f"python-{host}-{boot}"
    program.write_text(_MACHINE.format(host=host, boot=folder / boot, python=sys.executable))
    program.chmod(0o755)
    return Client(home, str(program)).joined()


def places_of(home: Path) -> Places:
    """Return the places of a home that has a database."""
    places = embedded_places.find(home)
    assert places is not None
    return places


def commit_something(home: Path) -> None:
    """Commit a table from this machine; sockets work across namespaces."""
    places = places_of(home)
    connection = psycopg2.connect(
        host=str(places.socket),
        user="tuner",
        dbname="tuner",
        password=places.password_file.read_text(),
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE precious AS SELECT 7 AS x")
    connection.close()


def read_it(home: Path) -> int:
    """Join and read the committed table."""
    with embedded.join(home) as membership:
        keywords: dict[str, Any] = {**membership.address.parameters}
        connection = psycopg2.connect("", **keywords)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT x FROM precious")
            found = int((cursor.fetchone() or (0,))[0])
        connection.close()
    return found


def power_cut(client: Client, home: Path) -> None:
    """Kill a machine's processes all at once."""
    client.kill()
    eventually(lambda: not servers(places_of(home).data))


def test_data_that_another_machine_did_not_shut_down_are_refused(
    home: Path, tmp_path: Path
) -> None:
    """The error names the machine and the way out; the pid file stays; no data are lost."""
    client = client_on("far-away", "boot-1", home, tmp_path)
    commit_something(home)
    power_cut(client, home)
    places = places_of(home)
    pid_file = (places.data / "postmaster.pid").read_bytes()
    for attempt in (embedded.join, embedded.start, embedded.stop):
        with pytest.raises(DatabaseError, match="far-away") as caught:
            attempt(home)
        assert str(places.occupied) in str(caught.value)
    assert embedded.status(home).used_on == "far-away"
    assert (places.data / "postmaster.pid").read_bytes() == pid_file
    places.pin.unlink()
    places.occupied.unlink()
    assert read_it(home) == 7


def test_a_server_behind_locks_that_are_not_shared_is_left_alone(
    home: Path, tmp_path: Path
) -> None:
    """With locks that other machines do not see, no second server starts on the data."""
    client = client_on("far-away", "boot-1", home, tmp_path)
    places = places_of(home)
    for name in ("server.lock", "postmaster.lock"):
        (home / name).unlink()
    before = servers(places.data)
    with pytest.raises(DatabaseError, match="another machine"):
        embedded.join(home)
    assert servers(places.data) == before
    commit_something(home)
    client.leave()
    eventually(lambda: not places.occupied.exists())
    assert read_it(home) == 7


def test_the_same_machine_goes_on_after_a_power_cut(home: Path, tmp_path: Path) -> None:
    """After a reboot the same host takes its data over without questions."""
    client = client_on("node", "boot-1", home, tmp_path)
    commit_something(home)
    power_cut(client, home)
    client_on("node", "boot-2", home, tmp_path).leave()
    eventually(lambda: not places_of(home).occupied.exists())
    assert read_it(home) == 7


def test_containers_of_one_machine_share_their_locks(home: Path, tmp_path: Path) -> None:
    """A new container on the same kernel takes over from a killed one, whatever its name."""
    client = client_on("container-a", "boot-1", home, tmp_path)
    commit_something(home)
    power_cut(client, home)
    client_on("container-b", "boot-1", home, tmp_path).leave()
    eventually(lambda: not places_of(home).occupied.exists())
    assert read_it(home) == 7


def test_a_killed_keeper_and_server_leave_the_data_to_their_own_machine(home: Path) -> None:
    """After kill -9 of both the note stays, which only stops other machines, until a clean stop."""
    client = Client(home).joined()
    commit_something(home)
    found = embedded.status(home)
    assert found.keeper is not None
    assert found.pid is not None
    os.kill(found.keeper, signal.SIGKILL)
    os.kill(found.pid, signal.SIGKILL)
    client.kill()
    eventually(lambda: gone(home))
    assert places_of(home).occupied.exists()
    assert read_it(home) == 7
    eventually(lambda: gone(home))
    assert not places_of(home).occupied.exists()


def test_data_outside_a_shared_home_are_not_replaced_by_another_machine(
    tmp_path: Path,
) -> None:
    """A home whose data are on another machine's own disk is refused, and its note stays."""
    tmp_path.chmod(0o700)
    home = tmp_path / ".tuner"
    with embedded.join(home):
        root = places_of(home).root
    eventually(lambda: gone(home))
    note = (home / "elsewhere").read_text()
    away = root.rename(root.with_name(root.name + "-away"))
    try:
        (home / "elsewhere").write_text(
            f'{root}\n{{"host": "far-away", "machine_id": "m", "boot_id": "b"}}\n'
        )
        with pytest.raises(MachineError, match="far-away"):
            embedded.join(home)
        assert not root.exists()
    finally:
        away.rename(root)
        (home / "elsewhere").write_text(note)
        embedded.erase(home)


def test_many_machines_that_start_at_once_give_one_server(home: Path, tmp_path: Path) -> None:
    """Of several machines without shared locks one gets the data; the others are refused."""
    with embedded.join(home):
        places = places_of(home)
    eventually(lambda: gone(home))
    program = (
        "import sys; from pathlib import Path; from tuner.store.embedded import occupancy, places\n"
        "from tuner.errors import DatabaseError\n"
        "found = places.find(Path(sys.argv[1])); sys.stdin.readline()\n"
        "try: occupancy.occupy(found)\n"
        "except DatabaseError as error: print('refused' if 'in use' in str(error) else error)\n"
        "else: print('mine')\n"
    )
    processes = []
    for number in range(4):
        boot = tmp_path / f"boot-{number}"
        boot.write_text(f"boot-{number}\n")
        script = tmp_path / f"python-{number}"
        python = sys.executable
        script.write_text(_MACHINE.format(host=f"host-{number}", boot=boot, python=python))
        script.chmod(0o755)
        processes.append(
            subprocess.Popen(
                [str(script), "-c", program, str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in processes)
    assert said == ["mine", "refused", "refused", "refused"]
    places.occupied.unlink()
