"""A crew of real worker processes, replaced when they die, as `tuner launch` does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.scenes import Scene
from tests.harness.warm import Started
from tuner.fleet.replacements import DELIBERATE


@dataclass
class Crew:
    """Worker processes, each replaced unless it exits on its own."""

    scene: Scene
    study: str
    count: int
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the workers, and of their trainers."""
    processes: list[Started] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
    """How workers ended by their own errors."""

    def attend(self) -> None:
        """Start missing workers."""
        while len(self.processes) < self.count:
            self.processes.append(self._start())
        for place, process in enumerate(self.processes):
            code = process.poll()
            if code is not None and code not in DELIBERATE:
                self.processes[place] = self._start()

    def _start(self) -> Started:
        return self.scene.start_worker(self.study, **self.environment)

    def pids(self) -> list[int]:
        """Return the workers that are alive."""
        return [process.pid for process in self.processes if process.poll() is None]

    @property
    def started(self) -> int:
        """The number of workers started so far."""
        return len(self.scene.workers.processes)

    def said(self) -> str:
        """Return the last output of the workers."""
        return self.scene.workers.said(600)

    def close(self) -> None:
        """End all workers, and record which had given up."""
        codes = [code for one in self.processes if (code := one.poll()) not in (None, 0)]
        self.gave_up = [f"a worker gave up with code {code}" for code in codes]
        self.scene.workers.close()
