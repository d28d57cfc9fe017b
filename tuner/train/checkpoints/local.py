"""Checkpoints in a folder on a disk.

A file is written under a temporary name, synced and renamed, and the folder is synced:
every file under its final name is complete, even after a power failure.
"""

import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tuner.files import write_whole
from tuner.home import hand_over, make_folder
from tuner.train.checkpoints.place import TEMPORARY, StoredFile, below, errors_named


class LocalPlace:
    """A folder on a disk, where written files survive a power failure."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole."""
        path = self._folder / name
        with errors_named(self.name, "written"):
            make_folder(path.parent, 0o777)  # for a shared place the umask decides
            write_whole(path, content, create_shared, prefix=TEMPORARY)

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        with errors_named(self.name, "read"), suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of those files that exist."""
        contents = ((name, self.read(name)) for name in names)
        return {name: content for name, content in contents if content is not None}

    def files(self, folder: str = "") -> list[StoredFile]:
        """List the files of one folder; a missing folder has none."""
        found = []
        with errors_named(self.name, "listed"), suppress(FileNotFoundError):
            for entry in os.scandir(self._folder / folder):
                # A peer may remove a file after it was listed.
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        stat = entry.stat()
                        found.append(
                            StoredFile(below(folder, entry.name), stat.st_size, stat.st_mtime)
                        )
        return found

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are no error."""
        with errors_named(self.name, "cleaned"):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Record that a file was used; does nothing on a read-only place."""
        with suppress(OSError):
            os.utime(self._folder / name)

    def now(self) -> float:
        """Return the time by the disk's clock, which for a network disk is not ours."""
        probe = f"{TEMPORARY}{uuid.uuid4().hex}"
        with errors_named(self.name, "cleaned"):
            path = self._folder / probe
            try:
                path.touch()
                return path.stat().st_mtime
            finally:
                path.unlink(missing_ok=True)


def create_shared(path: Path) -> int:
    """Create a file that the umask decides about, as root given to the folder's owner."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    hand_over(descriptor, path.parent)
    return descriptor
