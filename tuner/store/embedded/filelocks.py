"""File locks, which the kernel releases when their holders die, however they die."""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from tuner.store.embedded.places import open_private

_POLL_SECONDS = 0.02


class FileLock:
    """A flock on a lock file, released when the descriptor is closed or the process dies.

    Programs that this process starts do not inherit the descriptor, unless it is
    passed to one on purpose: then the lock lasts as long as any of them has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = open_private(path, os.O_RDWR)

    @classmethod
    def inherited(cls, path: Path, fd: int) -> "FileLock":
        """Return the lock that was passed down by the parent process."""
        lock = cls.__new__(cls)
        lock.path, lock.fd = path, fd
        os.set_inheritable(fd, False)
        return lock

    def try_shared(self) -> bool:
        """Take the lock shared, unless a process has it exclusively."""
        return self._try(fcntl.LOCK_SH)

    def try_alone(self) -> bool:
        """Take the lock exclusively, unless any process has it."""
        return self._try(fcntl.LOCK_EX)

    def wait_alone(self, seconds: float) -> bool:
        """Take the lock exclusively, waiting at most this long for others to release it."""
        deadline = time.monotonic() + seconds
        while not self.try_alone():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def release(self) -> None:
        """Release the lock; the file stays open."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give up the lock, unless another process shares the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self, mode: int) -> bool:
        try:
            fcntl.flock(self.fd, mode | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        return True
