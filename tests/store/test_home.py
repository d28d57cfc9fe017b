"""The folder `.tuner`: private, found from below, and a user's own even if root worked in it."""

import grp
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Project, make_project
from tests.store.embedded_clients import NOBODY, clear, eventually, fresh_home, gone
from tuner import home as home_folder
from tuner.cli.main import run
from tuner.settings import Settings
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import server as embedded

pytestmark = pytest.mark.processes

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what root does for others needs root")
OTHER = 12345
LAUNCH = ("launch", "--study", "small", "--workers", "1")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    with fresh_home() as home:
        yield home.parent


def mode(path: Path) -> int:
    """Return a path's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def owners(home: Path) -> set[int]:
    """Return the owners in a home; its server may be removing files at the same time."""
    found = set()
    for path in (home, *home.rglob("*")):
        with suppress(FileNotFoundError):
            found.add(path.lstat().st_uid)
    return found


def home_at(folder: Path, owner: int) -> Path:
    """Make a home in a folder, both owned by a user."""
    folder.mkdir(parents=True, exist_ok=True)
    home = folder / ".tuner"
    home_folder.make(home)
    if os.geteuid() == 0:
        for path in (folder, home, home / ".gitignore"):
            os.chown(path, owner, owner)
    return home


def found(
    start: Path, stop: Path | None = None, sudo_uid: int | None = None
) -> home_folder.FoundHome:
    """Look for the home of a folder as the user of these tests."""
    return home_folder.find(start, stop=stop, uid=os.geteuid(), sudo_uid=sudo_uid)


def test_a_new_home_is_private(tmp_path: Path) -> None:
    """With the usual umask the home, its cache, logs and results are the owner's only."""
    project = make_project(tmp_path / "project", {})
    try:
        out = project.run(*LAUNCH)
        home = project.folder / ".tuner"
        assert f"Creating a folder for studies, logs and results: {home}" in out
        assert "Every user" not in out
        assert mode(home) & 0o067 == 0
        for name in ("logs", "results", "cache"):
            assert not (home / name).exists() or mode(home / name) == 0o700
        logs, results = list((home / "logs").iterdir()), list((home / "results").iterdir())
        assert logs
        assert results
        assert {mode(path) for path in (*logs, *results)} == {0o600}
    finally:
        clear(project.folder / ".tuner")


@as_root
def test_roots_home_lets_the_servers_account_pass_and_nobody_else(open_folder: Path) -> None:
    """As root the home's group is the server's account, which may only pass through."""
    home = open_folder / ".tuner"
    with embedded.join(home):
        places = embedded_places.find(home)
        assert places is not None
        assert places.account is not None
        assert places.root.is_relative_to(home)
        assert mode(home) == 0o710
        assert home.stat().st_gid == places.account.gid
        assert grp.getgrgid(home.stat().st_gid).gr_name in ("postgres", "nogroup", "nobody")
    eventually(lambda: gone(home))
    # As the warning about an old home recommends.
    home.chmod(0o700)
    with embedded.join(home):
        assert mode(home) == 0o710


def test_an_old_home_that_is_open_to_all_is_told(
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """launch names the mode and the command that fixes it, and is silent afterwards."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ".tuner"
    home.mkdir()
    command = ("launch", "--study", "missing@1", "--database", str(settings.database_url))
    home.chmod(0o755)
    assert run(command) == 2
    err = capsys.readouterr().err
    assert "mode 755" in err
    assert f"chmod 700 {home}" in err
    home.chmod(0o700)
    assert run(command) == 2
    assert "chmod" not in capsys.readouterr().err


@as_root
def test_root_in_a_users_project_does_not_break_it_for_the_user(
    open_folder: Path, nobodys_python: tuple[str, dict[str, str]]
) -> None:
    """After `sudo tuner launch` everything belongs to the user, who can continue the study."""
    python, environ = nobodys_python
    folder = open_folder / "project"
    project = make_project(folder, {**environ, "HOME": str(folder)})
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    home = folder / ".tuner"
    try:
        project.run(*LAUNCH)
        (home / "cache" / "loads").unlink()  # written by the objective itself
        assert owners(home) == {NOBODY}
        assert mode(home) == 0o700
        eventually(lambda: gone(home))
        done = subprocess.run(
            [python, "-m", "tuner", *LAUNCH, "--set", "replicates.seeds=3"],
            cwd=folder,
            env=dict(project.environment),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "All 6 trials" in done.stdout
    finally:
        clear(home)


@as_root
def test_root_gives_away_only_what_it_made(open_folder: Path) -> None:
    """Hard and symbolic links in a user's home do not give away root's files."""
    home = home_at(open_folder / "project", NOBODY)
    secret = open_folder / "secret"
    secret.write_text("root's")
    os.link(secret, home / "server.log")
    os.close(home_folder.open_private(home / "server.log", os.O_WRONLY | os.O_APPEND))
    assert secret.stat().st_uid == 0
    (home / "pinned").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        home_folder.open_private(home / "pinned", os.O_WRONLY)
    assert secret.stat().st_uid == 0
    os.close(home_folder.open_private(home / "fresh", os.O_WRONLY))
    assert (home / "fresh").stat().st_uid == NOBODY


def test_a_link_in_a_home_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Files written into a home are created there, private, even where a link exists."""
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (tmp_path / "home" / "results").mkdir(parents=True)
    path = tmp_path / "home" / "results" / "small.csv"
    path.symlink_to(secret)
    home_folder.write_private(path, "rows")
    assert secret.read_text() == "root's"
    assert (path.is_symlink(), path.read_text()) == (False, "rows")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_home_is_found_from_below(tmp_path: Path) -> None:
    """The nearest home above a folder is used; its own comes first; a deep folder finds both."""
    outer = home_at(tmp_path / "project", os.geteuid())
    below = tmp_path / "project" / "studies" / "deep"
    below.mkdir(parents=True)
    assert found(below) == home_folder.FoundHome(outer)
    inner = home_at(tmp_path / "project" / "studies", os.geteuid())
    assert found(below).home == inner
    assert found(tmp_path / "project").home == outer


def test_the_search_ends_at_ones_own_folder(tmp_path: Path) -> None:
    """Homes above the user's own folder are not used; one in it is."""
    home_at(tmp_path, os.geteuid())
    own = tmp_path / "ann"
    below = own / "work"
    below.mkdir(parents=True)
    assert found(below, stop=own).home == below / ".tuner"
    assert found(own, stop=own).home == own / ".tuner"
    home_at(own, os.geteuid())
    assert found(below, stop=own).home == own / ".tuner"


def test_a_folder_of_that_name_that_is_no_home_is_passed_over(tmp_path: Path) -> None:
    """Another program's folder `.tuner` is not used as a home."""
    (tmp_path / ".tuner").mkdir()
    (tmp_path / ".tuner" / "config").write_text("")
    below = tmp_path / "below"
    below.mkdir()
    assert found(below).home == below / ".tuner"


@as_root
def test_another_users_home_above_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    """Another user's home above is skipped; under sudo the caller's own is used."""
    theirs = home_at(tmp_path / "shared", OTHER)
    below = tmp_path / "shared" / "below"
    below.mkdir()
    (note,) = found(below).notes
    assert found(below).home == below / ".tuner"
    assert str(theirs) in note
    assert str(OTHER) in note
    under_sudo = found(below, sudo_uid=OTHER)
    assert under_sudo.home == theirs
    assert "belongs to" in under_sudo.notes[0]
    assert "belongs to" in found(tmp_path / "shared").notes[0]


@as_root
def test_the_search_stays_on_its_file_system(tmp_path: Path) -> None:
    """A home on another file system above is not used, as with git."""
    home_at(tmp_path, 0)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    program = (
        "import os; from pathlib import Path; from tuner import home\n"
        f"print(home.find(Path({str(mounted)!r}), stop=None, uid=0).home)"
    )
    script = 'mount -t tmpfs none "$0" && "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(mounted), sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "ermitted" in done.stderr:
        pytest.skip("mounting needs CAP_SYS_ADMIN")
    assert done.stdout.strip() == str(mounted / ".tuner")


READING = (
    ("studies",),
    ("status", "small"),
    ("table", "small"),
    ("show", "small", "0"),
    ("compare", "small"),
    ("gap", "small"),
    ("best", "small"),
    ("export", "--study", "small"),
    ("events", "small"),
    ("logs", "small"),
    ("stop", "small"),
    ("retry", "small"),
    ("delete", "small", "--yes"),
    ("clean",),
    ("db", "url"),
    ("db", "dump"),
    ("launch", "--study", "small@1"),
    ("worker", "--study", "small", "--workers", "1"),
)


def test_a_command_that_reads_makes_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that there is none, where it looked, and how to create one; nothing is created."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    said = {}
    for command in READING:
        code = run(command)
        said[command] = (code, capsys.readouterr().err)
    for command, (code, err) in said.items():
        assert code == 2, command
        assert f"There is no database in {tmp_path / '.tuner'}" in err, command
        assert "tuner launch" in err, command
    assert list(tmp_path.iterdir()) == []


def test_commands_below_a_project_use_its_home(tmp_path: Path) -> None:
    """From studies/ the project's studies are visible; launch says where they are stored."""
    project = make_project(tmp_path / "project", {})
    home = project.folder / ".tuner"
    try:
        project.run(*LAUNCH)
        below = Project(project.folder / "studies", project.environment)
        assert "small" in below.run("studies")
        out = below.run("launch", "--study", "small.toml", "--workers", "1")
        assert f"Studies, logs and results are in {home}" in out
        assert "Making" not in out
        assert not (project.folder / "studies" / ".tuner").exists()
        elsewhere = {"TUNER_HOME": str(tmp_path / "named")}
        assert str(tmp_path / "named") in below.run("studies", code=2, environ=elsewhere)
    finally:
        clear(home)
