"""Where and as whom the embedded server runs: long paths, private folders, several users."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.store.embedded_clients import (
    CODE,
    NOBODY,
    Client,
    clear,
    eventually,
    fresh_home,
    gone,
)
from tuner.errors import MachineError
from tuner.home import make as make_home
from tuner.store.embedded import binaries
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import server as embedded
from tuner.store.embedded.places import SYSTEM_FOLDER, Places, SystemAccount, find

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root does for others needs root")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that does not exist yet, within reach of the server's account."""
    with fresh_home() as home:
        yield home


@pytest.fixture
def private_home(tmp_path: Path) -> Iterator[Path]:
    """A home below a folder that only its owner may enter."""
    tmp_path.chmod(0o700)
    home = tmp_path / "project" / ".tuner"
    yield home
    clear(home)


def modes(path: Path) -> list[tuple[Path, int, int]]:
    """Return mode and owner of all the parents of a path."""
    return [(p, p.stat().st_mode, p.stat().st_uid) for p in path.parents if p.exists()]


def settled(home: Path) -> Places:
    """Return the places of a home that is already settled."""
    places = find(home)
    assert places is not None
    return places


@as_root
def test_a_home_out_of_the_servers_reach_keeps_its_data_elsewhere(private_home: Path) -> None:
    """Below a 0700 folder root gets a working database elsewhere; no permission is changed."""
    before = modes(private_home.parent)
    with embedded.join(private_home):
        found = embedded.status(private_home)
    assert found.running
    assert found.data is not None
    assert found.data.is_relative_to(SYSTEM_FOLDER)
    assert found.data.stat().st_uid != 0
    assert (found.data.parent / "home").read_text() == f"{private_home}\n"
    assert modes(private_home.parent) == before
    eventually(lambda: gone(private_home))
    with embedded.join(private_home):
        assert embedded.status(private_home).data == found.data


@as_root
def test_a_deleted_home_does_not_come_back(private_home: Path) -> None:
    """A new home at an old path starts empty, even if the old data are elsewhere."""
    with embedded.join(private_home):
        old = settled(private_home).root
    eventually(lambda: gone(private_home))
    shutil.rmtree(private_home)
    try:
        assert not embedded.status(private_home).running
        with embedded.join(private_home):
            assert settled(private_home).root != old
    finally:
        shutil.rmtree(old)


@as_root
def test_programs_out_of_the_accounts_reach_are_copied(tmp_path: Path) -> None:
    """If the account cannot enter the wheel's folder it runs a copy; the folder stays private."""
    site = tmp_path / "site"
    installed = binaries._wheel()
    for name in (binaries.PACKAGE, f"{binaries.PACKAGE}.libs"):
        shutil.copytree(installed / name, site / name, symlinks=True)
    tmp_path.chmod(0o700)
    before, present = modes(site), set(SYSTEM_FOLDER.glob("*"))
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from tuner.store.embedded.binaries import locate_for\n"
        "from tuner.store.embedded.places import SystemAccount\n"
        f"print(locate_for(SystemAccount('nobody', {NOBODY}, {NOBODY})).folder)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=CODE, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert said[0] == said[1]
    folder = Path(said[0])
    assert folder.is_relative_to(SYSTEM_FOLDER)
    account = SystemAccount("nobody", NOBODY, NOBODY)
    assert (binaries._version(folder, account) or "").startswith("18")
    assert modes(site) == before
    for made in set(SYSTEM_FOLDER.glob("*")) - present:
        shutil.rmtree(made)


def test_programs_in_reach_are_used_where_they_are() -> None:
    """If the wheel's programs are within reach, nothing is copied."""
    found = binaries.locate_for(None)
    assert found.folder.is_relative_to(binaries._wheel())
    assert found.version.startswith(f"{binaries.MAJOR}.")


def test_a_long_path_gets_a_short_socket(home: Path) -> None:
    """A home with a path too long for a socket works, with a private folder for the socket."""
    deep = home.parent / ("a" * 60) / ("b" * 60) / ".tuner"
    try:
        with embedded.join(deep):
            socket = settled(deep).socket
            assert settled(deep).data.is_relative_to(deep)
            assert not socket.is_relative_to(deep)
            assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        eventually(lambda: gone(deep))
    finally:
        clear(deep)


@pytest.mark.parametrize("name", ["space, comma, quotes '\"", "-ünïcode%41"])
def test_odd_names_of_folders_work(home: Path, name: str) -> None:
    """Special characters in a folder's name break neither libpq's nor the server's lists."""
    odd = home.parent / name / ".tuner"
    try:
        with embedded.join(odd) as membership:
            assert embedded.status(odd).running
            assert Path(membership.address.parameters["host"]).is_dir()
    finally:
        clear(odd)


def test_a_socket_folder_that_somebody_else_made_is_refused(home: Path) -> None:
    """A folder in /tmp that others can write to, or a link, is not used for the socket."""
    deep = home.parent / ("a" * 60) / ("b" * 60) / ".tuner"
    make_home(deep)
    places = embedded_places.settle(deep)
    places.socket.mkdir()
    if places.account:
        os.chown(places.socket, places.account.uid, places.account.gid)
    places.socket.chmod(0o777)
    try:
        with pytest.raises(MachineError, match="not a private folder"):
            embedded.join(deep)
        places.socket.rmdir()
        places.socket.symlink_to(home.parent)
        with pytest.raises(MachineError, match="not a private folder"):
            embedded.join(deep)
    finally:
        places.socket.unlink()
        clear(deep)


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """If a file is in the way the message names it and TUNER_HOME."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="TUNER_HOME"):
        embedded.join(tmp_path / "file" / ".tuner")


def nobodys_client(home: Path, python: tuple[str, dict[str, str]]) -> Client:
    """Start a client as the user nobody."""
    return Client(home, python[0], python[1], user=NOBODY, group=NOBODY, extra_groups=[])


def test_a_normal_user_has_a_server_of_their_own(
    home: Path, nobodys_python: tuple[str, dict[str, str]]
) -> None:
    """Without root everything belongs to the user; root may join, and changes no owner."""
    os.chown(home.parent, NOBODY, NOBODY)
    client = nobodys_client(home, nobodys_python).joined()
    with embedded.join(home):
        found = embedded.status(home)
        assert found.account == "nobody"
        assert found.pid is not None
        assert psutil.Process(found.pid).uids().effective == NOBODY
        assert found.clients == (client.process.pid,)
    assert {path.lstat().st_uid for path in home.rglob("*")} == {NOBODY}
    client.leave()
    eventually(lambda: gone(home))
    embedded.join(home).leave()
    eventually(lambda: gone(home))
    nobodys_client(home, nobodys_python).joined().leave()


@as_root
def test_root_leaves_a_users_home_theirs(home: Path) -> None:
    """Files and server that root creates in another user's home belong to that user."""
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    with embedded.join(home):
        assert embedded.status(home).account == "nobody"
        assert {path.lstat().st_uid for path in home.rglob("*")} == {NOBODY}


def test_another_users_database_is_told_from_ones_own(
    home: Path, nobodys_python: tuple[str, dict[str, str]]
) -> None:
    """A user without access to a home gets an error that says what to do."""
    with embedded.join(home), pytest.raises(AssertionError, match="TUNER_HOME"):
        nobodys_client(home, nobodys_python).joined()
