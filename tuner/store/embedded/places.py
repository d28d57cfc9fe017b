"""Where the embedded server keeps its files, and which account it runs as."""

import hashlib
import os
import pwd
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner import home as home_folder
from tuner.errors import MachineError
from tuner.files import write_whole
from tuner.home import name_of
from tuner.store.embedded.machine import Machine, from_json, this_machine

SYSTEM_FOLDER = Path("/var/lib/tuner")
SHORT_FOLDER = Path("/tmp")  # noqa: S108 - we make our own folder in it, checked before use
PORT = "5432"
# A socket's path must fit sockaddr_un: 107 bytes on Linux, 103 on macOS.
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
_SOCKET_NAME = f".s.PGSQL.{PORT}"
# libpq takes a comma as a list of hosts; the server interprets quotes and spaces.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+=@~-]+")


@dataclass(frozen=True)
class SystemAccount:
    """An unprivileged user that root runs the server as."""

    name: str
    uid: int
    gid: int

    def options(self) -> dict[str, Any]:
        """Return the keywords that make `subprocess` run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True)
class Places:
    """All paths of one embedded server; the locks and the password are in `home`."""

    home: Path
    root: Path
    """Holds the data; belongs to the server's account alone."""
    account: SystemAccount | None
    """None if the server runs as the user who starts it."""

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return self.root / "data"

    @property
    def occupied(self) -> Path:
        """The file naming the machine whose server uses the data; see `occupancy`."""
        return self.root / "in-use.json"

    @property
    def log(self) -> Path:
        """The log of the server and its keeper."""
        return self.home / "server.log"

    @property
    def password_file(self) -> Path:
        """The server's password, readable by the owner of `home` only."""
        return self.home / "password"

    @property
    def pin(self) -> Path:
        """A file that exists while the server should run without clients."""
        return self.home / "pinned"

    @property
    def socket(self) -> Path:
        """The folder of the server's socket, short enough for the system's limit."""
        near = self.root / "socket"
        length = len(os.fsencode(near / _SOCKET_NAME))
        if length <= _SOCKET_BYTES and _PLAIN_PATH.fullmatch(str(near)):
            return near
        uid = self.account.uid if self.account else os.geteuid()
        return SHORT_FOLDER / f"tuner-{uid}-{_hash(self.root)}"

    @property
    def socket_file(self) -> Path:
        """The server's socket itself."""
        return self.socket / _SOCKET_NAME


def find(home: Path) -> Places | None:
    """Return the places of the server set up under `home`, or None; changes nothing."""
    home = home.resolve()
    elsewhere, machine = home / "elsewhere", None
    root = home / "postgres"
    try:
        if elsewhere.exists():
            path, *facts = elsewhere.read_text().splitlines()
            root, machine = Path(path), from_json(facts[0]) if facts else None
        owner = root.stat().st_uid
    except FileNotFoundError:
        if machine is not None and not machine.shares_locks_with(this_machine()):
            raise _left_on(machine, root, elsewhere) from None
        return None
    except PermissionError as error:
        raise _not_ours(home, error) from error
    return Places(home, root, _account_of(root, owner))


def settle(home: Path) -> Places:
    """Create the places under `home`, or elsewhere if the server cannot reach them there.

    The caller holds the server's lock, so no other process does this at the same time.
    """
    home_folder.make(home)
    places = find(home) or _settle_first(home.resolve())
    if places.account is not None and places.root.parent == places.home:
        _let_through(places.account, places.home)
    return places


def account_for(home: Path) -> SystemAccount | None:
    """Return the account for a new server: for root the home's owner, or a system account."""
    if os.geteuid() != 0:
        return None
    owner = home.stat() if home.exists() else None
    if owner is not None and owner.st_uid != 0:
        return SystemAccount(name_of(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemAccount(name, entry.pw_uid, entry.pw_gid)
    raise MachineError(
        "PostgreSQL does not run as root, and there is neither an account `postgres` nor `nobody` "
        "to run it as. Run tuner as another user, or give a server with --database URL."
    )


def open_private(path: Path, flags: int) -> int:
    """Open a file of the embedded server, readable by its owner only."""
    try:
        return home_folder.open_private(path, flags)
    except FileExistsError:
        raise
    except OSError as error:
        raise _not_ours(path.parent, error) from error


def create_private(path: Path) -> int:
    """Create a file of the embedded server; one that exists is an error."""
    return open_private(path, home_folder.NEW)


def make_socket_folder(places: Places) -> None:
    """Create the socket's folder and check that no other user made it."""
    folder = places.socket
    uid = places.account.uid if places.account else os.geteuid()
    if not folder.is_symlink() and not folder.exists():
        folder.mkdir(0o700)
        if places.account:
            os.chown(folder, places.account.uid, places.account.gid, follow_symlinks=False)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != uid or found.st_mode & 0o777 != 0o700:
        raise MachineError(
            f"The folder {folder} is needed for the database's socket, but is not a private "
            f"folder of user {uid}. Remove it, or set TUNER_HOME to a shorter path."
        )


def make_system_folder() -> None:
    """Create /var/lib/tuner, which every user may traverse, if it is missing."""
    try:
        if not SYSTEM_FOLDER.exists():
            SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
            SYSTEM_FOLDER.chmod(0o755)
    except OSError as error:
        raise MachineError(
            f"The folder {SYSTEM_FOLDER} cannot be created: {error.strerror}. It is needed because "
            "PostgreSQL does not run as root, and its account cannot reach the folders in use. "
            "Set TUNER_HOME to a folder that every user can reach."
        ) from error


def _let_through(account: SystemAccount, home: Path) -> None:
    """Let only the server's account traverse root's private home."""
    found = home.stat()
    if found.st_uid == 0 and not found.st_mode & 0o077:
        # The group first, so that the old group never gets access.
        os.chown(home, 0, account.gid)
        home.chmod(0o710)


def _settle_first(home: Path) -> Places:
    account = account_for(home)
    if account is not None:
        _let_through(account, home)
    if account is not None and not _reaches(account, home):
        return _settle_elsewhere(home, account)
    root = home / "postgres"
    root.mkdir(0o700, exist_ok=True)
    if account is not None:
        os.chown(root, account.uid, account.gid, follow_symlinks=False)
    return Places(home, root, account)


def _settle_elsewhere(home: Path, account: SystemAccount) -> Places:
    """Create a folder outside `home`, each with a note that names the other.

    The folder is new even if one for the same path exists: that one belongs to a
    home that was deleted or moved, and its data must not reappear in this one.
    """
    make_system_folder()
    root = Path(tempfile.mkdtemp(prefix=f"data-{_hash(home)}-", dir=SYSTEM_FOLDER))
    (root / "home").write_text(f"{home}\n")
    os.chown(root, account.uid, account.gid, follow_symlinks=False)
    note = f"{root}\n{this_machine().to_json()}\n"
    write_whole(home / "elsewhere", note.encode(), create_private)
    return Places(home, root, account)


def _account_of(root: Path, owner: int) -> SystemAccount | None:
    if os.geteuid() == 0:
        return SystemAccount(name_of(owner), owner, root.stat().st_gid)
    if owner != os.geteuid():
        raise MachineError(
            f"The database in {root} belongs to the user {name_of(owner)}, and you are "
            f"{name_of(os.geteuid())}. Run tuner as that user, or set TUNER_HOME to another folder."
        )
    return None


def _reaches(account: SystemAccount, folder: Path) -> bool:
    """Whether `account` can enter the folder, tested by entering it."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd -- "$0"', str(folder)],
            stderr=subprocess.DEVNULL,
            cwd="/",
            check=False,
            **account.options(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"PostgreSQL does not run as root, and no program can be run as the account "
            f"{account.name}: {error}. Run tuner as another user, or give a server with "
            "--database URL."
        ) from error
    return done.returncode == 0


def _left_on(machine: Machine, root: Path, note: Path) -> MachineError:
    return MachineError(
        f"The database of {note.parent} is on another machine ({machine.name}), in {root}: root "
        f"created it there because the server could not reach {note.parent}. Use it there; or "
        f"remove {note} to start a new database; or set TUNER_HOME to another folder."
    )


def _not_ours(folder: Path, error: OSError) -> MachineError:
    return MachineError(
        f"The folder {folder} cannot be used: {error.strerror} ({error.filename}). Run tuner as "
        "the user who owns it, or set TUNER_HOME to another folder."
    )


def _hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
