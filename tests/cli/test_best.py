"""`tuner best` on a trained study: the table's best trial, and what to know about it."""

import math
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.harness.processes import until
from tuner.statistics.proportions import wilson


def test_the_best_is_the_tables_first(trained_once: Project) -> None:
    """Settings and figures are the best trial's, as in `tuner table` and `tuner gap`."""
    first = trained_once.json("table", "small", "--best", "1", "--json")["settings"][0]
    trials = trained_once.json("table", "small", "--json")["best"]
    leader = next(row for row in trials if row["trial"] == first["median_trial"])
    gap = trained_once.json("gap", "small", "--json")
    found = trained_once.json("best", "small", "--json")
    assert found["trial"] == leader["trial"] == gap["winner"]
    assert found["settings"] == {"lr": leader["lr"]}
    assert (found["complete_trials"], found["metric"]) == (4, "val_loss")
    assert found["setting"] == first
    assert (first["rank"], len(first["seeds"])) == (1, 2)
    assert found["value"] == leader["val_loss"]
    assert found["optimism"] == gap["optimism"]
    assert found["cause"] == gap["cause"]
    assert found["saved"] is None
    for split, images in (("val", 40), ("test", 30)):
        one = found["splits"][split]
        assert one["images"] == images
        assert one["loss"] == leader[f"{split}_loss"]
        wanted = wilson(leader[f"{split}_acc"] * images, images)
        assert math.isclose(one["accuracy"]["low"], wanted.low)
    own = next(one for one in gap["settings"] if leader["trial"] in one["trials"])
    assert found["gap_of_setting"] == own["gap"]
    assert math.isclose(found["over_seeds"]["val_acc"]["mean"], own["val_acc"])
    assert found["over_seeds"]["test_acc"]["n"] == 2


def test_sensitivity_and_specificity_are_of_the_predictions(trained_once: Project) -> None:
    """They are shares of the confusion matrix, with Wilson's interval over each class's images."""
    found = trained_once.json("best", "small", "--json")
    counts = trained_once.json("confusion", "small", "--split", "test", "--json")["counts"]
    test = found["splits"]["test"]
    for name, row in (("specificity", 0), ("sensitivity", 1)):
        wanted = wilson(counts[row][row], sum(counts[row]))
        assert math.isclose(test[name]["value"], wanted.value)
        assert math.isclose(test[name]["high"], wanted.high)


def test_it_is_told_in_words(trained_once: Project) -> None:
    """The text says how the trial was chosen, over which seeds, and its selection bias."""
    shown = " ".join(trained_once.run("best", "small").split())
    for words in (
        "Selected on validation images only: the best of 2 settings by mean val_loss",
        "the setting's median seed",
        "Its setting's means over 2 seeds, with 95% intervals over seeds: validation accuracy",
        "selection bias",
        "Validation minus test accuracy",
        "The study's overall gap",
    ):
        assert words in shown
    second = trained_once.json("table", "small", "--json")["settings"][1]
    other = second["median_trial"]
    named = trained_once.run("best", "small@1", "--trial", str(other))
    assert f"Selected by number: trial {other}, seed " in named
    assert "its setting is 2nd of 2 settings" in named
    assert "selection bias" not in named


def test_what_cannot_be_is_told(trained_once: Project) -> None:
    """An unknown trial or study, options without --save and missing predictions are refused."""
    assert "small has no trial 44" in trained_once.run("best", "small", "--trial", "44", code=2)
    assert "There is no study" in trained_once.run("best", "smal", code=2)
    assert "it has 0, 1." in trained_once.run("best", "small", "--seed", "9", code=2)
    said = trained_once.run("best", "small", "--seed", "1", "--trial", "0", code=2)
    assert "use one" in said
    assert "require --save" in trained_once.run("best", "small", "--overwrite", code=2)
    assert "Specify images" in trained_once.run("predict", "model", code=2)
    said = trained_once.run("predict", "model", "--split", "test", code=2)
    assert "holds no model.json" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_save_that_is_ended_by_a_signal_leaves_nothing(
    trained_once: Project, tmp_path: Path, number: signal.Signals
) -> None:
    """A save that is ended by a signal leaves neither the folder nor a partly written one."""
    for attempt in range(5):
        models = tmp_path / str(attempt)
        process = trained_once.start("best", "small", "--save", str(models / "model"))
        until(partial(_begun, models), "the folder is being written")
        process.send_signal(number)
        process.communicate()
        if process.returncode != 0:
            break
        # The save was quicker than the signal, and the folder is complete.
        assert (models / "model" / "model.json").exists()
    assert process.returncode == 128 + number
    assert list(models.iterdir()) == []


def _begun(models: Path) -> bool:
    return any(models.glob(".model.*"))
