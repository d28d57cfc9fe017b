"""docs/own-objective.md works: its files and commands, in order, in an empty folder."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Project
from tuner.settings import Settings
from tuner.train.objective import find

PAGE = Path(__file__).parents[2] / "docs" / "own-objective.md"
NEW = ("objectives/leaves/metrics.py", "studies/leaves_dice.toml")
"""The files that the page adds to those of `tuner new`."""
FENCE = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLANTS = {("train", "healthy"): range(20), ("train", "spotted"): range(30, 50)} | {
    ("test", "healthy"): range(60, 66),
    ("test", "spotted"): range(70, 76),
}


@dataclass(frozen=True)
class Step:
    """One step of the page: write a file, or run a command."""

    kind: Literal["file", "command"]
    what: str
    """The file's path, or the command line after `tuner`."""
    text: str
    """The file's content, or the lines that the command is shown to print."""


def steps(page: str) -> Iterator[Step]:
    """Return the steps of the page in order."""
    for name, language, body in FENCE.findall(page):
        if language == "console":
            for part in re.split(r"^\$ tuner ", body, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                yield Step("command", command, shown)
        elif language != "text":
            assert name, f"a block of {language} does not say which file it is"
            yield Step("file", name, body)


def write_leaves(folder: Path) -> None:
    """Write grey leaves of several sizes, some with dark spots, two of each plant."""
    random = np.random.default_rng(0)
    for (split, kind), plants in PLANTS.items():
        place = folder / "images" / split / kind
        place.mkdir(parents=True)
        for plant in plants:
            for leaf in range(2):
                size = 40 if plant % 3 else 48
                pixels = random.normal(150, 12, (size, size))
                for _ in range(6 if kind == "spotted" else 0):
                    row, column = random.integers(2, size - 8, 2)
                    pixels[row : row + 6, column : column + 6] -= 100
                grey = pixels.clip(0, 255).astype(np.uint8)
                Image.fromarray(grey).save(place / f"plant{plant:02d}_{leaf}.png")


@pytest.fixture
def reader(tmp_path: Path, settings: Settings) -> Project:
    """Prepare a folder with images and nothing else."""
    folder = tmp_path / "reader"
    write_leaves(folder)
    environment = {"TUNER_DATABASE_URL": str(settings.database_url), "COLUMNS": "120"}
    return Project(folder, {**os.environ, **QUICK, **environment})


def test_the_page_works_as_it_stands(reader: Project) -> None:
    """Every file is written and every command run in the page's order; each exits with 0."""
    for step in steps(PAGE.read_text("utf-8")):
        if step.kind == "file":
            path = reader.folder / step.what
            assert path.exists() or step.what in NEW, (
                f"{step.what} is new, but the page says that it is changed"
            )
            path.write_text(step.text, "utf-8")
        else:
            printed = reader.run(*shlex.split(step.what)).splitlines()
            assert set(step.text.splitlines()) <= set(printed), step.what
    best = reader.json("table", "leaves", "--json")["best"]
    assert len(best) == 6
    assert best[0]["test_acc"] > 0.8
    assert (reader.folder / "leaves.csv").exists()
    heads = (reader.folder / "leaves_dice.csv").read_text("utf-8").splitlines()[0].split(",")
    assert {"val_dice", "test_dice", "gap_worst_plant", "last_val_f1"} <= set(heads)
    keep_plants_together(reader.folder)


def keep_plants_together(folder: Path) -> None:
    """Check that the page's loader keeps all leaves of a plant on one side."""
    found = find("leaves", [folder / "objectives"])
    keys = {name: each.default for name, each in found.objective.declarations().data.items()}
    for seed in range(3):
        chosen = {**keys, "path": str(folder / "images"), "split_seed": seed}
        data = found.load_data(chosen, folder / "cache", lambda *_: None)
        assert not set(data.train.patients) & set(data.val.patients)
        assert len(data.val.ids) == 16


def test_the_page_shows_files_and_commands() -> None:
    """Steps are found: changed files, two new ones, and at least ten commands."""
    found = list(steps(PAGE.read_text("utf-8")))
    assert [step.what for step in found if step.kind == "file"] == [
        "studies/leaves.toml",
        "objectives/leaves/__init__.py",
        "objectives/leaves/models.py",
        "objectives/leaves/data.py",
        "objectives/leaves/__init__.py",
        *NEW,
    ]
    assert sum(step.kind == "command" for step in found) >= 10
