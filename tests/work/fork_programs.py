"""Programs that tests have forked; the fork server imports this module by its name."""

import atexit
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says."""
    what, *more = arguments
    programs = (tell, leave, die, sleep, talk, family, linger)
    return {program.__name__: program for program in programs}[what](more)


def tell(_more: Sequence[str]) -> int:
    """Write a process's surroundings as JSON."""
    proc = Path("/proc/self")
    held = sorted(int(one.name) for one in list((proc / "fd").iterdir()))
    told = {
        "environment": dict(os.environ),
        "session": os.getsid(0) == os.getpid(),
        "argv": sys.argv,
        "cmdline": (proc / "cmdline").read_text().rstrip("\0"),
        "descriptors": [number for number in held if (proc / "fd" / str(number)).exists()],
        "threads": threading.active_count(),
        "numpy": np.random.random(),
        "random": random.random(),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }
    sys.stdout.write(json.dumps(told))
    sys.stderr.write("to standard error\n")
    return 0


def leave(more: Sequence[str]) -> int:
    """Exit with a status."""
    return int(more[0])


def die(more: Sequence[str]) -> int:
    """End by a signal."""
    os.kill(os.getpid(), int(more[0]))
    return 0


def sleep(_more: Sequence[str]) -> int:
    """Wait to be ended."""
    time.sleep(600)
    return 0


def talk(more: Sequence[str]) -> int:
    """Answer on the channel."""
    channel = socket.socket(fileno=int(more[-1]))
    channel.sendall(channel.recv(100).upper())
    return 0


def family(_more: Sequence[str]) -> int:
    """Fork a child that stays alive, and end."""
    if os.fork() == 0:
        time.sleep(600)
    return 0


def linger(_more: Sequence[str]) -> int:
    """Leave work for after the return: a thread, an exit handler, and a line without an end."""

    def work() -> None:
        time.sleep(0.2)
        sys.stdout.write("thread, ")

    threading.Thread(target=work).start()
    ThreadPoolExecutor(1).submit(work)
    atexit.register(lambda: sys.stdout.write("handler"))
    return 5
