"""The data folder: created atomically, and used only by the version that wrote it."""

import logging
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tuner.errors import DatabaseError, MachineError
from tuner.files import sync_folder, write_whole
from tuner.store.embedded.binaries import MAJOR, Binaries
from tuner.store.embedded.places import Places, create_private

USER = "tuner"
DATABASE = "tuner"
# The server's programs inherit nothing from the caller's environment: no passwords, no PG
# variables, no library paths. Setting TZ spares initdb a search through all time zones.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
ITERATIONS = "scram_iterations=1"
"""Kept in the cluster's configuration, so for every password it gets. Thousands of iterations slow
down guesses at passwords that people choose, and every connection by 2 ms. Nobody guesses 192
random bits, however fast."""
_DRAFT = "draft-"

logger = logging.getLogger(__name__)


def ensure(places: Places, binaries: Binaries) -> None:
    """Create the data folder if it is missing; refuse one written by another major version."""
    made = places.data.exists()
    if made:
        check_version(places.data)
    if not places.password_file.exists():
        _draw_password(places, binaries if made else None)
    if not made:
        _make(places, binaries)


def check_version(data: Path) -> None:
    """Refuse a data folder that this major version of PostgreSQL cannot read."""
    file = data / "PG_VERSION"
    try:
        version = file.read_text().strip()
    except OSError as error:
        raise DatabaseError(
            f"The folder {data} is not a PostgreSQL data folder: {file.name} cannot be read "
            f"({error.strerror}). Move the folder away to start with a new database."
        ) from error
    if version != str(MAJOR):
        raise DatabaseError(
            f"The data in {data} were written by PostgreSQL {version}, and this tuner brings "
            f"PostgreSQL {MAJOR}. With the tuner that wrote them run `tuner db dump -o old.dump`; "
            f"then move {data} away, and with this one run `tuner db restore old.dump`."
        )


def _make(places: Places, binaries: Binaries) -> None:
    """Fill a draft folder and rename it, so that a crash midway leaves nothing half-made."""
    for leftover in places.root.glob(_DRAFT + "*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=places.root))
    try:
        _fill(draft, places, binaries)
        (draft / "data").rename(places.data)
        sync_folder(places.root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draw_password(places: Places, binaries: Binaries | None) -> None:
    """Generate a password, set it in an existing cluster, and store it.

    The file is written last: after a crash before that, this runs again.
    """
    password = secrets.token_hex(24)
    if binaries:
        _single_user(places, binaries, places.data, f"ALTER ROLE {USER} PASSWORD '{password}'")
    write_whole(places.password_file, password.encode(), create_private)


def _fill(draft: Path, places: Places, binaries: Binaries) -> None:
    """Create a cluster with our database in it, synced to disk once at the end."""
    password = draft / "password"
    password.touch(0o600)
    password.write_text(places.password_file.read_text())
    if places.account:
        for path in (draft, password):
            os.chown(path, places.account.uid, places.account.gid, follow_symlinks=False)
    data = draft / "data"
    initdb = [binaries.program("initdb"), "-D", str(data)]
    identity = ["-U", USER, "--pwfile", str(password), "--auth=scram-sha-256"]
    words = ["--encoding=UTF8", "--locale=C"]
    words += ["--set", ITERATIONS, "--no-sync", "--no-instructions"]
    _run([*initdb, *identity, *words], places)
    password.unlink()
    create = f"CREATE DATABASE {DATABASE} STRATEGY FILE_COPY"
    _single_user(places, binaries, data, create, "fsync=off")
    _sync([*initdb, "--sync-only"], places)


def _sync(initdb: list[str], places: Places) -> None:
    """Write a new cluster to disk: its whole file system at once, else file by file.

    On a busy disk, one call takes 0.1 s, and 1,300 of them 2 to 3 s.
    """
    if _syncfs_is_reliable():
        try:
            return _run([*initdb, "--sync-method=syncfs"], places)
        # It also fails for an unreported error of another program's file, and where a sandbox or
        # FUSE lacks it. An error of our own files comes up again in fsync.
        except MachineError as error:
            logger.debug("syncfs failed, so each file is synced: %s", error)
    return _run([*initdb, "--sync-method=fsync"], places)


def _syncfs_is_reliable() -> bool:
    """Return whether syncfs reports write errors, as it does since Linux 5.8."""
    kernel = re.match(r"(\d+)\.(\d+)", platform.release())
    recent = kernel is not None and (int(kernel[1]), int(kernel[2])) >= (5, 8)
    return sys.platform == "linux" and recent


def _single_user(
    places: Places, binaries: Binaries, data: Path, statement: str, *settings: str
) -> None:
    """Run a statement in single-user mode; a failed statement fails the program."""
    postgres = [binaries.program("postgres"), "--single", "-D", str(data)]
    for setting in ("exit_on_error=on", "log_checkpoints=off", *settings):
        postgres += ["-c", setting]
    _run([*postgres, "template1"], places, statement + ";\n")


def _run(command: list[str], places: Places, text: str = "") -> None:
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=places.root,
        env=ENVIRONMENT,
        umask=0o077,
        check=False,
        **(places.account.options() if places.account else {}),
    )
    if done.returncode != 0:
        said = "\n".join(f"  {line}" for line in done.stdout.strip().splitlines()[-8:])
        raise MachineError(
            f"The database could not be created in {places.root}: {Path(command[0]).name} failed "
            f"(exit status {done.returncode}). Its output:\n{said}\nFree disk space or fix the "
            "permissions, and try again; nothing incomplete was left behind."
        )
