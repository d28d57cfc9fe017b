"""A study on image files, trained and saved once, as by a user."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK, Project
from tests.conftest import own_database
from tests.train.sources.image_files import deepen, write_folder
from tuner.store.address import Address

STUDY = """
[study]
name = "scans"
question = "Which rate?"
objective = "chest_xray"

[budget]
trials = "grid"

[space]
lr = [1e-3, 1e-2]

[fixed]
model = "cnn"
epochs = 3

[data]
source = "folder"
path = "../images"
image_size = 160
"""
"""At 160 pixels five images are evaluated at a time, so the 16 test images make 5, 5, 5 and 1."""


@dataclass(frozen=True)
class Saved:
    """A trained study and the folder of its saved winner."""

    project: Project
    folder: Path

    @property
    def images(self) -> Path:
        """The study's images: 16-bit TIFF files."""
        return self.project.folder / "images"


@pytest.fixture(scope="module")
def saved(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Saved]:
    """Train the study and save its winner once for all tests of a module."""
    with own_database(server, template) as address:
        folder = tmp_path_factory.mktemp("winner") / "project"
        (folder / "studies").mkdir(parents=True)
        (folder / "studies" / "scans.toml").write_text(STUDY)
        write_folder(folder / "images", ".tif", deepen)
        url = {"TUNER_DATABASE_URL": address.url(show_password=True), "COLUMNS": "120"}
        project = Project(folder, {**os.environ, **QUICK, **url})
        project.run("launch", "--study", "scans", "--workers", "1", "--no-check")
        project.run("best", "scans", "--save", "model")
        yield Saved(project, folder / "model")
