"""Files written whole or not at all: under a temporary name, synced, and renamed.

`write_whole` is for files that tuner names: those below its home, checkpoints, saved models.
`write_output` and `whole_file` are for files that people name, and never replace their own work.
There, a device, a FIFO or a descriptor such as /dev/stdout must not be replaced by a rename, so it
is opened and written to, as the shell would.
"""

import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tuner.errors import MachineError, UserError

Recognised = Callable[[bytes], bool]
"""Recognises, by its content, an earlier output of tuner, which may be replaced."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


def write_whole(
    path: Path, content: bytes, create: Callable[[Path], int], *, prefix: str = ".tuner-"
) -> None:
    """Write or replace a file so that it is complete under its name, even after a power failure.

    `create` creates the draft, a new file, and returns its descriptor: its owner and permissions
    differ from caller to caller. A link at `path` is replaced.
    """
    draft = path.with_name(f"{prefix}{secrets.token_hex(16)}")
    try:
        write_synced(create(draft), content)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_synced(descriptor: int, content: bytes) -> None:
    """Write a file to the disk and close it."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begins_with(start: str) -> Recognised:
    """Recognise a file by its beginning, such as the header of a CSV file."""
    return lambda content: content.startswith(start.encode())


def contains(mark: str) -> Recognised:
    """Recognise a file by a mark that tuner leaves in it."""
    return lambda content: mark.encode() in content


def check_output(
    path: Path,
    *,
    overwrite: bool,
    recognised: Recognised | None = None,
    remedy: str = "replace it with --overwrite",
) -> bool:
    """Return whether an existing file will be replaced; raise if it may be the user's own work."""
    with _write_errors(path):
        status = _status(path)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return False
        if _descriptor(path) is not None:
            return False
        if overwrite or (recognised is not None and recognised(path.read_bytes())):
            return True
    raise UserError(
        f"{path} exists already and was not written by tuner: nothing was written. "
        f"Name another file, or {remedy}."
    )


def write_output(
    path: Path,
    content: str | bytes,
    *,
    overwrite: bool = False,
    recognised: Recognised | None = None,
    remedy: str = "replace it with --overwrite",
) -> bool:
    """Write a file that a person named, and return whether it replaced another."""
    replaced = check_output(path, overwrite=overwrite, recognised=recognised, remedy=remedy)
    data = content.encode() if isinstance(content, str) else content
    with _write_errors(path):
        with open_special(path) as special:
            if special is not None:
                special.write(data)
                return False
        with whole_file(path, replace=replaced) as draft:
            draft.write_bytes(data)
    return replaced


@contextmanager
def open_special(path: Path) -> Iterator[BinaryIO | None]:
    """Open a special file for writing; yield None for a regular file, to be written atomically."""
    with _write_errors(path):
        descriptor: int | None
        number, status = _descriptor(path), _status(path)
        if number is not None:
            # Duplicate the descriptor: reopening its file would start at offset 0.
            descriptor = os.dup(number)
        elif status is None or stat.S_ISREG(status.st_mode):
            descriptor = None
        elif stat.S_ISBLK(status.st_mode):
            raise UserError(f"{path} is a disk, and writing to it would destroy its content.")
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "wb") as file:
        yield file


@contextmanager
def whole_file(path: Path, *, replace: bool, mode: int | None = None) -> Iterator[Path]:
    """Yield a draft that is renamed to the file's name once it is complete and on disk.

    Symbolic links are followed, so that a link stays a link. A replaced file keeps
    its permissions, and its owner if possible. A new file gets `mode`, or the default
    of the umask.
    """
    with _write_errors(path):
        target = Path(os.path.realpath(path))
        status = _status(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".tuner-", dir=target.parent)
    draft = Path(name)
    try:
        yield draft
        with _write_errors(path):
            if status is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                mode = stat.S_IMODE(status.st_mode)
            os.fchmod(descriptor, 0o666 & ~_umask() if mode is None else mode)
            os.fsync(descriptor)
            # Replacing an empty file loses nothing.
            _rename(draft, target, replace=replace or status is not None)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def _rename(draft: Path, target: Path, *, replace: bool) -> None:
    if not replace:
        # The file may have been created since we checked. A link, unlike a rename, fails
        # then. Not every file system has hard links.
        try:
            os.link(draft, target)
        except FileExistsError:
            raise UserError(
                f"{target} was created by another program in the meantime, and was not replaced."
            ) from None
        except OSError:
            pass
        else:
            return
    draft.replace(target)


def _descriptor(path: Path) -> int | None:
    """Return the number of our descriptor that a path names, if it names one."""
    match = _DESCRIPTOR.fullmatch(str(path))
    return int(match[1]) if match else _STREAMS.get(str(path))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of a FIFO has gone, as `head` does
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
