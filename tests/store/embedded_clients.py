"""Processes that use an embedded server, to be ended in every possible way."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tuner.store.embedded import places as embedded_places
from tuner.store.embedded import postmaster as embedded_postmaster
from tuner.store.embedded import server as embedded
from tuner.store.embedded.status import keeper_pid

# In memory if there is such a folder: these tests are not about the disk.
_FOLDER = next(folder for folder in ("/dev/shm", "/tmp") if os.access(folder, os.W_OK))
CODE = Path(embedded.__file__).resolve().parents[3]
NOBODY = 65534
_PROGRAM = """
import sys
from pathlib import Path
from tuner.store.embedded import server as embedded
with embedded.join(Path(sys.argv[1])):
    print("joined", flush=True)
    sys.stdin.read()
"""


class Client:
    """A process that joins at once and leaves on request, or is killed."""

    def __init__(
        self,
        home: Path,
        python: str = sys.executable,
        environ: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [python, "-c", _PROGRAM, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CODE,
            env={**os.environ, **(environ or {})},
            **options,
        )

    def joined(self) -> "Client":
        """Wait until the client has joined; fail with its output if it has not."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != "joined\n":
            raise AssertionError(self.process.communicate()[1])
        return self

    def leave(self) -> None:
        """Let the client leave properly."""
        self.process.communicate()

    def kill(self) -> None:
        """Kill the client as an out-of-memory killer would."""
        self.process.kill()
        self.process.communicate()


def eventually(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition; fail if it never holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "the awaited condition did not come to hold"
        time.sleep(0.01)


def server_pid(home: Path) -> int:
    """Return the running server's process id; 0 if there is none."""
    places = embedded_places.find(home)
    found = embedded_postmaster.find(places.data) if places else None
    return found.pid if found else 0


def servers(data: Path) -> set[int]:
    """Return all server processes of the data folder, found without their pid file."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "-D" in process.cmdline() and str(data) in process.cmdline():
                found[process.pid] = process.ppid()
    # A session that was just forked still has its server's command line.
    return {pid for pid, parent in found.items() if parent not in found}


def gone(home: Path) -> bool:
    """Whether neither server nor keeper of `home` is left."""
    places = embedded_places.find(home)
    return places is None or not (keeper_pid(places) or servers(places.data))


@contextmanager
def fresh_home(below: Path | None = None) -> Iterator[Path]:
    """A home that the server's account can reach, unlike pytest's private folders."""
    folder = Path(tempfile.mkdtemp(prefix="tuner-test-", dir=below or _FOLDER))
    folder.chmod(0o755)
    home = folder / ".tuner"
    try:
        yield home
    finally:
        clear(home)
        shutil.rmtree(folder)


def clear(home: Path) -> None:
    """Stop whatever a test left running, and remove its files outside the home."""
    places = embedded_places.find(home) if home.exists() else None
    if places is None:
        return
    embedded.stop(home, force=True)
    for pid in servers(places.data):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    embedded.erase(home)
