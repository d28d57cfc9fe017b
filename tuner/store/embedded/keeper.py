"""The process that owns the embedded server: it starts it, watches it, and stops it.

The first client (`tuner.store.embedded`) starts a keeper and passes it the server's
lock: whoever holds that lock is the keeper. It outlives its parent, and stops the
server once no process holds the clients' lock. It is a separate program, so that
no client's death, of whatever kind, takes the server down.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tuner.errors import DatabaseError, MachineError, TunerError
from tuner.store.embedded import cluster as embedded_cluster
from tuner.store.embedded import occupancy as embedded_occupancy
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import postmaster as embedded_postmaster
from tuner.store.embedded.binaries import Binaries, locate_for
from tuner.store.embedded.filelocks import FileLock
from tuner.store.embedded.places import Places
from tuner.store.embedded.postmaster import Postmaster

_POLL_SECONDS = 0.25
_LOG_BYTES = 5_000_000
_LOG_LINES = 12
# A server that dies this often in a row, each time within this time, is not restarted.
_RESTARTS, _SOON_SECONDS = 3, 10.0


class Keeper:
    """Runs one server, from before its start until after its end."""

    def __init__(self, places: Places, binaries: Binaries) -> None:
        self.places = places
        self.binaries = binaries
        self.clients = FileLock(places.home / "clients.lock")
        self.log_fd = embedded_places.open_private(places.log, os.O_RDWR | os.O_APPEND)
        self.postmaster: Postmaster | None = None
        self.started = 0.0
        self.restarts = 0
        self.told_to_stop = False

    def start(self) -> None:
        """Adopt a running server, or start one; return when it accepts sessions."""
        # Before trusting the pid file: it may be from another machine, and its pid may belong
        # to an unrelated process here.
        embedded_occupancy.occupy(self.places)
        self.started = time.monotonic()
        log_start = os.fstat(self.log_fd).st_size
        self.postmaster = embedded_postmaster.find(self.places.data)
        if self.postmaster is None:
            embedded_cluster.ensure(self.places, self.binaries)
            self.postmaster = embedded_postmaster.launch(self.places, self.binaries, self.log_fd)
        self._await_ready(self.postmaster, log_start)

    def keep(self) -> None:
        """Watch the server until its last client has left or SIGTERM comes; then stop it."""
        while not self.told_to_stop and not self._deserted():
            if self.postmaster is None or not self.postmaster.alive():
                self._restart()
            self._bound_log()
            time.sleep(_POLL_SECONDS)
        if self.postmaster is not None and not self.postmaster.stop():
            raise DatabaseError(f"The server (process {self.postmaster.pid}) did not stop.")

    def obey(self, *_: object) -> None:
        """Handle SIGTERM: stop at the next poll, even with clients."""
        self.told_to_stop = True

    def _deserted(self) -> bool:
        """Return whether the last client has left; if so, new clients wait until we are gone.

        We keep the lock until this process ends, so that no client can join a
        server that is about to stop.
        """
        if not _same_file(self.clients):
            return True  # the home was deleted, and the data with it
        if not self.clients.try_alone():
            return False
        if self.places.pin.exists():
            self.clients.release()
            return False
        return True

    def _restart(self) -> None:
        """Restart the server, unless it keeps dying as soon as it starts."""
        soon = time.monotonic() - self.started < _SOON_SECONDS
        self.restarts = self.restarts + 1 if soon else 1
        if self.restarts > _RESTARTS:
            raise DatabaseError(f"The server died {_RESTARTS} times in a row; giving up.")
        os.write(self.log_fd, b"tuner: the server died; restarting it\n")
        with suppress(DatabaseError):  # the failure is in the log, and the next poll counts it
            self.start()

    def _await_ready(self, postmaster: Postmaster, log_start: int) -> None:
        """Wait as long as recovery takes; raise if the server exits instead."""
        while not embedded_postmaster.is_ready(self.places):
            if not postmaster.alive():
                said = _tail(self.places.log, log_start)
                raise DatabaseError(
                    f"The embedded PostgreSQL did not start. The end of its log "
                    f"({self.places.log}):\n{said}\nFree disk space or fix the permissions, and "
                    "try again; `tuner db status` shows the folders in use."
                )
            if self.told_to_stop:
                return
            time.sleep(0.01)

    def _bound_log(self) -> None:
        """Move the end of a large log to server.log.1 and truncate the log.

        The server appends, so it continues at the new end.
        """
        if os.fstat(self.log_fd).st_size > _LOG_BYTES:
            self.places.log.with_name("server.log.1").write_bytes(self.places.log.read_bytes())
            os.ftruncate(self.log_fd, 0)


def main(home: Path, lock_fd: int, report_fd: int) -> None:
    """Keep the server of `home`; report through the pipe how the start went."""
    _detach()
    lock = FileLock.inherited(home / "server.lock", lock_fd)
    os.set_inheritable(report_fd, False)
    os.ftruncate(lock.fd, 0)
    os.pwrite(lock.fd, f"{os.getpid()}\n".encode(), 0)
    try:
        try:
            keeper = _begin(home)
        except (TunerError, OSError) as error:
            _report(report_fd, _fault(error))
            raise
        _report(report_fd, {})
        keeper.keep()
    finally:
        # Still under the server's lock, so no successor has begun. After a failed start too,
        # or another machine would be refused for nothing.
        if (places := embedded_places.find(home)) is not None:
            embedded_occupancy.vacate(places)


def _begin(home: Path) -> Keeper:
    places = embedded_places.find(home)
    if places is None:
        raise MachineError(f"The folder {home} disappeared while its database was being started.")
    keeper = Keeper(places, locate_for(places.account))
    signal.signal(signal.SIGTERM, keeper.obey)
    keeper.start()
    return keeper


def _detach() -> None:
    """Detach from the parent's process tree, terminal, folder and signal handlers.

    The parent made a new session; forking once more leaves no child that the parent
    would have to wait for, or that killing its descendants would reach.
    """
    if os.fork() > 0:
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)


def _report(fd: int, message: dict[str, str]) -> None:
    """Report to the parent, if it is still alive."""
    try:
        os.write(fd, json.dumps(message).encode() + b"\n")
        os.close(fd)
    except OSError:
        return


def _fault(error: Exception) -> dict[str, str]:
    """Return the error for the parent to raise in its process."""
    if isinstance(error, TunerError):
        return {"error": type(error).__name__, "message": str(error)}
    text = f"The embedded database cannot be started: {error}. Fix this and try again."
    return {"error": MachineError.__name__, "message": text}


def _same_file(lock: FileLock) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fd), lock.path.stat())
    except OSError:
        return False


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
