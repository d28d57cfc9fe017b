"""The embedded server's status, read without joining it."""

import os
from dataclasses import dataclass
from pathlib import Path

from tuner.home import name_of
from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import postmaster as embedded_postmaster
from tuner.store.embedded.binaries import locate_for
from tuner.store.embedded.occupancy import occupant_elsewhere
from tuner.store.embedded.places import Places


@dataclass(frozen=True)
class ServerStatus:
    """The state of one embedded server and where its files are."""

    running: bool
    pid: int | None
    keeper: int | None
    """The process that stops the server; None if it died, until the next client joins."""
    pinned: bool
    """Whether it runs without clients, until `tuner db stop`."""
    version: str
    """Of the programs; the data have the same major version."""
    home: Path
    data: Path | None
    """None before a database is created. Outside `home` if the server's account cannot reach it."""
    binaries: Path
    socket: Path | None
    log: Path
    account: str
    """The user that the server runs as."""
    clients: tuple[int, ...]
    """Processes that use the server, as far as this user may see them."""
    bytes_on_disk: int
    used_on: str | None = None
    """Another machine whose server uses the data, or was not shut down."""


def status(home: Path) -> ServerStatus:
    """Return the status of the server of `home`; nothing is created or started."""
    places = embedded_places.find(home)
    made = places is not None and places.data.exists()
    account = places.account if places else embedded_places.account_for(home)
    binaries = locate_for(account)
    elsewhere = occupant_elsewhere(places) if places else None
    # The pid file of another machine says nothing about the processes of this one.
    running = embedded_postmaster.find(places.data) if places and not elsewhere else None
    return ServerStatus(
        running=running is not None,
        pid=running.pid if running else None,
        keeper=keeper_pid(places) if places else None,
        pinned=places is not None and places.pin.exists(),
        version=binaries.version,
        home=home.resolve(),
        data=places.data if places and made else None,
        binaries=binaries.folder,
        socket=places.socket if places else None,
        log=home.resolve() / "server.log",
        account=name_of(account.uid if account else os.geteuid()),
        clients=client_pids(places) if places else (),
        bytes_on_disk=_size(places.root) if places else 0,
        used_on=elsewhere.host if elsewhere else None,
    )


def keeper_pid(places: Places) -> int | None:
    """Return the pid of the server's keeper, verified to be a keeper."""
    import psutil

    try:
        pid = int((places.home / "server.lock").read_text())
        words = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return pid if "tuner.store.embedded.keeper" in words and str(places.home) in words else None


def client_pids(places: Places) -> tuple[int, ...]:
    """Return the processes with the clients' lock open, except the keeper and ourselves."""
    import psutil

    lock = str(places.home / "clients.lock")
    ours = {os.getpid(), keeper_pid(places)}
    pids = []
    for process in psutil.process_iter():
        try:
            if process.pid not in ours and any(f.path == lock for f in process.open_files()):
                pids.append(process.pid)
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or not readable by us
    return tuple(sorted(pids))


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue  # the server is removing files meanwhile
    return total
