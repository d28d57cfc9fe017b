"""A study on files whose names are not UTF-8, as in an old archive."""

import csv
import os
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK, Project
from tests.train.sources.image_files import write_folder
from tuner.settings import Settings
from tuner.text import file_name

STUDY = """
[study]
name = "scans"
question = "Which rate?"
objective = "chest_xray"

[budget]
trials = "grid"

[space]
lr = [1e-3]

[fixed]
model = "ann"
epochs = 1

[data]
source = "folder"
path = "../images"
image_size = 32
"""
ODD = os.fsdecode(b"kr\xe4nk")
"""A class folder's name in Latin-1."""


@pytest.fixture
def project(tmp_path: Path, settings: Settings) -> Project:
    """Make a project whose images, and one class, have names in Latin-1."""
    folder = tmp_path / "project"
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "scans.toml").write_text(STUDY)
    write_folder(folder / "images", ".png")
    for part in ("train", "test"):
        label = sorted((folder / "images" / part).iterdir())[0]
        label.rename(label.with_name(ODD))
    for image in (folder / "images" / "test" / ODD).iterdir():
        image.rename(image.with_name(os.fsdecode(b"\xe9t\xe9 ") + image.name))
    environment = {"TUNER_DATABASE_URL": str(settings.database_url), "COLUMNS": "120"}
    return Project(folder, {**os.environ, **QUICK, **environment})


def test_names_that_are_no_utf8_are_escaped_and_found_again(project: Project) -> None:
    """Launch, export, best --save and predict write them readably; each identifies its file."""
    project.run("launch", "--study", "scans", "--workers", "1")
    project.run("export", "--study", "scans", "--predictions", "-o", "stored.csv")
    with (project.folder / "stored.csv").open(encoding="utf-8") as file:
        stored = {row["id"]: row["label"] for row in csv.DictReader(file)}
    odd = [name for name in stored if name.startswith(r"test/kr\xe4nk/\xe9t\xe9 ")]
    assert odd
    assert {stored[name] for name in odd} == {r"kr\xe4nk"}
    assert all((project.folder / "images" / file_name(name)).is_file() for name in odd)
    project.run("best", "scans", "--save", "model")
    project.run("predict", "model", str(Path("images", "test")), "-o", "new.csv")
    with (project.folder / "new.csv").open(encoding="utf-8") as file:
        read = {row["path"]: row["known"] for row in csv.DictReader(file)}
    assert set(read) == {f"images/{name}" for name in stored if name.startswith("test/")}
    assert set(read.values()) == {"test"}


def test_a_file_that_cannot_be_read_is_named(project: Project) -> None:
    """The message about a damaged file with such a name can be printed."""
    (damaged,) = list((project.folder / "images" / "test" / ODD).iterdir())[:1]
    damaged.write_bytes(b"no image")
    said = project.run("check", "scans", code=2)
    assert r"kr\xe4nk/\xe9t\xe9 " in said
