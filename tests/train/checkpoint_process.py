"""A process that resumes trainings from stored checkpoints, controlled line by line."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.train.blobs import nothing
from tests.train.checkpoint_cases import MINE, outcome
from tuner.records import Job
from tuner.train.checkpoints.resume import resume
from tuner.train.checkpoints.tree import Tree
from tuner.train.workbench import Workbench


class Resumer:
    """Another process with its own workbench."""

    def __init__(self, folders: Sequence[Path], cache: Path) -> None:
        command = [sys.executable, "-m", __name__, str(cache), *map(str, folders)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def finish(self, job: Job, location: str) -> tuple[int, str]:
        """Resume a job there and train it to its end; return its first epoch, and its outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"job": vars(job), "location": location}) + "\n")
        self._process.stdin.flush()
        began, left = json.loads(self._process.stdout.readline())
        return int(began), str(left)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


def serve(cache: Path, folders: Sequence[Path]) -> None:
    """Answer requests until there are no more."""
    bench = Workbench("cpu", 1, cache, folders, lambda *_: None)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        job = Job(**request["job"])
        run = bench.begin(job)
        began = resume(run, Tree(request["location"]), bench.path(job), MINE)
        for _ in run.epochs(nothing):
            pass
        sys.stdout.write(json.dumps([began, outcome(run)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
