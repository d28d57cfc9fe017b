"""Fixtures of the workers' tests: in-process supervisors, and worker processes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.store.specs import Bench
from tuner.settings import Settings, worker_environment
from tuner.spec.study import Spec
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended
from tuner.work.stopping import StopRequest
from tuner.work.worker import Orders, work

HERE = Path(__file__).parent
PATIENCE_SECONDS = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, up to a deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def double(behaviour: str, folder: Path) -> tuple[str, ...]:
    """Return the command of a trainer double."""
    folder.mkdir(parents=True, exist_ok=True)
    return (sys.executable, str(HERE / "trainer_double.py"), behaviour, str(folder))


@dataclass
class Station:
    """Where a test stores studies and runs workers on them."""

    settings: Settings
    database: Database
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def launch(self, spec: Spec) -> Bench:
        """Store a study."""
        return Bench.launch(self.database, spec)

    def work(self, study: str, behaviour: str) -> Ended:
        """Run a supervisor in this process until its study ends."""
        return work(self.settings, self.orders(study, behaviour), StopRequest())

    def in_thread(self, study: str, behaviour: str, stop: StopRequest) -> threading.Thread:
        """Run a supervisor on a thread, to look at it meanwhile."""
        orders = self.orders(study, behaviour)
        thread = threading.Thread(target=work, args=(self.settings, orders, stop), daemon=True)
        thread.start()
        return thread

    def orders(self, study: str, behaviour: str) -> Orders:
        """Return the orders of a worker with a trainer double."""
        trainer = double(behaviour, self.folder)
        return Orders(study=study, trainer=trainer, patience_seconds=20)

    def start(self, study: str, behaviour: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a real worker process, in a session of its own."""
        timing = self.settings.timing
        environment = worker_environment(self.settings) | {
            "TUNER_LEASE_SECONDS": str(timing.lease),
            "TUNER_RENEW_SECONDS": str(timing.renew),
            "TUNER_GRACE_SECONDS": str(timing.grace),
            "TUNER_POLL_SECONDS": str(timing.poll),
            "TUNER_GIVE_BACK_SECONDS": str(timing.give_back),
        }
        command = [sys.executable, str(HERE / "worker_double.py")]
        command += [*double(behaviour, self.folder), "--"]
        command += ["worker", "--study", study, "--device", "cpu", *more]
        with (self.folder / f"worker-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def said(self) -> str:
        """Return what the worker processes printed."""
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("worker-*.log")))

    def trainer_pids(self) -> list[int]:
        """Return the process ids of all trainer doubles there have been."""
        return [int(path.name.split("-")[1]) for path in self.folder.glob("environ-*")]

    def close(self) -> None:
        """End the worker processes this station started."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


@pytest.fixture
def station(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Station]:
    """Give the test a station of its own."""
    station = Station(settings, database, tmp_path / "station")
    station.folder.mkdir()
    yield station
    station.close()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
