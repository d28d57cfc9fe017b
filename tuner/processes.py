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
from pathlib import Path
from typing import Any

import psutil

START = Path(__file__).resolve().with_name("start.py")


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package in a process of its own."""
    return (sys.executable, "-P", str(START), module, *arguments)


def wait_unreaped(pid: int) -> None:
    """Wait until a child of ours has ended, and leave its exit status to be read."""
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):  # reaped meanwhile
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    with contextlib.suppress(psutil.Error):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)


def kill_family(process: "subprocess.Popen[Any]") -> None:
    """Kill a child that leads a process group, and all that it started; dead or alive."""
    # Once the child is reaped its number may be another process's. Until then it is the
    # number of its group, in which what it started may live on.
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
