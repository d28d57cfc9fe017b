"""`tuner check`, and the data check of a launch."""

from pathlib import Path

import pytest

from tests.check.test_examination import write_planted
from tests.cli.conftest import Project
from tests.train.sources.image_files import write_folder, write_npy
from tuner.cli.check import roughly

STUDY = """
[study]
name = "planted"
question = "Is the test set fair?"
objective = "chest_xray"

[budget]
trials = "grid"

[space]
batch_size = [16, 64]

[fixed]
epochs = 2
width = 8

[data]
source = "manifest"
path = "../images/images.csv"
"""


@pytest.fixture
def planted(project: Project) -> Project:
    """Write a study on images with 7 duplicates across splits and 3 shared patients."""
    write_planted(project.folder / "images")
    project.write_study("planted", STUDY)
    return project


def test_a_check_tells_what_was_planted(planted: Project) -> None:
    """Counts and names come as JSON, with cost and memory at both ends of the space."""
    found = planted.json("check", "planted", "--json")
    (data,) = found["data"]
    assert data["duplicates"]["exact_across_splits"] == 7
    assert len(data["duplicates"]["groups"]) == 7
    assert [one["patient"] for one in data["patients"]] == ["shared-0", "shared-1", "shared-2"]
    assert data["contents"]["train"]["classes"] == {"a": 32, "b": 30}
    cost = found["cost"]
    assert {one["chosen"]["batch_size"] for one in cost["measured"]} == {16, 64}
    assert cost["epochs"] == 4
    assert cost["memory_bytes"] > 50e6
    assert cost["seconds"] > 0


def test_a_check_is_read_by_people(planted: Project) -> None:
    """Splits, probe, warnings, cost and noise are printed in sentences."""
    shown = planted.run("check", "planted", "--noise", "2", "--workers", "2")
    for words in (
        "train     62 images of ",
        " patients: a 32, b 30",
        "7 images have a copy in an earlier split",
        "3 patients are in more than one split",
        "probe    train and val: AUC",
        "s per epoch",
        "2 trials, 4 epochs: about",
        "on 2 workers, an estimate from 4 measured epochs",
        "Noise of the default setting over 2 seeds",
        "val_loss",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.3, "1 s"), (7.4, "7 s"), (38.6, "40 s"), (93, "90 s"), (1000, "15 min"), (29_700, "8 h")],
)
def test_an_estimate_is_told_as_roughly_as_it_is_known(seconds: float, words: str) -> None:
    """An estimate has one digit, or two if the first is 1 or the second a 5."""
    assert roughly(seconds) == words


def test_a_quick_check_trains_nothing(planted: Project) -> None:
    """--quick only examines the data."""
    found = planted.json("check", "planted", "--quick", "--json")
    assert found["cost"] is None
    assert found["data"][0]["quick"] is True


def test_a_launch_warns_once(planted: Project) -> None:
    """The findings are reported once; the same data are not checked again."""
    first = planted.run("launch", "--study", "planted", "--workers", "1")
    assert first.count("Warning: 7 images have a copy in an earlier split") == 1
    assert "patients are in more than one split:" in first
    again = planted.run("launch", "--study", "planted", "--workers", "1")
    assert "Warning" not in again


def test_a_launch_can_be_told_not_to_look(planted: Project) -> None:
    """--no-check goes straight to training."""
    said = planted.run("launch", "--study", "planted", "--workers", "1", "--no-check")
    assert "Warning" not in said


def test_data_that_cannot_be_read_stop_a_launch_before_it_creates_anything(
    planted: Project,
) -> None:
    """A missing file is the user's error; no study is left behind."""
    (planted.folder / "images" / "images.csv").unlink()
    said = planted.run("launch", "--study", "planted", code=2)
    assert "there is no file" in said
    assert "planted" not in planted.run("studies")


def test_a_check_of_a_stored_study_is_kept(planted: Project, tmp_path: Path) -> None:
    """A later launch on the same data does not check them again."""
    planted.run("launch", "--study", "planted", "--workers", "1", "--no-check")
    planted.run("check", "planted", "--quick")
    assert "Warning" not in planted.run("launch", "--study", "planted", "--workers", "1")


def test_a_new_version_knows_what_was_found_of_its_data(planted: Project) -> None:
    """A new version takes over its data's findings; an unchecked version can be checked by name."""
    planted.run("launch", "--study", "planted", "--workers", "1", "--no-check")
    unseen = ("--new-version", "--no-check", "--workers", "1")
    planted.run("launch", "--study", "planted", "--set", "epochs=1", *unseen)
    assert "Stored with planted@1, planted@2." in planted.run("check", "planted@2", "--quick")
    for title in ("planted@1", "planted@2"):
        assert set(planted.json("gap", title, "--json")["probes"]) == {"val", "test"}
    said = planted.run(
        "launch", "--study", "planted", "--set", "epochs=3", "--new-version", "--workers", "1"
    )
    assert "Warning" not in said
    carried, first = (planted.json("gap", f"planted@{n}", "--json") for n in (3, 1))
    assert carried["probes"] == first["probes"]
    assert "--set cannot be used" in planted.run("check", "planted@2", "--set", "epochs=1", code=2)
    assert "no study 'planted@9'" in planted.run("check", "planted@9", code=2)


def test_a_missing_test_set_is_said_once(project: Project) -> None:
    """A missing test set is reported once, before training; its columns stay empty."""
    folder = write_npy(project.folder / "arrays")
    for path in folder.glob("test_*.npy"):
        path.unlink()
    text = STUDY.replace('"manifest"', '"npy"').replace("../images/images.csv", "../arrays")
    project.write_study("untested", text.replace("planted", "untested"))
    said = project.run("launch", "--study", "untested", "--workers", "1")
    assert said.count("no test set") == 1
    rows = project.run("export", "--study", "untested").splitlines()
    cells = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    assert (cells["test_acc"], cells["gap"], cells["state"]) == ("", "", "COMPLETE")
    assert "There is no test set, so the test columns are empty." in project.run(
        "table", "untested"
    )


def test_a_path_that_is_typed_starts_here(planted: Project) -> None:
    """--set data.path is relative to the current folder, wherever the study file is."""
    here = ["--set", "data.path=images/images.csv", "--quick", "--json"]
    found = planted.json("check", "planted", *here)
    assert found["data"][0]["data"]["path"] == str(planted.folder / "images" / "images.csv")


def test_damaged_files_stop_a_check_or_are_left_out(project: Project) -> None:
    """Damaged files are named and counted; with skip_unreadable the rest is checked and used."""
    folder = write_folder(project.folder / "scans")
    for number, content in enumerate((b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40))):
        (folder / "train" / "normal" / f"odd{number}.png").write_bytes(content)
    text = STUDY.replace('"manifest"', '"folder"').replace("../images/images.csv", "../scans")
    project.write_study("scans", text)
    said = project.run("check", "scans", "--quick", code=2)
    assert "3 images cannot be read" in said
    assert "odd0.png (the file is empty)" in said
    assert "Traceback" not in said
    skipping = ("--set", "data.skip_unreadable=true")
    said = project.run("check", "scans", "--quick", *skipping)
    assert "3 unreadable images were left out: train/normal/odd0.png (the file is empty)" in said
    assert "patients are not kept together" in said
    said = project.run("launch", "--study", "scans", *skipping, "--workers", "1")
    assert "Data: 3 unreadable images were left out" in said
    rows = project.json("export", "--study", "scans", "--format", "json")
    assert {row["state"] for row in rows} == {"COMPLETE"}
