"""A race from a study file to its end, and its output."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Project, make_project
from tests.conftest import own_database
from tuner.store.address import Address

WIDE = """
[study]
name = "wide"
question = "Which rate, of many?"
objective = "blobs"

[budget]
trials = "grid"

[search]
metric = "val_loss"

[replicates]
seeds = 9
of = "top"
top = 3

[space]
lr = [1e-6, 2e-6, 1e-2, 1e-7]

[fixed]
epochs = 6
hidden = 8
batch_norm = false
"""
"""One rate learns and three do not; the three best race."""


@pytest.fixture(scope="module")
def raced(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Project, str]]:
    """Launch the study once, and return the project with what the launch printed."""
    with own_database(server, template) as address:
        url = address.url(show_password=True)
        folder = tmp_path_factory.mktemp("raced") / "project"
        project = make_project(folder, {"TUNER_DATABASE_URL": url})
        project.write_study("wide", WIDE)
        yield project, project.run("launch", "--study", "wide", "--workers", "2", "--no-check")


def test_a_launch_ends_with_its_race(raced: tuple[Project, str]) -> None:
    """The launch says who left, after how many seeds, on what evidence, and what was saved."""
    _, out = raced
    assert "Race of 3 contenders over additional seeds, by val_loss: " in out
    assert re.search(r"by val_loss: \d+ comparisons? made\.", out)
    assert "lr=2e-06 was eliminated after" in out
    assert "worse than lr=0.01 by" in out
    assert "lr=0.01 won the race;" in out
    assert "of 24 trials were not needed." in out
    assert "`tuner compare wide --contenders`" in out


def test_status_tells_the_race_to_people_and_programs(raced: tuple[Project, str]) -> None:
    """Status has the same passage as text; in JSON every contender has its seeds and difference."""
    project, out = raced
    assert "lr=0.01 won the race;" in project.run("status", "wide")
    told = project.json("status", "wide", "--json")
    race = told["race"]
    assert (race["end"], race["room"], race["metric"]) == ("one left", 24, "val_loss")
    assert race["saved"] == 24 - race["spent"] > 0
    assert told["counts"]["complete"] == 4 + race["spent"]
    by_name = {one["name"]: one for one in race["runners"]}
    assert by_name["lr=0.01"]["dropped_after"] is None
    worse = by_name["lr=2e-06"]
    assert worse["dropped_after"] == worse["seeds"]
    assert worse["difference"]["low"] > 0, "a larger loss"
    assert f"{race['saved']} of 24 trials were not needed" in out


def test_contenders_are_compared(raced: tuple[Project, str]) -> None:
    """Their names are the values in which they differ; seed 0 is not counted."""
    project, _ = raced
    out = project.run("compare", "wide", "--contenders", "--metric", "val_loss")
    assert "By contender: val_loss" in out
    assert "lr=2e-06" in out
    (found,) = project.json("compare", "wide", "--contenders", "--json")["comparisons"]
    most = max(level["n"] for level in found["levels"])
    last = project.json("status", "wide", "--json")["race"]["runners"]
    assert most == max(one["dropped_after"] or 0 for one in last)


def test_contenders_go_without_factors(raced: tuple[Project, str]) -> None:
    """Options that cannot be combined with contenders are refused with the reason."""
    project, _ = raced
    out = project.run("compare", "wide", "--contenders", "--by", "lr", code=2)
    assert "--contenders compares whole settings" in out


def test_looks_are_in_the_history(raced: tuple[Project, str]) -> None:
    """`tuner events` lists every look."""
    project, _ = raced
    lines = project.run("events", "wide", "--json").splitlines()
    looked = [one for one in map(json.loads, lines) if one["kind"] == "looked"]
    assert len(looked) == project.json("status", "wide", "--json")["race"]["looks"]


def test_a_study_without_a_race_says_nothing_of_one(project: Project) -> None:
    """Without a race, status and its JSON have none, and compare says why."""
    project.run("launch", "--study", "small", "--workers", "1", "--no-check")
    assert "Race" not in project.run("status", "small")
    assert project.json("status", "small", "--json")["race"] is None
    assert "has no contenders" in project.run("compare", "small", "--contenders", code=2)
