"""Finding, starting and stopping the server process."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import MachineError
from tuner.store.embedded.binaries import Binaries
from tuner.store.embedded.cluster import ENVIRONMENT
from tuner.store.embedded.filelocks import FileLock
from tuner.store.embedded.places import PORT, Places, make_socket_folder

if TYPE_CHECKING:
    import psutil

_POLL_SECONDS = 0.02
# The sessions of a server that died end by themselves within moments.
_ORPHANS_SECONDS = 10.0
_FAST_SECONDS, _IMMEDIATE_SECONDS = 60.0, 10.0

SETTINGS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "jit": "off",  # compiling takes longer than our short statements
    "io_method": "sync",  # the default keeps three more processes
    "max_parallel_workers_per_gather": "0",  # containers give /dev/shm only 64 MB
    "huge_pages": "off",
    "wal_level": "minimal",  # nobody replicates an embedded server
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Postmaster:
    """A running server: our own child, or one left behind by an earlier keeper."""

    pid: int
    data: Path
    child: "subprocess.Popen[bytes] | None" = None

    def alive(self) -> bool:
        """Whether the server is still running."""
        if self.child is not None:
            return self.child.poll() is None
        return _is_postmaster(self.pid, self.data)

    def stop(self) -> bool:
        """End sessions and stop the server, by force if necessary; return whether it stopped."""
        for how, seconds in ((signal.SIGINT, _FAST_SECONDS), (signal.SIGQUIT, _IMMEDIATE_SECONDS)):
            with suppress(ProcessLookupError):
                if self.alive():
                    os.kill(self.pid, how)
            if wait_until(lambda: not self.alive(), seconds):
                return True
        return False


def find(data: Path) -> Postmaster | None:
    """Return the server running on `data`; a stale pid file is recognised as such."""
    lines = _pid_lines(data)
    pid = int(lines[0]) if lines and lines[0].isdigit() else 0
    return Postmaster(pid, data) if pid and _is_postmaster(pid, data) else None


def is_ready(places: Places) -> bool:
    """Whether a server listens on the socket and reports that it accepts sessions.

    Listening alone is not enough (recovery), nor is the pid file (stale after a
    power cut); a server rewrites the file before it listens.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(places.socket_file))
        except OSError:
            return False
    lines = _pid_lines(places.data)
    return len(lines) > 7 and lines[7].strip() == "ready"


def launch(places: Places, binaries: Binaries, log_fd: int) -> Postmaster:
    """Start a server, without waiting until it is ready."""
    with FileLock(places.home / "postmaster.lock") as lock:
        # Every process of a server inherits this lock, so holding it exclusively proves that
        # not even an orphaned session of an earlier server is left, whatever the pid file says:
        # its pid may have been reused. This covers this machine only; the caller has made sure
        # that no other machine uses the data (`occupancy`).
        if not lock.wait_alone(_ORPHANS_SECONDS):
            raise MachineError(
                f"Processes of an earlier PostgreSQL server on {places.data} are still ending. "
                "Try again in a moment."
            )
        (places.data / "postmaster.pid").unlink(missing_ok=True)
        _renew_socket_folder(places)
        child = subprocess.Popen(
            _command(places, binaries),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            cwd="/",
            env=ENVIRONMENT,
            umask=0o077,
            pass_fds=(lock.fd,),
            **(places.account.options() if places.account else {}),
        )
    return Postmaster(child.pid, places.data, child)


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition at most this long; return whether it became true."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _command(places: Places, binaries: Binaries) -> list[str]:
    options = [
        word
        for name, value in {**SETTINGS, "unix_socket_directories": str(places.socket)}.items()
        for word in ("-c", f"{name}={value}")
    ]
    return [binaries.program("postgres"), "-D", str(places.data), *options]


def _renew_socket_folder(places: Places) -> None:
    """Recreate the folder: a left-over lock in it may name a pid that has been reused."""
    make_socket_folder(places)
    for leftover in places.socket.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _pid_lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return []


def _is_postmaster(pid: int, data: Path) -> bool:
    """Whether that process is alive and works in our data folder, as only a server does."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        try:
            return data.samefile(process.cwd())
        except psutil.AccessDenied:
            # Root without CAP_SYS_PTRACE (the default in containers) may not read the folder
            # of another account's process. Its owner and command line are open to everyone.
            # A reused pid does not pass: it would have to belong to the server's account and
            # run with our data folder as an argument.
            return process.uids().effective == data.stat().st_uid and _serves(process, data)
    except (psutil.Error, OSError):
        return False


def _serves(process: "psutil.Process", data: Path) -> bool:
    """Whether the process's command line is that of a server on our data folder."""
    words = process.cmdline()
    return "-D" in words[:-1] and words[words.index("-D") + 1] == str(data)
