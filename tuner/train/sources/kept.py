"""Arrays in the cache: made by one process, mapped by all, complete or absent."""

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import MachineError
from tuner.home import NEW, make_folder, open_private

LOOK_SECONDS = 0.1
"""How often a process that waits for another's images checks for them."""


@dataclass(frozen=True)
class CachedArray:
    """An array mapped from its file, with the facts recorded when it was made."""

    array: NDArray[Any]
    facts: dict[str, Any]


Make = Callable[[Path], tuple[NDArray[Any], dict[str, Any]]]
"""Makes an array, in a new file at the path if it wants, and JSON facts about it."""


def keep(path: Path, make: Make, waiting: Callable[[], None]) -> CachedArray:
    """Return the array cached at a path, and make it now if it is missing or damaged.

    Of several simultaneous processes, one makes it and the others wait, calling
    `waiting` repeatedly.
    """
    with disk_errors(path):
        make_folder(path.parent)
        found = _read(path)
        if found is not None:
            return found
        with exclusive(path, waiting):
            found = _read(path)
            return found if found is not None else _make(path, make)


def new_array(folder: Path | None, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a new uint8 array, in memory, or mapped from an anonymous file."""
    if folder is None or not all(shape):
        return np.empty(shape, dtype=np.uint8)
    with disk_errors(folder):
        make_folder(folder)
        # The unnamed file disappears with the last process that maps it.
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a MachineError that names the path."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"images cannot be stored at {path}: {error.strerror or error}; "
            "free some space there, or set TUNER_HOME to a writable folder"
        ) from error


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the exclusive lock of a path; the kernel releases it if the process dies."""
    lock = open_private(path.with_name(f"{path.name}.lock"), os.O_WRONLY | os.O_APPEND)
    with os.fdopen(lock, "ab"):
        while not _locked(lock):
            waiting()
            time.sleep(LOOK_SECONDS)
        yield


def sweep(path: Path) -> None:
    """Remove unfinished files that dead processes left at a path; the caller holds its lock."""
    for stale in path.parent.glob(f"{path.name}.*.tmp"):
        stale.unlink(missing_ok=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks: there the images may be made twice.
        return True
    return True


def _facts_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read(path: Path) -> CachedArray | None:
    try:
        facts = json.loads(_facts_of(path).read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        sound = facts.pop("sha256") == _digest(array)
    except (FileNotFoundError, ValueError, KeyError, AttributeError, EOFError):
        return None
    return CachedArray(array, facts) if sound else None


def _make(path: Path, make: Make) -> CachedArray:
    # Write temporary files and rename them, the facts last: a reader sees both complete or makes
    # them again, even if the file system has no locks and two processes write at once.
    sweep(path)
    aside, facts_aside = (
        path.with_name(f"{path.name}.{os.getpid()}.{kind}.tmp") for kind in ("array", "facts")
    )
    try:
        for draft in (aside, facts_aside):
            # Remove it first: a dead process with our pid may have left one.
            draft.unlink(missing_ok=True)
            os.close(open_private(draft, NEW))
        array, facts = make(aside)
        if not isinstance(array, np.memmap):
            with aside.open("wb") as file:
                np.save(file, array, allow_pickle=False)
        else:
            array.flush()
        written = {**facts, "sha256": _digest(array)}
        facts_aside.write_text(json.dumps(written), encoding="utf-8")
        aside.replace(path)
        facts_aside.replace(_facts_of(path))
    finally:
        aside.unlink(missing_ok=True)
        facts_aside.unlink(missing_ok=True)
    return CachedArray(np.load(path, mmap_mode="r", allow_pickle=False), facts)


def _digest(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    for start in range(0, len(array), 256):
        digest.update(np.ascontiguousarray(array[start : start + 256]).data)
    return digest.hexdigest()
