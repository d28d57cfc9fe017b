"""Child processes of this program: how each is started, and how its end is noticed.

`python -m` puts the folder one stands in first on the path of imports. A
`numpy.py` or `random.py` lying there would run in place of the real one, and a
folder `tuner` in place of this package. So every child is started with -P, which
leaves that folder out, by a file that loads the package it lies in: also from a
source tree that was never installed. Objectives are found by their folders and
need no path of imports.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

START = Path(__file__).resolve().with_name("start.py")


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package in a process of its own."""
    return (sys.executable, "-P", str(START), module, *arguments)


@dataclass(frozen=True)
class Streams:
    """Open descriptors that a new process is given: its standard ones, and perhaps a channel.

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
        """Its process id; it is no other process's before `wait` or `poll` has told the end."""

    @property
    def returncode(self) -> int | None:
        """How it ended, once `wait` or `poll` has told."""

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return how it ended."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """Kill the process alone."""

    def wait_unreaped(self) -> None:
        """Wait for the end, and leave the process id as it is."""


class Executed(subprocess.Popen[bytes]):
    """A process that was started as a program of its own, in a session of its own."""

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
        """Wait for the end, and leave the exit status to be read."""
        wait_unreaped(self.pid)


def wait_unreaped(pid: int) -> None:
    """Wait until a child of ours has ended, and leave its exit status to be read."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):  # reaped meanwhile
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    with contextlib.suppress(psutil.Error):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)


def kill_family(process: "Process | subprocess.Popen[Any]") -> None:
    """Kill a child that leads a process group, and all that it started; dead or alive."""
    # Once the child is reaped its number may be another process's. Until then it is the
    # number of its group, in which what it started may live on.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
