"""A study is trained by one code on one data set; changes are reported before they mix."""

import csv
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, STUDY, Project
from tests.train.blobs import DATA, DECLARATIONS, write_objective
from tuner.settings import Settings
from tuner.spec.load import load
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding
from tuner.train.objective import find

NETS = """
from torch import nn


class TinyNet(nn.Sequential):
    def __init__(self, pixels, hidden, outputs):
        first, last = nn.Linear(pixels, hidden), nn.Linear(hidden, outputs)
        super().__init__(nn.Flatten(), first, nn.ReLU(), last)
"""

MODELS = """
from mylab.nets import TinyNet


def build(parameters, inputs, outputs):
    return TinyNet(inputs[0] * inputs[1] * inputs[2], parameters["hidden"], outputs)
"""

FOLDER = """
from tuner.spec.parameters import Parameter
from tuner.train.objective import Objective
from tuner.train.sources.declared import KEYS

OBJECTIVE = Objective(
    parameters=[Parameter("hidden", "int", 4, "hidden units")],
    data=[*KEYS, Parameter("image_size", "int", 0, "side")],
)
"""

LOADS = """
from tuner.train.sources.load import load as load_source


def load(data, cache, progress):
    return load_source("folder", data, cache, progress)
"""


class Lab:
    """A project whose network comes from a neighbouring library."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        library = folder / "lib" / "mylab"
        library.mkdir(parents=True)
        (library / "__init__.py").write_text("")
        self.nets = library / "nets.py"
        self.nets.write_text(NETS)
        (folder / "studies").mkdir()
        write_objective(folder / "objectives" / "blobs", DECLARATIONS, DATA, MODELS)
        environment = {
            **os.environ,
            **QUICK,
            "COLUMNS": "200",
            "TUNER_DATABASE_URL": str(settings.database_url),
            "PYTHONPATH": os.pathsep.join([str(library.parent), os.environ.get("PYTHONPATH", "")]),
        }
        self.project = Project(folder, environment)
        self.project.write_study("small")

    def sigmoid(self) -> None:
        """Change the library."""
        self.nets.write_text(NETS.replace("ReLU", "Sigmoid"))

    def launch(self, *more: str, code: int = 0) -> str:
        """Launch the study."""
        arguments = ("--study", "small", "--workers", "1", "--device", "cpu", *more)
        return self.project.run("launch", *arguments, code=code)

    def trials(self, study: str = "small") -> list[dict[str, Any]]:
        """Return the rows of a study."""
        return rows_of(self.project, study)


def rows_of(project: Project, study: str) -> list[dict[str, Any]]:
    """Return the rows of a study."""
    text = project.run("export", "--study", study)
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def lab(tmp_path: Path, settings: Settings) -> Lab:
    """Create a lab on the test's own database."""
    return Lab(tmp_path / "lab", settings)


def losses(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the trials' losses, by setting and seed."""
    return {(row["lr"], row["seed"]): row["val_loss"] for row in rows}


def test_another_network_in_a_library_is_trained_anew(lab: Lab) -> None:
    """After a change of the library's network nothing is reused: figures equal a fresh training."""
    lab.launch("--no-check")
    lab.sigmoid()
    again = lab.project.folder / "studies" / "again.toml"
    again.write_text(
        (lab.project.folder / "studies" / "small.toml").read_text().replace('"small"', '"again"')
    )
    lab.project.run("launch", "--study", "again", "--workers", "1", "--no-check")
    assert {row["epochs_reused"] for row in lab.trials("again")} == {"0"}
    old, new = losses(lab.trials()), losses(lab.trials("again"))
    assert old.keys() == new.keys()
    assert all(old[cell] != new[cell] for cell in old)


def test_changed_code_is_refused_with_three_ways(lab: Lab) -> None:
    """Extending a study with changed code is refused; each of the three offered ways works."""
    first = lab.launch("--no-check")
    assert "accepted" not in first
    before = lab.nets.read_text()
    lab.sigmoid()
    more = ("--set", "replicates.seeds=3", "--no-check")
    told = lab.launch(*more, code=2)
    assert "mylab/nets.py changed" in told
    assert "--new-version" in told
    assert "--accept-changes" in told
    assert len(lab.trials()) == 4, "nothing was extended"
    # As a separate version, although the file is the same.
    assert "New study small@2" in lab.launch("--no-check", "--new-version")
    assert {row["epochs_reused"] for row in lab.trials("small@2")} == {"0"}
    lab.nets.write_text(before)
    # Accepted, the change is marked in every answer.
    told = lab.launch("--set", "replicates.seeds=3", "--no-check", "--accept-changes")
    assert "Accepted and recorded in the study: mylab/nets.py changed" in told
    mark = "the change was accepted on"
    assert mark in told
    assert mark in lab.project.run("compare", "small@2")
    assert "after 4 trials: mylab/nets.py changed" in str(
        lab.project.json("compare", "small@2", "--json")["changes"]
    )
    assert mark in lab.project.run("show", "small@2", "0")
    lab.project.run("report", "small@2", "-o", "report.md")
    assert mark in (lab.project.folder / "report.md").read_text()
    assert mark not in lab.project.run("compare", "small@1")


def test_a_worker_with_other_code_leaves(lab: Lab, database: Database, tmp_path: Path) -> None:
    """A worker whose library differs records nothing, says why, and exits with 2."""
    lab.launch("--no-check")
    shutil.copytree(lab.project.folder, tmp_path / "other")
    spec = lab.project.folder / "studies" / "small.toml"
    text = spec.read_text()
    spec.write_text(text.replace("seeds = 2", "seeds = 3"))
    other = Project(
        tmp_path / "other",
        {
            **lab.project.environment,
            "PYTHONPATH": str(lab.project.environment["PYTHONPATH"]).replace(
                str(lab.project.folder), str(tmp_path / "other")
            ),
        },
    )
    (tmp_path / "other" / "lib" / "mylab" / "nets.py").write_text(NETS.replace("ReLU", "Tanh"))
    # Skip the launch's own check, as a launch elsewhere would: the worker's check is the backstop.
    extend(database, spec)
    told = other.run("worker", "--study", "small", "--device", "cpu", code=2)
    assert "mylab/nets.py changed" in told
    assert {row["state"] for row in lab.trials()} == {"COMPLETE", "WAITING"}
    assert all(int(row["epochs_run"]) == 0 for row in lab.trials() if row["state"] == "WAITING")
    told = other.run("worker", "--study", "small", "--device", "cpu", "--workers", "2", code=1)
    assert "mylab/nets.py changed" in told
    lab.launch("--no-check")
    assert {row["state"] for row in lab.trials()} == {"COMPLETE"}
    assert len(lab.trials()) == 6


def extend(database: Database, file: Path) -> None:
    """Extend the stored study as a launch on a machine with the old code would."""
    spec = load(
        file,
        (),
        lambda *_: find("blobs", [file.parents[1] / "objectives"]).objective.declarations(),
    )
    studies.launch(database, Binding(database), spec, {}, new_version=False)


def write_images(folder: Path, counts: Mapping[str, int]) -> None:
    """Write noise as PNG files, in one folder per split and class."""
    random = np.random.default_rng(0)
    for where, count in counts.items():
        (folder / where).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / where / f"{number}.png")


def test_images_that_are_added_are_refused_and_counted(lab: Lab) -> None:
    """Images added to a class are counted by class and split; so is a replaced one."""
    project = lab.project
    shutil.rmtree(project.folder / "objectives")
    write_objective(project.folder / "objectives" / "blobs", FOLDER, LOADS, MODELS)
    images = project.folder / "images"
    write_images(images, {"train/ill": 20, "train/well": 20, "test/ill": 6, "test/well": 6})
    study = STUDY.replace("seeds = 2", "seeds = 2\nsplits = 2")
    project.write_study("small", study + '\n[data]\npath = "../images"\n')
    lab.launch("--no-check")
    for number in range(8):
        shutil.copy(
            images / "train" / "well" / "0.png", images / "train" / "ill" / f"copy{number}.png"
        )
    told = lab.launch("--set", "replicates.seeds=3", "--no-check", code=2)
    assert "images of class ill in train: 16 → " in told
    assert "well in test" not in told
    assert len(rows_of(project, "small")) == 4
    for number in range(8):
        (images / "train" / "ill" / f"copy{number}.png").unlink()
    shutil.copy(images / "train" / "well" / "0.png", images / "train" / "ill" / "3.png")
    told = lab.launch("--set", "replicates.seeds=3", "--no-check", code=2)
    assert "same number of images per class, but different pixels" in told
    told = lab.launch("--set", "replicates.seeds=3", "--no-check", "--accept-changes")
    assert {row["state"] for row in rows_of(project, "small")} == {"COMPLETE"}
