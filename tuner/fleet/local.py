"""Workers as processes on this machine."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tuner import home as home_folder
from tuner.errors import EXIT_DONE, EXIT_FAILURES, EXIT_MACHINE, EXIT_UNEXPECTED, EXIT_USER
from tuner.fleet.contract import Crew
from tuner.forkserver import WORKERS, ForkServer, Program, starter
from tuner.processes import Process, Streams
from tuner.settings import Settings, worker_environment

DELIBERATE = frozenset({EXIT_DONE, EXIT_FAILURES, EXIT_USER, EXIT_MACHINE})
"""Exit codes of workers that ended on purpose; any other end is an accident."""
YOUNG_SECONDS = 20.0
LEAVING_SECONDS = 10.0
"""Added to the time allowed for giving a trial back."""
HOPELESS = 5
"""A worker is not replaced after this many early deaths or unexpected errors in a row."""


@dataclass
class _Post:
    """One place in the crew, and its current process."""

    device: str
    log: Path
    process: Process | None = None
    started: float = 0.0
    accidents: int = 0
    """Early deaths and unexpected errors in a row."""
    pipe: IO[bytes] | None = field(default=None, repr=False)


class LocalFleet:
    """A crew on this machine; a worker that crashed or was killed is replaced."""

    def __init__(self, settings: Settings, crew: Crew, forks: ForkServer | None = None) -> None:
        self._settings = settings
        self._forks = forks
        self._crew = crew
        self._stopping = False
        logs = settings.home / "logs"
        home_folder.make(settings.home)
        home_folder.make_folder(logs)
        self._posts = [
            _Post(device, logs / f"worker-{os.getpid()}-{place}.log")
            for place, device in enumerate(crew.devices)
        ]

    def start(self) -> None:
        """Start a worker for every device."""
        for post in self._posts:
            self._fill(post)

    def running(self) -> int:
        """Return how many workers are running; replace those that crashed or were killed."""
        return sum(self._attend(post) for post in self._posts)

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit."""
        self._stopping = True
        self._signal(signal.SIGINT)

    def stop_now(self) -> None:
        """Ask every worker to exit at once."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """End the workers that are left: politely first, because they may hold trials."""
        self._stopping = True
        for post in self._posts:
            if post.pipe is not None:
                post.pipe.close()  # its worker notices, gives its trial back and exits
        deadline = time.monotonic() + self._settings.timing.give_back + LEAVING_SECONDS
        for post in self._posts:
            if post.process is None:
                continue
            try:
                post.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                post.process.kill()
                post.process.wait()

    def failures(self) -> list[str]:
        """Return the last output of workers that gave up with an error."""
        messages = []
        for post in self._posts:
            code = post.process.poll() if post.process else None
            if code in (EXIT_USER, EXIT_MACHINE) or post.accidents >= HOPELESS:
                messages.append(_last_lines(post.log))
        return list(dict.fromkeys(messages))

    def _fill(self, post: _Post) -> None:
        arguments = [self._crew.study, "--device", post.device, "--follow-stdin"]
        if self._crew.threads is not None:
            arguments += ["--threads", str(self._crew.threads)]
        for folder in self._crew.folders:
            arguments += ["--objectives", str(folder)]
        worker = Program(
            "tuner.cli.worker", "tuner worker", tuple(arguments), forks=True, needs=WORKERS
        )
        start = starter(self._forks, worker, worker_environment(self._settings))
        if post.pipe is not None:
            post.pipe.close()
        # When the launcher dies, by kill -9 too, the pipe closes and the worker notices.
        theirs, ours = os.pipe()
        post.pipe = os.fdopen(ours, "wb")
        log = home_folder.open_private(post.log, os.O_WRONLY | os.O_APPEND)
        try:
            # The worker has its own session: Ctrl-C in the terminal reaches only the launcher,
            # which passes it on.
            post.process = start(Streams(theirs, log, log))
        finally:
            os.close(theirs)
            os.close(log)
        post.started = time.monotonic()

    def _attend(self, post: _Post) -> bool:
        assert post.process is not None
        code = post.process.poll()
        if code is None:
            return True
        if self._stopping or code in DELIBERATE:
            return False
        young = time.monotonic() - post.started < YOUNG_SECONDS
        # A bug of ours may also hit every replacement, even after a long time.
        counts = young or code == EXIT_UNEXPECTED
        post.accidents = post.accidents + 1 if counts else 0
        if post.accidents >= HOPELESS:
            return False
        self._fill(post)
        return True

    def _signal(self, number: signal.Signals) -> None:
        for post in self._posts:
            if post.process is not None and post.process.poll() is None:
                post.process.send_signal(number)


def _last_lines(log: Path, count: int = 12) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-count:])
