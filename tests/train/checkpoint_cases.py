"""Locations for checkpoints, small trainings to store there, and ways to inspect them."""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.train.blobs import nothing, untimed
from tuner.records import Job, Result
from tuner.train.checkpoints.keys import root
from tuner.train.checkpoints.location import open_place
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.place import CheckpointPlace
from tuner.train.checkpoints.tree import Tree
from tuner.train.run import Run
from tuner.train.state import TrainingState, fingerprint
from tuner.train.workbench import Workbench

MINE = {"study": "s", "trial": "1"}
OTHERS = {"study": "s", "trial": "2"}


@dataclass(frozen=True)
class Kept:
    """A location and the settings to open it."""

    location: str
    options: Mapping[str, Any]

    def tree(self) -> Tree:
        """Return a new tree there, as another process would open it."""
        return Tree(self.location, self.options)

    def place(self) -> CheckpointPlace:
        """Return the place itself, to inspect and damage files."""
        return open_place(self.location, self.options)


@dataclass(frozen=True)
class Trained:
    """One complete training, with its path and its state after every epoch."""

    path: list[str]
    states: list[TrainingState]
    description: Description

    def store(self, tree: Tree, *epochs: int) -> None:
        """Store the states after these epochs."""
        for epoch in epochs:
            tree.store(self.path[epoch - 1], self.states[epoch - 1], self.description)


def train(bench: Workbench, job: Job, labels: Mapping[str, str] | None = None) -> Trained:
    """Train a job to its end, keeping every state."""
    run, base = bench.begin(job), bench.base(job)
    states = [run.state() for _ in run.epochs(nothing)]
    return Trained(bench.path(job), states, Description(base, root(base), labels or MINE))


def state_text(state: TrainingState) -> str:
    """Write a state as text so that equal texts mean equal bits in any order of names."""
    return json.dumps(
        [
            fingerprint(dict(sorted(state.weights.items()))),
            fingerprint(dict(sorted(state.best_weights.items()))),
            state.best_epoch,
            fingerprint(dict(sorted(state.optimizer.items()))),
            [repr(epoch) for epoch in state.curve],
        ]
    )


def outcome(run: Run) -> str:
    """Write all results of a finished run, except durations and the origin of epochs."""
    state = run.state()
    curve = [
        [repr(value) for value in untimed(replace(epoch, reused=False))] for epoch in state.curve
    ]
    weights = [fingerprint(state.weights), fingerprint(state.best_weights), state.best_epoch]
    return json.dumps([curve, weights, run.diverged, _result_text(run.result())])


def _result_text(result: Result) -> list[object]:
    hashes = [
        (p.split, p.at, hashlib.sha256(p.log_probabilities.tobytes()).hexdigest())
        for p in result.predictions
    ]
    return [repr(result.best), repr(result.last), hashes]


@pytest.fixture(scope="session")
def s3() -> Iterator[Kept]:
    """A bucket on an S3 stand-in that runs in this process."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'tuner[test]'")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    _, port = running.get_host_and_port()
    options = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "key": "test",
        "secret": "test",
    }
    s3fs.S3FileSystem(**options).mkdir("checkpoints")
    yield Kept("s3://checkpoints", options)
    running.stop()


@pytest.fixture(params=["path", "memory", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    """A new location of each kind: a folder, memory://, and a bucket."""
    fresh = uuid.uuid4().hex
    if request.param == "path":
        return Kept(str(tmp_path / "checkpoints"), {})
    if request.param == "memory":
        return Kept(f"memory://{fresh}/checkpoints", {})
    bucket: Kept = request.getfixturevalue("s3")
    return Kept(f"{bucket.location}/{fresh}", bucket.options)
