"""Files that people name: written whole or not at all, and never over somebody's work.

A regular file is written aside and renamed, so that no reader sees half of it.
A device, a FIFO or a descriptor such as /dev/stdout cannot be renamed over: it
would be gone afterwards. It is opened and written to, as the shell would.
"""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tuner.errors import MachineError, UserError

Recognised = Callable[[bytes], bool]
"""Tells by its content whether a file is an earlier output of tuner, which may be replaced."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}


def begins_with(start: str) -> Recognised:
    """Recognise a file by how it begins, such as the heading of a CSV file."""
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
    """Return whether a file is there that will be replaced; refuse if it may be somebody's work."""
    with _failure_told(path):
        status = _status(path)
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return False
        if _descriptor(path) is not None:
            return False
        if overwrite or (recognised is not None and recognised(path.read_bytes())):
            return True
    raise UserError(
        f"{path} exists already, and it may be somebody's work: nothing was written. "
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
    """Write a file that a person named, and return whether it replaced an earlier one."""
    replaced = check_output(path, overwrite=overwrite, recognised=recognised, remedy=remedy)
    data = content.encode() if isinstance(content, str) else content
    with _failure_told(path):
        with open_special(path) as special:
            if special is not None:
                special.write(data)
                return False
        with whole_file(path, replace=replaced) as draft:
            draft.write_bytes(data)
    return replaced


@contextmanager
def open_special(path: Path) -> Iterator[BinaryIO | None]:
    """Open what is no regular file for writing; give None where a file is to be written aside."""
    with _failure_told(path):
        descriptor: int | None
        number, status = _descriptor(path), _status(path)
        if number is not None:
            # The very descriptor, not another opening of its file, which would start at 0.
            descriptor = os.dup(number)
        elif status is None or stat.S_ISREG(status.st_mode):
            descriptor = None
        elif stat.S_ISBLK(status.st_mode):
            raise UserError(f"{path} is a disk, and writing to it would destroy what it holds.")
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "wb") as file:
        yield file


@contextmanager
def whole_file(path: Path, *, replace: bool, mode: int | None = None) -> Iterator[Path]:
    """Give a draft that takes the file's name once it is complete and on disk.

    Symbolic links are followed, so that a link stays a link; a file that is
    replaced keeps its permissions, and its owner where that is allowed. A new
    file gets `mode`, or what the umask leaves.
    """
    with _failure_told(path):
        target = Path(os.path.realpath(path))
        status = _status(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".tuner-", dir=target.parent)
    draft = Path(name)
    try:
        yield draft
        with _failure_told(path):
            if status is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, status.st_uid, status.st_gid)
                mode = stat.S_IMODE(status.st_mode)
            os.fchmod(descriptor, 0o666 & ~_umask() if mode is None else mode)
            os.fsync(descriptor)
            # An empty file was there, and nothing is lost with it.
            _rename(draft, target, replace=replace or status is not None)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def _rename(draft: Path, target: Path, *, replace: bool) -> None:
    if not replace:
        # Somebody may have created the file since we looked. A link, unlike a
        # rename, fails then. Not every file system has hard links.
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
    """Return the number of the descriptor of ours that a path names."""
    found = _DESCRIPTOR.fullmatch(str(path))
    return int(found[1]) if found else _STREAMS.get(str(path))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def _failure_told(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # the reader of a FIFO has left, as `head` does
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
