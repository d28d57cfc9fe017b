"""Sharing epochs between trials, training longer, and cleaning up, from the command line."""

import csv
import io
import json
import signal
from typing import Any

import pytest

from tests.cli.conftest import Project
from tests.cli.test_launch import SLOWLY, wait_for_epochs

SWEEP = """
[study]
name = "sweep"
question = "How many epochs?"
objective = "blobs"

[budget]
trials = "grid"

[replicates]
seeds = 2

[space]
epochs = [2, 4, 6]

[fixed]
hidden = 4
scheduler = "step"
step_size = 3
"""

VOLATILE = {"trial", "attempts", "seconds", "device", "started", "ended", "epochs_reused"}


def rows_of(project: Project, study: str) -> list[dict[str, Any]]:
    """Export a study's trials."""
    text = project.run("export", "--study", study)
    return list(csv.DictReader(io.StringIO(text)))


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns that must be equal however the trials were trained, sorted."""
    kept = [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]
    return sorted(kept, key=lambda row: (row["seed"], int(row["epochs"])))


def trained(rows: list[dict[str, Any]]) -> int:
    """Count the epochs that were actually trained."""
    return sum(int(row["epochs_run"]) - int(row["epochs_reused"]) for row in rows)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_sweep_over_epochs_trains_each_epoch_once(project: Project, workers: str) -> None:
    """Settings that share their first epochs train them once, also on two workers."""
    project.write_study("sweep", SWEEP)
    out = project.run("launch", "--study", "sweep", "--workers", workers, "--device", "cpu")
    rows = rows_of(project, "sweep")
    assert [int(row["epochs_run"]) for row in rows] == [int(row["epochs"]) for row in rows]
    assert trained(rows) == 2 * 6
    assert "12 of 24 epochs were reused" in out
    spent = project.json("table", "sweep", "--json")["time"]
    assert spent["seconds"] < spent["seconds_without"]
    assert spent["excess"] == 0
    text = project.run("export", "--study", "sweep", "--epochs")
    reused = [row["reused"] for row in csv.DictReader(io.StringIO(text))]
    assert (reused.count("true"), reused.count("false")) == (12, 12)


def test_reuse_changes_no_result(project: Project) -> None:
    """With checkpoints switched off, every figure is the same to the last bit."""
    project.write_study("sweep", SWEEP)
    project.write_study("apart", SWEEP)
    project.run("launch", "--study", "sweep", "--workers", "1")
    project.run(
        "launch", "--study", "apart", "--workers", "1", environ={"TUNER_CHECKPOINTS": "off"}
    )
    together, apart = rows_of(project, "sweep"), rows_of(project, "apart")
    assert trained(apart) == 2 * 12
    assert lasting(together) == lasting(apart)


def test_nothing_is_shared_across_what_shapes_weights(project: Project) -> None:
    """Different seeds, sizes and optimizers train their own epochs."""
    project.write_study(
        "apart",
        SWEEP.replace("epochs = [2, 4, 6]", "hidden = [3, 4, 5]").replace(
            "hidden = 4\n", "epochs = 4\n"
        ),
    )
    project.run("launch", "--study", "apart", "--workers", "1")
    assert trained(rows_of(project, "apart")) == 3 * 2 * 4


def test_training_longer_goes_on_where_the_schedule_allows(project: Project) -> None:
    """--epochs-to makes a version that continues stored epochs, and says where it cannot."""
    text = SWEEP.replace("epochs = [2, 4, 6]", 'scheduler = ["step", "cosine"]')
    text = text.replace('scheduler = "step"\n', "epochs = 4\n").replace("seeds = 2", "seeds = 1")
    project.write_study("longer", text)
    project.run("launch", "--study", "longer", "--workers", "1")
    out = project.run("launch", "--study", "longer", "--epochs-to", "6", "--workers", "1")
    assert "step schedule: 1 setting from epoch 4 of 4" in out
    assert "cosine schedule: 1 setting from epoch 1 of 4; the schedule depends" in out
    by_schedule = {row["scheduler"]: row for row in rows_of(project, "longer@2")}
    assert by_schedule["step"]["epochs_reused"] == "4"
    assert by_schedule["cosine"]["epochs_reused"] == "1"
    assert {row["epochs_run"] for row in by_schedule.values()} == {"6"}
    again = project.run("launch", "--study", "longer", "--epochs-to", "5", code=2)
    assert "already trains 6 epochs" in again


def test_longer_is_refused_where_it_means_nothing(project: Project) -> None:
    """A study that varies its epochs, or one that was never launched, cannot be lengthened."""
    project.write_study("sweep", SWEEP)
    assert "There is no study" in project.run(
        "launch", "--study", "sweep", "--epochs-to", "9", code=2
    )
    project.run("launch", "--study", "sweep", "--workers", "1")
    out = project.run("launch", "--study", "sweep", "--epochs-to", "9", code=2)
    assert "varies its epochs" in out


def test_an_interrupted_trial_goes_on_where_it_was(project: Project) -> None:
    """After Ctrl-C the next launch resumes each trial at its last epoch: none is trained twice."""
    text = SWEEP.replace("epochs = [2, 4, 6]", "epochs = [40]")
    project.write_study("long", text)
    process = project.start("launch", "--study", "long", "--workers", "1", **SLOWLY)
    wait_for_epochs(project, process, "long")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    left = [row["epochs_run"] for row in rows_of(project, "long") if row["state"] == "WAITING"]
    project.run("launch", "--study", "long", "--workers", "1")
    told = [json.loads(line) for line in project.run("events", "long", "--json").splitlines()]
    resumed = [one["text"] for one in told if one["kind"] == "resumed"]
    assert resumed == [f"at epoch {epochs}, from a checkpoint" for epochs in left]
    assert project.json("status", "long", "--json")["epochs_recorded"] == 80


def test_clean_says_what_it_would_free_and_frees_it(project: Project) -> None:
    """clean keeps checkpoints that can be reused; --all and deleting a study remove the rest."""
    project.write_study("sweep", SWEEP)
    project.run("launch", "--study", "sweep", "--workers", "1")
    (kept,) = project.json("clean", "--json")
    assert (kept["checkpoints"], kept["taken_bytes"] > 0) == (0, True)
    assert "would free" in project.run("clean", "--dry-run", "--all")
    (again,) = project.json("clean", "--json")
    assert again["taken_bytes"] == kept["taken_bytes"]
    (freed,) = project.json("clean", "--all", "--json")
    assert (freed["freed_bytes"], freed["taken_bytes"]) == (kept["taken_bytes"], 0)

    project.write_study("other", SWEEP)
    project.run("launch", "--study", "other", "--workers", "1")
    project.run("delete", "other", "--yes")
    (left,) = project.json("clean", "--json")
    assert left["taken_bytes"] == 0
