"""Child processes: how they are started, and how their end is noticed.

`python -m` puts the working folder first on the import path. A `numpy.py` or
`random.py` there would shadow the real one, and a folder `tuner` this package. So
every child is started with -P, which leaves that folder out, through a file that
loads its own package, so that it also works from a source tree that is not installed.
Objectives are found by their folders and do not need the import path.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

logger = logging.getLogger(__name__)

START = Path(__file__).resolve().with_name("start.py")


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package in a new process."""
    return (sys.executable, "-P", str(START), module, *arguments)


def has_folder() -> bool:
    """Return whether the working directory still exists.

    Ray removes a dying node's working directory, with the objectives in it, before it kills the
    processes that run there.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class Streams:
    """Open descriptors for a new process: its standard streams, and optionally a channel.

    The number of the channel is appended to the process's arguments.
    """

    stdin: int
    stdout: int
    stderr: int
    channel: int | None = None


class Process(Protocol):
    """A process that was started for us: by exec (`subprocess.Popen`), or by a fork server."""

    @property
    def pid(self) -> int:
        """Its process id, which is not reused before `wait` or `poll` has returned the status."""

    @property
    def returncode(self) -> int | None:
        """The exit status, once `wait` or `poll` has returned it."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """Kill the process, without its children."""

    def wait_unreaped(self) -> None:
        """Wait for the end without releasing the process id."""


class Executed(subprocess.Popen[bytes]):
    """A process started by exec, in its own session."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], streams: Streams
    ) -> None:
        passed = [] if streams.channel is None else [streams.channel]
        super().__init__(
            [*command, *map(str, passed)],
            pass_fds=passed,
            env=dict(environment),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            start_new_session=True,
        )

    def wait_unreaped(self) -> None:
        """Wait for the end without reaping the process."""
        wait_unreaped(self.pid)


def wait_unreaped(pid: int) -> None:
    """Wait until our child has ended, without reaping it."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):  # reaped meanwhile
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    with contextlib.suppress(psutil.Error):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)


def kill_family(process: "Process | subprocess.Popen[Any]") -> None:
    """Kill a child that leads a process group, with its descendants, even if it has ended."""
    # Once the child is reaped, its pid may be reused. Until then it identifies its process
    # group, in which its descendants may live on.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()


def pin(cores: Collection[int]) -> None:
    """Pin this process, and processes that it starts from now on, to cores.

    Threads inherit the cores of the thread that creates them, so existing threads are pinned one by
    one. Cores that are not available to this process any more are left out.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    # By the kernel's thread ids: in a forked process, `threading` has the main thread's id of the
    # parent, which would be pinned instead.
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:
            continue  # it has just ended
        except OSError as error:
            logger.warning("this process runs on any core: %s", error.strerror)
