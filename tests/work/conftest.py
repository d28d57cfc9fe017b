"""Fixtures of the workers' tests: in-process supervisors, and worker processes."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import warm
from tests.harness.processes import Workers
from tests.harness.warm import Started
from tests.store.specs import Bench
from tests.work import worker_double
from tuner.forkserver import Program
from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended
from tuner.work.stopping import StopRequest
from tuner.work.worker import Orders, work


def double(behaviour: str, folder: Path) -> Program:
    """Return a trainer double."""
    folder.mkdir(parents=True, exist_ok=True)
    return Program(worker_double.DOUBLE, "tuner trainer", (behaviour, str(folder)))


@dataclass
class Station:
    """A test's studies and the workers on them."""

    settings: Settings
    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.workers = Workers(self.folder)

    def launch(self, spec: Spec) -> Bench:
        """Store a study."""
        return Bench.launch(self.database, spec)

    def work(self, study: str, behaviour: str) -> Ended:
        """Run a supervisor in this process until its study ends."""
        return work(self.settings, self.orders(study, behaviour), StopRequest())

    def in_thread(self, study: str, behaviour: str, stop: StopRequest) -> threading.Thread:
        """Run a supervisor on a thread, to observe it meanwhile."""
        return self.on_thread(self.orders(study, behaviour), stop)

    def on_thread(self, orders: Orders, stop: StopRequest) -> threading.Thread:
        """Run a supervisor with given orders on a thread."""
        thread = threading.Thread(target=work, args=(self.settings, orders, stop), daemon=True)
        thread.start()
        return thread

    def orders(self, study: str, behaviour: str) -> Orders:
        """Return the orders of a worker with a trainer double."""
        trainer = double(behaviour, self.folder)
        forks = warm.fork_server()
        return Orders(study=StudyRef(study), trainer=trainer, forks=forks, patience_seconds=20)

    def start(
        self,
        study: str,
        behaviour: str,
        *more: str,
        executed: bool = False,
        group: Path | None = None,
    ) -> Started:
        """Start a real worker process with a trainer double; in a control group, if given."""
        trainer = double(behaviour, self.folder).arguments
        if not executed and group is None and warm.possible({}):
            called = f"{worker_double.__name__}:main"
            return self.workers.start(self.settings, study, *more, called=called, before=trainer)
        command = [sys.executable, worker_double.__file__, *trainer]
        if group is not None:
            enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
            command = ["sh", "-c", enter, "sh", *command]
        return self.workers.start(self.settings, study, *more, command=command)

    def said(self) -> str:
        """Return the output of the worker processes."""
        return self.workers.said()

    def trainer_pids(self) -> list[int]:
        """Return the process ids of all trainer doubles so far."""
        return [int(path.name.split("-")[1]) for path in self.folder.glob("environ-*")]

    def close(self) -> None:
        """End the worker processes this station started."""
        self.workers.close()


@pytest.fixture
def station(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Station]:
    """Return the test's own station."""
    station = Station(settings, database, tmp_path / "station")
    station.folder.mkdir()
    yield station
    station.close()
