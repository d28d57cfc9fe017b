"""Real worker processes: started, watched, frozen, killed, and always ended with the test."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.harness import warm
from tests.harness.warm import Forked, Started
from tuner.processes import Streams
from tuner.settings import Settings, worker_environment

PATIENCE_SECONDS = 60.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 0.25


def until(
    condition: Callable[[], object], what: str = "", seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for a condition, up to a deadline.

    Most conditions query the database. Fifty times a second, for the seconds that a cluster takes,
    the queries would cost more than the work itself; so they become less and less frequent.
    """
    deadline = time.monotonic() + seconds
    pause = SHORTEST_PAUSE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_PAUSE)


def environment(settings: Settings) -> dict[str, str]:
    """Return an environment with these settings, and no others."""
    timing = settings.timing
    return worker_environment(settings) | {
        "TUNER_LEASE_SECONDS": str(timing.lease),
        "TUNER_RENEW_SECONDS": str(timing.renew),
        "TUNER_GRACE_SECONDS": str(timing.grace),
        "TUNER_POLL_SECONDS": str(timing.poll),
        "TUNER_GIVE_BACK_SECONDS": str(timing.give_back),
        "PYTHONPATH": warm.PATH,
        "COLUMNS": "200",
    }


@dataclass
class Workers:
    """The worker processes of one test, each with its own log below a folder."""

    folder: Path
    objectives: Path | None = None
    processes: list[Started] = field(default_factory=list)

    def start(
        self,
        settings: Settings,
        study: str,
        *more: str,
        command: Sequence[str] = (),
        called: str = warm.TUNER,
        before: Sequence[str] = (),
        **environ: str,
    ) -> Started:
        """Start `tuner worker` in its own session; its standard input stays open.

        It is forked, unless the start of Python matters or another command is given.
        """
        words = ["worker", "--study", study, "--device", "cpu"]
        if self.objectives is not None:
            words += ["--objectives", str(self.objectives)]
        words = [*before, *words, *more]
        self.folder.mkdir(parents=True, exist_ok=True)
        around = environment(settings) | environ
        inside, outside = os.pipe()
        with (self.folder / f"worker-{len(self.processes)}.log").open("wb") as log:
            streams = Streams(inside, log.fileno(), log.fileno())
            process: Started
            if not command and warm.possible(around):
                forked = warm.fork(words, self.folder, around, streams, called)
                process = Forked(forked)
            else:
                process = subprocess.Popen(
                    [*(command or (sys.executable, "-m", "tuner")), *words],
                    cwd=self.folder,
                    env=around,
                    stdin=inside,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        os.close(inside)
        process.stdin = os.fdopen(outside, "wb")
        self.processes.append(process)
        return process

    def said(self, characters: int | None = None) -> str:
        """Return the workers' output, or only this many characters of its end."""
        logs = sorted(self.folder.glob("worker-*.log"))
        start = None if characters is None else -characters
        return "\n".join(f"{log.name}\n{log.read_text()[start:]}" for log in logs)

    def close(self) -> None:
        """End every remaining worker, frozen ones and their trainers included."""
        for process in self.processes:
            if process.poll() is None:
                kill(*trainers_of(process.pid), process.pid)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def trainers_of(supervisor: int) -> list[int]:
    """Return a supervisor's current trainers, frozen ones included."""
    try:
        family = psutil.Process(supervisor).children(recursive=True)
    except psutil.Error:
        return []
    return [one.pid for one in family if _is_trainer(one)]


def _is_trainer(process: psutil.Process) -> bool:
    """Distinguish a trainer, or its double, from the server that forks trainers."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "trainer" in words and "forkserver" not in words


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may just have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def kill(*pids: int) -> None:
    """kill -9 processes, as simultaneously as possible."""
    for pid in pids:
        send(pid, signal.SIGKILL)


def freeze(*pids: int) -> None:
    """Stop processes with SIGSTOP, and wait until they are stopped."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(is_frozen(pid) for pid in pids), "they stand still")


def thaw(*pids: int) -> None:
    """Resume frozen processes."""
    for pid in pids:
        send(pid, signal.SIGCONT)


def is_frozen(pid: int) -> bool:
    """Return whether a process is stopped by a signal."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
