"""`tuner show`: one trial with all its figures, and curves drawn with letters."""

import math

from tests.cli.conftest import STUDY, Project
from tuner.cli.drawing import BLANK, chart
from tuner.statistics.proportions import newcombe, wilson


def test_a_trial_is_shown_whole(trained_once: Project) -> None:
    """A trial is shown with place, parameters, other seeds, figures, curves and history."""
    shown = trained_once.run("show", "small", "0")
    for words in (
        "trial 0, COMPLETE",
        "of 4 by val_loss",
        "lr=0.001 seed=0",
        "other seeds: trial ",
    ):
        assert words in shown
    for words in ("fixed: epochs=3 hidden=4", "val ", "test ", "gap", "loss (nats)", "accuracy"):
        assert words in shown
    assert "created: trial 0" in shown
    assert any(BLANK < ord(letter) < BLANK + 256 for letter in shown)


def test_programs_get_the_figures_of_the_export(trained_once: Project) -> None:
    """JSON has the export's cells, with Wilson's and Newcombe's intervals over images."""
    found = trained_once.json("show", "small", "1", "--json")
    row = trained_once.json("export", "--study", "small", "--format", "json")[1]
    assert {name: found["row"][name] for name in row} == row
    assert row["reason"] is None
    assert [one["epoch"] for one in found["epochs"]] == [1, 2, 3]
    val, test = (found["splits"][split] for split in ("val", "test"))
    for split, one in (("val", val), ("test", test)):
        assert math.isclose(one["accuracy"]["value"], row[f"{split}_acc"])
        wanted = wilson(row[f"{split}_acc"] * one["images"], one["images"])
        assert math.isclose(one["accuracy"]["low"], wanted.low)
    wanted = newcombe(
        row["val_acc"] * val["images"],
        val["images"],
        row["test_acc"] * test["images"],
        test["images"],
    )
    assert math.isclose(found["gap_interval"]["high"], wanted.high)
    assert found["events"][0]["kind"] == "created"


def test_what_is_not_there_is_told(trained_once: Project) -> None:
    """A trial that the study does not have is refused."""
    said = trained_once.run("show", "small", "44", code=2)
    assert "small has no trial 44" in said


def test_launch_ends_with_what_is_seen(project: Project) -> None:
    """A launch ends with a line per factor if there are seeds, and with none for a single seed."""
    shown = project.run("launch", "--study", "small", "--workers", "1")
    assert "lr: " in shown
    assert "in val_loss" in shown or "best val_loss" in shown
    assert "`tuner compare small`" in shown
    project.write_study("single", STUDY.replace("seeds = 2", "seeds = 1"))
    assert "tuner compare" not in project.run("launch", "--study", "single", "--workers", "1")


def test_curves_reach_from_corner_to_corner() -> None:
    """A falling line begins at the top on the left and ends at the bottom on the right."""
    lines = chart("loss", [("validation", "", [3.0, 2.0, 1.0])], width=10, height=4).plain.split(
        "\n"
    )
    assert lines[0] == "loss  ⣀ validation"
    body = [line.split("┤")[1] for line in lines[1:5]]
    assert body[0][0] != " "
    assert body[-1][-1] != " "
    assert body[0][-1] == " "
    assert lines[1].strip().startswith("3")
    assert lines[-1].endswith("epoch 3")


def test_two_curves_are_told_apart_without_colour() -> None:
    """The lower curve is drawn in points, the upper in a line, as the legend says."""
    series = [("training", "cyan", [1.0] * 4), ("validation", "yellow", [0.0] * 4)]
    lines = chart("loss", series, width=10, height=4).plain.split("\n")
    assert lines[0] == "loss  · training  ⣀ validation"
    body = [line.split("┤")[1] for line in lines[1:5]]
    assert body[0] == "·" * 10
    assert all(BLANK < ord(letter) < BLANK + 256 for letter in body[-1])


def test_odd_curves_are_drawn_too() -> None:
    """One epoch, a constant, gaps and NaN give a drawing or a message, never a crash."""
    for values in ([0.5], [0.5] * 4, [None, math.nan, 1.0], [0.0, math.inf, 1.0]):
        assert "┤" in chart("loss", [("validation", "", values)]).plain
    assert "no data yet" in chart("loss", [("validation", "", [None, math.nan])]).plain
