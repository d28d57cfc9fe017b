"""Which machine uses a data folder, for file systems where locks do not show it.

On some file systems a flock is visible only on its own machine (NFS with local_lock,
Lustre with localflock, BeeGFS by default). Two machines could then each run a server
on the same data folder and corrupt it. So before a server starts, its machine is
written to a file beside the data; the file is removed when no process of the server
is left.
"""

import os
import platform
import secrets
import time
from pathlib import Path

from tuner.errors import DatabaseError
from tuner.files import write_synced
from tuner.store.embedded.filelocks import FileLock
from tuner.store.embedded.machine import UNKNOWN, Machine, from_json, this_machine
from tuner.store.embedded.places import Places, create_private

_ATTEMPTS, _PAUSE_SECONDS = 20, 0.1


def occupy(places: Places) -> None:
    """Record that this machine uses the data; refuse data in use on another machine.

    The caller holds the server's lock, so no other process of this machine is in here.
    """
    here = this_machine()
    for _ in range(_ATTEMPTS):
        # Exactly one of two machines creates the file: the file server arbitrates link() and
        # O_EXCL. Reading first and writing afterwards would let both through.
        if _create(places.occupied, here):
            return
        occupant = _read(places.occupied)
        if occupant is not None:
            break
        # The file was removed just now, or a cache of directory entries hides it.
        time.sleep(_PAUSE_SECONDS)
    else:
        occupant = UNKNOWN
    if not here.shares_locks_with(occupant):
        raise _in_use(places, occupant)
    # An earlier server of this machine left the file. Within one machine locks work, and we
    # hold the server's. Another machine never touches an existing file.
    draft = _write_draft(places.occupied, here)
    draft.replace(places.occupied)


def vacate(places: Places) -> None:
    """Remove the file of `occupy`, unless a process of the server may be left.

    The caller holds the server's lock. Every process of a server holds the postmaster's
    lock; getting that lock exclusively proves that all of them are gone.
    """
    occupant = _read(places.occupied)
    if occupant is None or not this_machine().shares_locks_with(occupant):
        return
    with FileLock(places.home / "postmaster.lock") as postmaster:
        if postmaster.try_alone():
            places.occupied.unlink(missing_ok=True)


def occupant_elsewhere(places: Places) -> Machine | None:
    """Return the other machine that uses the data, or None."""
    occupant = _read(places.occupied)
    if occupant is None or this_machine().shares_locks_with(occupant):
        return None
    return occupant


def refuse_elsewhere(places: Places) -> None:
    """Raise an error if another machine uses the data."""
    occupant = occupant_elsewhere(places)
    if occupant is not None:
        raise _in_use(places, occupant)


def _in_use(places: Places, occupant: Machine) -> DatabaseError:
    host = occupant.name
    return DatabaseError(
        f"The database in {places.data} is in use on another machine ({host}), or was not shut "
        f"down there; this machine is {platform.node()}. A second server on the same files would "
        f"destroy it.\n"
        f"Run `tuner db stop` on {host}, or wait until the programs that use it there have ended. "
        f"If {host} is gone for good, remove the file {places.occupied} and try again.\n"
        "To use one database from several machines, run a PostgreSQL server and name it with "
        "--database URL or TUNER_DATABASE_URL."
    )


def _create(path: Path, machine: Machine) -> bool:
    """Create the file atomically with its content; return False if it exists."""
    draft = _write_draft(path, machine)
    try:
        os.link(draft, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return _write(path, machine)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _write_draft(path: Path, machine: Machine) -> Path:
    # The folder belongs to the server's account and we may be root: a new name with O_EXCL
    # does not follow a symlink planted there.
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    _write(draft, machine)
    return draft


def _write(path: Path, machine: Machine) -> bool:
    """Write a new file; return False if it exists."""
    try:
        descriptor = create_private(path)
    except FileExistsError:
        return False
    write_synced(descriptor, machine.to_json().encode())
    return True


def _read(path: Path) -> Machine | None:
    try:
        return from_json(path.read_text())
    except FileNotFoundError:
        return None
