"""A crew of real worker processes, replaced when they die, as `tuner launch` does it."""

import subprocess
from dataclasses import dataclass, field

from tests.faults.scenes import Scene
from tuner.fleet.local import DELIBERATE


@dataclass
class Crew:
    """Worker processes, each replaced when it dies of anything but a reason of its own."""

    scene: Scene
    study: str
    count: int
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    started: int = 0
    gave_up: list[int] = field(default_factory=list)
    """Exit codes of workers that ended by an error of their own."""

    def attend(self) -> None:
        """Start workers where there are none."""
        while len(self.processes) < self.count:
            self.processes.append(self._start())
        for place, process in enumerate(self.processes):
            code = process.poll()
            if code is not None and code not in DELIBERATE:
                self.processes[place] = self._start()

    def running(self) -> list["subprocess.Popen[bytes]"]:
        """Return the workers that are alive."""
        return [process for process in self.processes if process.poll() is None]

    def close(self) -> None:
        """End all workers, and note who had given up."""
        self.gave_up = [code for one in self.processes if (code := one.poll()) not in (None, 0)]
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def said(self) -> str:
        """Return the end of what each worker said."""
        logs = sorted(self.scene.folder.glob("worker-*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-600:]}" for log in logs)

    def _start(self) -> "subprocess.Popen[bytes]":
        log = self.scene.folder / f"worker-{self.started}.log"
        self.started += 1
        return self.scene.start_worker(self.study, log)
