"""Workers as processes of this machine."""

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
"""Exit codes of workers that had their reasons; anything else is an accident."""
YOUNG_SECONDS = 20.0
LEAVING_SECONDS = 10.0
"""Beyond the time in which a trial is given back."""
HOPELESS = 5
"""After this many workers in a row that die young or of an unexpected error none is replaced."""


@dataclass
class _Post:
    """One place in the crew, and the process that fills it now."""

    device: str
    log: Path
    process: Process | None = None
    started: float = 0.0
    accidents: int = 0
    """In a row that count against the post."""
    pipe: IO[bytes] | None = field(default=None, repr=False)


class LocalFleet:
    """A crew on this machine; a worker killed by accident is replaced."""

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
        """Return how many workers are left; replace those that died by accident."""
        return sum(self._attend(post) for post in self._posts)

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and leave."""
        self._stopping = True
        self._signal(signal.SIGINT)

    def stop_now(self) -> None:
        """Ask every worker to leave at once."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """End what is left of the crew: politely first, since they may hold trials."""
        self._stopping = True
        for post in self._posts:
            if post.pipe is not None:
                post.pipe.close()  # whoever follows it gives its trial back and leaves
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
        """Return what workers said that gave up with an error of their own."""
        told = []
        for post in self._posts:
            code = post.process.poll() if post.process else None
            if code in (EXIT_USER, EXIT_MACHINE) or post.accidents >= HOPELESS:
                told.append(_last_lines(post.log))
        return list(dict.fromkeys(told))

    def _fill(self, post: _Post) -> None:
        arguments = ["--study", self._crew.study, "--device", post.device, "--follow-stdin"]
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
        # Its end tells the worker that the launcher is gone, kill -9 included.
        theirs, ours = os.pipe()
        post.pipe = os.fdopen(ours, "wb")
        log = home_folder.open_private(post.log, os.O_WRONLY | os.O_APPEND)
        try:
            # Ctrl-C in the terminal is for the launcher, which passes it on: a session of its own.
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
        # An error of ours may meet each successor too, however long that takes.
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
