"""The embedded PostgreSQL server: joining, starting, stopping and erasing it.

Every client of the server holds the *clients' lock* shared; the kernel releases it
when the process dies. A keeper (`tuner.store.embedded.keeper`) holds the *server's
lock* and stops the server when the clients' lock is free. A client that finds the
server's lock free takes it and passes it to a keeper that it starts; exactly one of
any number of simultaneous first clients does so.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tuner import home as home_folder
from tuner.errors import DatabaseError, DatabaseUnreachableError, MachineError, UserError
from tuner.processes import python
from tuner.store.address import Address
from tuner.store.embedded import occupancy as embedded_occupancy
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import postmaster as embedded_postmaster
from tuner.store.embedded.cluster import DATABASE, USER
from tuner.store.embedded.filelocks import FileLock
from tuner.store.embedded.places import PORT, Places
from tuner.store.embedded.postmaster import wait_until
from tuner.store.embedded.status import ServerStatus, client_pids, keeper_pid, status

__all__ = ["Membership", "ServerStatus", "erase", "join", "start", "status", "stop"]

# Long enough for a crash recovery or a slow shutdown; a first start takes one second.
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.02
_KEEPER_ATTEMPTS = 3


class Membership:
    """A process's share in the server, which keeps the server running until left."""

    def __init__(self, address: Address, lock: FileLock) -> None:
        self.address = address
        self._lock = lock

    def leave(self) -> None:
        """Give up the share; when the last client has left, the server stops."""
        self._lock.close()

    def __enter__(self) -> "Membership":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.leave()


def exists(home: Path) -> bool:
    """Whether the home has a database."""
    places = embedded_places.find(home)
    return places is not None and places.data.exists()


def join(home: Path, meanwhile: Callable[[], object] = lambda: None) -> Membership:
    """Make sure that the server of `home` runs, and keep it running until left.

    `meanwhile` is called once, while the server starts if it does not run yet.
    """
    home_folder.make(home)
    home = home.resolve()
    clients = FileLock(home / "clients.lock")
    try:
        # Held exclusively by a keeper that is stopping the server and will be gone soon.
        if not wait_until(clients.try_shared, _PATIENCE_SECONDS):
            raise DatabaseUnreachableError(
                f"The embedded database in {home} is still stopping after a long time. "
                f"See {home / 'server.log'}, then try again."
            )
        places = _ensure_running(home, meanwhile)
        return Membership(_address(places), clients)
    except BaseException:
        clients.close()
        raise


def start(home: Path) -> Membership:
    """Make the server run even without clients until `stop`; the caller must leave its share."""
    home_folder.make(home)
    os.close(embedded_places.open_private(home.resolve() / "pinned", os.O_WRONLY))
    return join(home)


def stop(home: Path, force: bool = False) -> bool:
    """Stop the server, unless it is in use; return whether one was running.

    With `force` it is stopped anyway, and its clients lose their sessions.
    """
    places = embedded_places.find(home)
    if places is None:
        return False
    embedded_occupancy.refuse_elsewhere(places)
    places.pin.unlink(missing_ok=True)
    with FileLock(places.home / "clients.lock") as clients:
        if not force:
            _wait_for_nobody(places, clients)
        return _stop(places)


def erase(home: Path) -> None:
    """Stop the server, even if it is in use, and delete its data, wherever they are."""
    places = embedded_places.find(home)
    if places is None:
        return
    stop(home, force=True)
    for folder in (places.root, places.socket):
        shutil.rmtree(folder, ignore_errors=True)
    (places.home / "elsewhere").unlink(missing_ok=True)


def _ensure_running(home: Path, meanwhile: Callable[[], object]) -> Places:
    """Return once the server accepts sessions and has a keeper, ours or another's."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    silent = 0
    prepared = False
    while time.monotonic() < deadline:
        report_fd = _start_keeper(home)
        if not prepared:
            prepared = True
            meanwhile()
        if report_fd is not None and not _hear(report_fd, deadline):
            silent += 1
        if silent == _KEEPER_ATTEMPTS:
            raise DatabaseError(
                f"The database's keeper process died {silent} times without reporting an error; "
                f"the end of {home / 'server.log'} may say why."
            )
        places = embedded_places.find(home)
        if places is not None:
            # If locks are shared between machines, the keeper may be on another machine. Its
            # socket is useless here, so do not wait for it.
            embedded_occupancy.refuse_elsewhere(places)
            if embedded_postmaster.is_ready(places):
                return places
        time.sleep(_POLL_SECONDS)
    raise DatabaseUnreachableError(
        f"The embedded database in {home} did not start within {_PATIENCE_SECONDS:.0f} seconds. "
        f"See {home / 'server.log'}; it may still be recovering."
    )


def _start_keeper(home: Path) -> int | None:
    """Start a keeper if there is none; return the pipe on which it reports its start.

    The lock passes to the keeper with its descriptor: no other client can take it
    in between, and if we die on the way it is free again.
    """
    with FileLock(home / "server.lock") as server:
        if not server.try_alone():
            return None
        embedded_places.settle(home)
        report_fd, its_end = os.pipe()
        log_fd = embedded_places.open_private(home / "server.log", os.O_WRONLY | os.O_APPEND)
        try:
            # This returns as soon as the program has detached itself (a second fork).
            subprocess.run(
                python("tuner.store.embedded.keeper", str(home), str(server.fd), str(its_end)),
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=(server.fd, its_end),
                start_new_session=True,
                cwd="/",
                check=False,
            )
        finally:
            os.close(its_end)
            os.close(log_fd)
        return report_fd


def _hear(report_fd: int, deadline: float) -> bool:
    """Wait for the keeper's report; raise its error here, or return whether it reported."""
    with os.fdopen(report_fd, "rb") as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            return True  # slow, not dead
        line = pipe.readline()
    if not line:
        return False
    fault: dict[str, str] = json.loads(line)
    if fault:
        kind = MachineError if fault["error"] == MachineError.__name__ else DatabaseError
        raise kind(fault["message"])
    return True


def _address(places: Places) -> Address:
    try:
        password = places.password_file.read_text()
    except OSError as error:
        raise MachineError(
            f"The password of the embedded database cannot be read from {places.password_file}: "
            f"{error.strerror}. Run `tuner db stop`; the next start creates a new password."
        ) from error
    return Address(
        {
            "host": str(places.socket),
            "port": PORT,
            "user": USER,
            "password": password,
            "dbname": DATABASE,
        }
    )


def _wait_for_nobody(places: Places, clients: FileLock) -> None:
    """Take the clients' lock exclusively, or raise an error that names the clients."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not clients.try_alone():
        users = client_pids(places)
        if users or time.monotonic() > deadline:
            who = ", ".join(str(pid) for pid in users) or "unknown"
            raise UserError(
                f"The database in {places.home} is in use (processes: {who}). It stops by "
                "itself when they end; `tuner db stop --force` stops it anyway."
            )
        time.sleep(_POLL_SECONDS)


def _stop(places: Places) -> bool:
    """Tell the keeper to stop, or without a keeper stop the server ourselves.

    Wait only for the keeper that is running now: with `force`, a new client may have
    started another before we look again, and that one must not be stopped.
    """
    running = embedded_postmaster.find(places.data) is not None
    keeper = keeper_pid(places)
    if keeper is not None:
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)
        if wait_until(lambda: keeper_pid(places) != keeper, _PATIENCE_SECONDS):
            return True
        raise DatabaseError(
            f"The embedded database in {places.home} did not stop (keeper process {keeper}); "
            f"see {places.log}."
        )
    with FileLock(places.home / "server.lock") as server:
        alone = server.try_alone()
        left = embedded_postmaster.find(places.data) if alone else None
        if left is not None and not left.stop():
            raise DatabaseError(
                f"The embedded PostgreSQL (process {left.pid}) did not stop; see {places.log}."
            )
        if alone:
            embedded_occupancy.vacate(places)
    return running
