"""Launching a study: from a file to its tables, with real workers and real training."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from tests.cli.conftest import STUDY, Project
from tests.harness.warm import Started
from tests.store.specs import make_spec
from tests.train.blobs import PAUSE
from tuner.cli.launch import _larger, launch
from tuner.cli.options import trial_numbers
from tuner.settings import person
from tuner.spec.study_ref import StudyRef
from tuner.store import control, studies
from tuner.store.database import Database
from tuner.store.overview import BudgetLine


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read an exported file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


SLOWLY = {PAUSE: "0.01"}
"""Makes epochs of some 40 ms each, so that a test can act during a launch."""


def long(epochs: int) -> str:
    """Return the study with this many epochs."""
    return STUDY.replace("epochs = 3", f"epochs = {epochs}")


def wait_for_epochs(project: Project, process: Started, study: str) -> None:
    """Wait until a study has recorded epochs."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if project.json("status", study, "--json")["epochs_recorded"] > 0:
                return
        except AssertionError:
            pass  # the study does not exist yet
        time.sleep(0.1)
    pytest.fail("no epoch was recorded")


def test_launch_trains_every_trial_and_ends_with_tables(project: Project) -> None:
    """All trials complete, the tables show factors with n, and the CSV has one row per trial."""
    out = project.run("launch", "--study", "small", "--workers", "2")
    rows = read_csv(project.folder / ".tuner" / "results" / "small.csv")
    assert len(rows) == 4
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert {(row["lr"], row["seed"]) for row in rows} == {
        ("0.001", "0"),
        ("0.001", "1"),
        ("0.01", "0"),
        ("0.01", "1"),
    }
    assert "small: 2 settings by val_loss" in out
    assert "The best of 2 settings by val_loss is lr=" in out
    assert "All 4 trials: .tuner/results/small.csv" in out


def test_second_launch_trains_nothing(project: Project) -> None:
    """A second launch reports the study as complete, shows its tables, and exits with 0."""
    project.run("launch", "--study", "small", "--workers", "1")
    before = project.run("events", "small", "--json")
    out = project.run("launch", "--study", "small")
    assert project.run("events", "small", "--json") == before
    assert "small is complete: 4 trials. Nothing to train." in out
    assert "small: 2 settings by val_loss" in out
    assert "The best of 2 settings by val_loss is lr=" in out


def test_a_path_may_hold_an_at_sign(project: Project) -> None:
    """Only a name with a version is a stored study; a path with an @ is a file."""
    folder = project.folder / "me@home"
    folder.mkdir()
    (folder / "small.toml").write_text(project.write_study("small").read_text())
    out = project.run("launch", "--study", "me@home/small.toml", "--workers", "1")
    assert "All 4 trials" in out
    again = project.run("launch", "--study", "small@1")
    assert "small is complete: 4 trials" in again
    refused = project.run("launch", "--study", "small@1", "--set", "epochs=9", code=2)
    assert "stored version" in refused
    more = ("--set", "replicates.seeds=3")
    refused = project.run("launch", "small", *more, "--finish", "1", "9", code=2)
    assert "trial 1 is complete; trial 9 does not exist" in refused
    # The refused command did not extend it.
    assert json.loads(project.run("status", "small", "--json"))["state"] == "complete"


def test_an_unknown_study_has_nothing_to_finish(project: Project) -> None:
    """An unknown study is refused, and nothing is launched."""
    assert "no paused trials" in project.run("launch", "small", "--finish", "1", code=2)
    assert json.loads(project.run("studies", "--json")) == []


def test_launch_tells_all_faults_and_creates_nothing(project: Project) -> None:
    """A malformed file exits with 2, names each fault, and leaves no study."""
    project.write_study("bad", STUDY.replace("lr = [", "lrr = [").replace("epochs = 3", "epochs=0"))
    out = project.run("launch", "--study", "bad", code=2)
    assert "lrr" in out
    assert "epochs" in out
    assert "2 errors; nothing was created" in out
    assert project.json("studies", "--json") == []


def test_changed_file_is_refused_then_made_a_version(project: Project) -> None:
    """A change of the question is refused without --new-version; the bare name is the newest."""
    project.run("launch", "--study", "small", "--workers", "1")
    out = project.run("launch", "--study", "small", "--set", "epochs=2", code=2)
    assert "fixed.epochs: stored 3, given 2" in out
    assert "--new-version" in out
    project.run("launch", "--study", "small", "--set", "epochs=2", "--new-version")
    titles = [study["study"] for study in project.json("studies", "--json")]
    assert titles == ["small@1", "small@2"]
    assert project.json("table", "small", "--json")["study"] == "small@2"


def test_more_seeds_extend_a_study(project: Project) -> None:
    """Raising the seeds adds trials under the new seeds and keeps the old ones."""
    project.run("launch", "--study", "small", "--workers", "1")
    project.run("launch", "--study", "small", "--set", "replicates.seeds=3", "--workers", "1")
    rows = read_csv(project.folder / ".tuner" / "results" / "small.csv")
    assert [row["seed"] for row in rows] == ["0", "0", "1", "1", "2", "2"]


def test_workers_join_before_and_after_a_launch(project: Project) -> None:
    """Workers started before and during a launch all train and exit; N is exact."""
    project.write_study("joined", STUDY.replace("seeds = 2", "seeds = 12").replace("= 3", "= 20"))
    early = project.start("worker", "--study", "joined", "--device", "cpu")
    launch = project.start("launch", "--study", "joined", "--workers", "1")
    wait_for_epochs(project, launch, "joined")
    late = project.start("worker", "--study", "joined", "--device", "cpu")
    for process in (launch, early, late):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    rows = read_csv(project.folder / ".tuner" / "results" / "joined.csv")
    assert len(rows) == 24
    assert {row["state"] for row in rows} == {"COMPLETE"}
    assert all(row["epochs_run"] == "20" for row in rows)
    lines = project.run("events", "joined", "--json").splitlines()
    workers = {one["worker"] for one in map(json.loads, lines) if one["kind"] == "complete"}
    assert len(workers - {None}) >= 2


def test_interrupted_launch_gives_back_and_goes_on(project: Project) -> None:
    """Ctrl-C exits with 130 and says how to resume; nothing runs; the next launch completes."""
    project.write_study("long", long(25))
    process = project.start("launch", "--study", "long", "--workers", "2", **SLOWLY)
    wait_for_epochs(project, process, "long")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "To resume:  tuner launch long" in out
    counts = project.json("status", "long", "--json")["counts"]
    assert (counts["running"], counts["failed"]) == (0, 0)
    project.run("launch", "--study", "long", "--workers", "2")
    rows = read_csv(project.folder / ".tuner" / "results" / "long.csv")
    assert [row["epochs_run"] for row in rows] == ["25"] * 4


def test_killed_launch_leaves_no_worker_behind(project: Project) -> None:
    """When the launcher is killed, its workers give their trials back and exit."""
    project.write_study("long", long(2000))
    process = project.start("launch", "--study", "long", "--workers", "2", **SLOWLY)
    wait_for_epochs(project, process, "long")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = project.json("status", "long", "--json")
        if not seen["workers"]:
            break
        time.sleep(0.2)
    assert seen["workers"] == []
    assert seen["counts"]["running"] == 0


def test_study_that_only_fails_is_paused_and_retried(project: Project) -> None:
    """A fault in every trial pauses the study; after the repair, launch completes it."""
    models = project.folder / "objectives" / "blobs" / "models.py"
    sound = models.read_text()
    models.write_text(sound + "\nraise RuntimeError('no such layer')\n")
    out = project.run("launch", "--study", "small", "--workers", "1", code=1)
    assert "paused" in out
    assert "no such layer" in out
    assert "no such layer" in project.run("logs", "small")
    assert project.json("status", "small", "--json")["counts"]["failed"] == 0
    models.write_text(sound)
    project.run("launch", "--study", "small", "--workers", "1")
    rows = read_csv(project.folder / ".tuner" / "results" / "small.csv")
    assert [row["state"] for row in rows] == ["COMPLETE"] * 4


def test_stop_ends_the_launch_elsewhere(project: Project) -> None:
    """`tuner stop` from another shell makes the workers exit; launch says who stopped it."""
    project.write_study("long", long(2000))
    process = project.start("launch", "--study", "long", "--workers", "1", **SLOWLY)
    wait_for_epochs(project, process, "long")
    project.run("stop", "long")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert f"long is stopped: Stopped by {person()}." in err
    assert project.json("status", "long", "--json")["counts"]["running"] == 0


@pytest.mark.parametrize("deed", ["stop", "stop and delete", "delete"])
def test_a_study_stopped_or_deleted_under_a_launch(
    project: Project, database: Database, deed: str
) -> None:
    """If its study is stopped or deleted, a launch reports that, and does not crash."""
    project.write_study("watched", long(2000))
    with project.start("launch", "--study", "watched", "--workers", "1", **SLOWLY) as launch:
        try:
            wait_for_epochs(project, launch, "watched")
            with database.transaction() as connection:
                watched = studies.find(connection, StudyRef("watched"))
            if deed != "delete":
                control.stop(database, watched)
            if deed != "stop":
                # Suddenly, while a worker has one of its trials.
                with database.transaction() as connection:
                    studies.delete(connection, watched)
            out, err = launch.communicate(timeout=240)
        finally:
            launch.kill()
    assert launch.returncode == 1, f"{out}\n{err}"
    assert "Traceback" not in out + err
    if deed == "stop":
        assert "watched is stopped: Stopped by `tuner stop`." in err
    else:
        assert "watched was deleted during training" in err
        assert project.json("studies", "--json") == []


SLOW_MACHINE = """
import sys, time
from tuner.store import database

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name in ("scipy", "tuner.check.quick", "tuner.statistics"):
            time.sleep(3)

sys.meta_path.insert(0, Slow())
database.SERVER_SIDE["idle_in_transaction_session_timeout"] = "2s"
from tuner.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_busy_machine_does_not_end_a_launch(project: Project) -> None:
    """Imports slower than the server's idle-in-transaction timeout happen outside transactions."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW_MACHINE, "launch", "--study", "small", "--no-check"],
        cwd=project.folder,
        env=dict(project.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_spent_budget_ends_a_launch_with_its_tables(project: Project) -> None:
    """With a spent budget launch says what is left; with a larger one the rest is trained."""
    out = project.run("launch", "small", "--workers", "1", "--set", "budget.gpu_hours=1e-7")
    assert "The budget of 1e-07 hours is spent." in out
    assert "tuner launch small --set budget.hours=" in out
    told = project.json("status", "small", "--json")
    assert told["state"] == "spent"
    assert told["counts"]["ended"] < 4
    assert told["budget"]["hours_spent"] > told["budget"]["hours"] == 1e-7
    out = project.run("launch", "small", "--workers", "1", "--set", "budget.hours=1")
    told = project.json("status", "small", "--json")
    assert (told["state"], told["counts"]["complete"]) == ("complete", 4)


def test_trials_to_finish_are_numbers() -> None:
    """Trials to finish are numbers, with commas or as repeated options; others are usage errors."""
    option = click.Option(["--finish"], multiple=True)
    context = click.Context(click.Command("launch"))
    for texts, numbers in (((), ()), (("12,31",), (12, 31)), (("12", "31,7"), (12, 31, 7))):
        assert trial_numbers(context, option, texts) == numbers
    assert [one.multiple for one in launch.params if one.name == "finish"] == [True]
    for wrong in ("x", "-1", "1.5", "", ","):
        with pytest.raises(click.BadParameter, match="is not the number of a trial"):
            trial_numbers(context, option, ("7", wrong))


def test_a_larger_budget_is_suggested_for_the_limit_that_is_reached() -> None:
    """The suggested larger budget is for the limit that was reached, hours or money."""
    spec = make_spec()

    def larger(*line: float | None) -> list[str]:
        return list(_larger(BudgetLine(*line), spec))  # type: ignore[arg-type]

    assert larger(3.0, 40.0, 100.5, 100.0) == ["--set budget.money=200"]
    assert larger(40.0, 40.0, None, None) == ["--set budget.hours=80"]
    both = ["--set budget.hours=2", "--set budget.money=10"]
    assert larger(1.0, 1.0, 5.0, 5.0) == both
    spec = make_spec(budget_epochs=37)
    assert larger(1.0, 2.0, None, None, 37, 37) == ["--set budget.epochs=74"]
    spec = make_spec(full=1.5)
    assert larger(1.0, None, None, None, 4, 4) == ["--set budget.full=3"]
