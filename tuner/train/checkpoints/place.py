"""The contract of a place for checkpoints: files by name, written atomically."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tuner.errors import MachineError
from tuner.text import masked

TEMPORARY = ".tmp-"
"""Prefix of files that are being written, or whose writer died."""


@dataclass(frozen=True)
class StoredFile:
    """One stored file: its name below the place, its size, and its modification time."""

    name: str
    size: int
    modified: float
    """Seconds since 1970 by the place's own clock."""


class CheckpointPlace(Protocol):
    """Files by name, in one folder and its subfolders."""

    name: str
    """For messages, without a password."""

    def write(self, name: str, content: bytes) -> None:
        """Store a file atomically."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist."""

    def files(self, folder: str = "") -> list[StoredFile]:
        """List the files of one folder, without those of subfolders."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are no error."""

    def touch(self, name: str) -> None:
        """Record that a file was used, if the place can."""

    def now(self) -> float:
        """Return the time by the clock that dates the files."""


@contextmanager
def errors_named(place: str, done: str) -> Iterator[None]:
    """Turn any error of a place into a MachineError that names it."""
    try:
        yield
    except MachineError:
        raise
    # fsspec's systems raise their own libraries' errors: nothing narrower covers them.
    except Exception as error:  # noqa: BLE001
        raise MachineError(
            f"checkpoints at {place} could not be {done}: {type(error).__name__}: "
            f"{masked(str(error))}. Check free space, permissions and the network, or choose "
            "another place."
        ) from None  # The original message may contain a password.


def below(folder: str, name: str) -> str:
    """Return a file's name below the place from its name in a folder."""
    return f"{folder}/{name}" if folder else name
