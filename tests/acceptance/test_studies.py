"""Every shipped study, made smaller, can be launched as a user would and ends with its tables."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness import warm
from tests.harness.commands import Done, answer
from tuner.cli.options import StudyFile, study_folders
from tuner.spec.study_ref import StudyRef
from tuner.store.embedded import server as embedded
from tuner.store.ledger.looks import looks

STUDIES = study_folders()[-1]
NAMES = sorted(path.stem for path in STUDIES.glob("*.toml"))

SMALL = (
    "data.image_size=32",
    "data.train_images=48",
    "data.val_images=24",
    "data.test_images=24",
)
"""A phantom that is quick to draw and to train on."""

FEW = (*SMALL, "replicates.seeds=2", "epochs=2")

SMALLER: Mapping[str, tuple[str, ...]] = {
    "epochs": (*SMALL, "replicates.seeds=2", "epochs=[1, 2, 3]"),
    "everything": (
        *(*SMALL, "budget.trials=12", "replicates.top=2"),
        "epochs={low=2, high=6, step=2}",
    ),
    "gap_pooling": (*FEW, "data.image_size=64"),
    "digits": ("replicates.seeds=2", "replicates.splits=2", "epochs=2"),
}
"""Overrides that make a study small; others get the small phantom, two seeds and two epochs."""

REPORTS = (
    *("ann_vs_cnn", "batch_size", "depth", "epochs", "everything", "gap_pooling"),
    *("loss", "lr", "lr_sched", "shift", "weight_decay"),
)


def shipped(name: str) -> StudyFile:
    """Return a shipped study's file."""
    return StudyFile.find(StudyRef.parse(str(STUDIES / f"{name}.toml")))


def tuner(folder: Path, *arguments: str) -> Done:
    """Run `tuner` in a folder."""
    process = warm.start(arguments, folder, {**os.environ, "COLUMNS": "120"})
    out, err = process.communicate(timeout=180)
    return Done(process.wait(), out, err)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make one home, with its database and its drawn images, for all studies."""
    folder = tmp_path_factory.mktemp("studies")
    yield folder
    embedded.erase(folder / ".tuner")


def test_every_report_has_its_study() -> None:
    """Each of the five lab reports has its studies."""
    assert set(REPORTS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_says_what_it_asks_and_what_it_takes(name: str) -> None:
    """A file is named after its study, has replicates, and states its measured duration."""
    text = (STUDIES / f"{name}.toml").read_text(encoding="utf-8")
    spec = shipped(name).read()
    assert spec.name == name
    assert spec.question.endswith("?")
    assert spec.replicates.seeds >= 3
    assert f"tuner launch {name}" in text
    assert re.search(r"^# Takes \d+ s on 2 CPU cores", text, re.MULTILINE), "no measured duration"


@pytest.mark.parametrize("name", NAMES)
def test_a_race_has_room_for_a_look(name: str) -> None:
    """A study with racing contenders reaches a look; otherwise the race decides nothing."""
    replicates = shipped(name).read().replicates
    if replicates.top is not None:
        assert looks(replicates.top, replicates.extra)


@pytest.mark.parametrize("name", NAMES)
def test_a_study_ends_with_its_tables(name: str, home: Path) -> None:
    """launch exits 0; every trial has a row, and each view of the tables can be shown."""
    settings = [part for text in SMALLER.get(name, FEW) for part in ("--set", text)]
    done = tuner(home, "launch", "--study", name, *settings)
    assert done.code == 0, done.out + done.err
    spec = shipped(name).read(tuple(SMALLER.get(name, FEW)))
    with (home / ".tuner" / "results" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # A dropped contender gets no further seeds, so a race may end with fewer trials.
    assert spec.replicates.of == "top" or len(rows) == spec.total_trials
    assert {row["state"] for row in rows} <= {"COMPLETE", "PAUSED" if spec.promotes else "PRUNED"}
    assert all(row["test_acc"] for row in rows if row["state"] == "COMPLETE")
    for show in ("figures", "classes", "cost", "slope"):
        shown = answer(["table", name, "--show", show, "--json"], home, os.environ)
        assert json.loads(shown.out)["state"] == "complete"
    if spec.replicates.of == "top":
        saved = _assert_raced(home, name)
        assert len(rows) == spec.total_trials - saved


def _assert_raced(home: Path, name: str) -> int:
    """Check that a look happened, and is in history and status; return the trials saved."""
    race = json.loads(tuner(home, "status", name, "--json").out)["race"]
    assert race["looks"] >= 1
    told = [line for line in tuner(home, "events", name).out.splitlines() if "looked:" in line]
    assert len(told) == race["looks"]
    eliminated = r"after seed 2: eliminated (none|configuration [\d, ]+); \d contenders? left"
    assert re.search(eliminated, told[0])
    dropped = [one for one in race["runners"] if one["dropped_after"] is not None]
    assert bool(dropped) == any("eliminated configuration" in line for line in told)
    assert dropped or race["end"] == "images" or not race["saved"]
    return int(race["saved"])
