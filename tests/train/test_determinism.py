"""Training is a function of job, code and data: in one process, in two, and when resumed."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.train.blobs import Blobs, blob_job, nothing, untimed
from tuner.records import Job
from tuner.train.run import Run
from tuner.train.state import fingerprint
from tuner.train.workbench import Workbench

SCRIPT = """
import pickle, sys
from pathlib import Path
from tests.train.blobs import Blobs
from tests.train.test_determinism import job_in_processes, outcome
here = Path(sys.argv[1])
stop = int(sys.argv[2])
run = Blobs(here / "objectives", here / "cache").workbench().begin(job_in_processes())
stored = here / "state"
if stored.exists():
    run.restore(pickle.loads(stored.read_bytes()))
for epoch in run.epochs(lambda: None):
    if epoch.epoch == stop:
        stored.write_bytes(pickle.dumps(run.state()))
        break
print(outcome(run))
"""


def job_in_processes() -> Job:
    """Return the job that several processes train."""
    return blob_job(seed=5, epochs=5, scheduler="cosine")


def outcome(run: Run) -> str:
    """Write all results of a run except durations: equal texts mean equal bits."""
    state = run.state()
    curve = [[repr(value) for value in untimed(epoch)] for epoch in state.curve]
    weights = [fingerprint(state.weights), fingerprint(state.best_weights), state.best_epoch]
    return json.dumps([curve, weights])


def train(workbench: Workbench, job: Job) -> str:
    """Train a job to its end and return its outcome."""
    run = workbench.begin(job)
    list(run.epochs(nothing))
    return outcome(run)


def train_elsewhere(place: Path, stop: int) -> str:
    """Train the job in a new process, from a stored state if given, and return its outcome."""
    command = [sys.executable, "-c", SCRIPT, str(place), str(stop)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    return done.stdout.strip()


def test_a_trial_is_the_same_after_another_one_ran(blobs: Blobs) -> None:
    """On one workbench, with a different trial in between, the results are equal bit for bit."""
    workbench = blobs.workbench()
    first = train(workbench, blob_job(seed=2))
    assert train(workbench, blob_job(seed=9, hidden=16, optimizer="sgd")) != first
    assert train(workbench, blob_job(seed=2)) == first


def test_trials_may_take_turns(blobs: Blobs) -> None:
    """Two runs whose epochs alternate equal the same runs alone."""
    workbench = blobs.workbench()
    alone = [train(workbench, blob_job(seed=seed)) for seed in (1, 2)]
    runs = [workbench.begin(blob_job(seed=seed)) for seed in (1, 2)]
    for _ in zip(*(run.epochs(nothing) for run in runs), strict=True):
        pass
    assert [outcome(run) for run in runs] == alone


def test_seeds_differ(blobs: Blobs) -> None:
    """Another seed is another training."""
    workbench = blobs.workbench()
    assert train(workbench, blob_job(seed=1)) != train(workbench, blob_job(seed=2))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_restored_run_goes_on_as_if_it_had_never_stopped(
    blobs: Blobs, optimizer: str, stop: int
) -> None:
    """Curve, weights and best weights equal those of an uninterrupted run in every bit."""
    job = blob_job(epochs=5, optimizer=optimizer, scheduler="cosine", weight_decay=0.01)
    whole = train(blobs.workbench(), job)
    broken = blobs.workbench().begin(job)
    list(islice(broken.epochs(nothing), stop))
    state = broken.state()
    list(broken.epochs(nothing))  # what the first run does later must not change the state
    resumed = blobs.workbench().begin(job)
    resumed.restore(state)
    list(resumed.epochs(nothing))
    assert outcome(resumed) == whole


def test_processes_agree_also_when_one_goes_on_where_another_stopped(blobs: Blobs) -> None:
    """This process, and two others that share one trial in turn, give the same bits."""
    place = blobs.folder.parent
    train_elsewhere(place, stop=2)
    resumed = train_elsewhere(place, stop=0)
    assert resumed == train(blobs.workbench(), job_in_processes())
