"""`tuner queue`: the order of studies, and how to change it."""

import pytest

from tests.cli.conftest import STUDY, Project
from tests.store.specs import Bench, make_spec
from tuner.store.database import Database


@pytest.mark.processes
def test_the_queue_is_shown_changed_and_obeyed(project: Project, database: Database) -> None:
    """A priority moves a study to the front, a paused one is skipped; workers on any obey."""
    for name in ("first", "second"):
        Bench.launch(database, make_spec(name, dimensions=(), epochs=1))
    assert [one["study"] for one in project.json("queue", "--json")] == ["first@1", "second@1"]
    out = project.run("queue", "priority", "second", "5")
    assert "second now has priority 5" in out
    listed = project.json("queue", "--json")
    assert [(one["study"], one["priority"]) for one in listed] == [("second@1", 5), ("first@1", 0)]
    assert "trials" in project.run("queue")
    project.run("queue", "pause", "second")
    shown = project.run("queue")
    assert "Paused: second" in shown
    assert [one["study"] for one in project.json("queue", "--json")] == ["first@1"]
    project.run("queue", "resume", "second")
    assert len(project.json("queue", "--json")) == 2
    project.run("queue", "priority", "first", "1001", code=2)


@pytest.mark.processes
def test_a_worker_on_any_study_trains_what_is_open_and_exits_with_0(project: Project) -> None:
    """A worker on any study needs no name, and exits with 0 when nothing is left."""
    project.run("launch", "small", "--workers", "1")
    project.write_study("small", STUDY.replace("seeds = 2", "seeds = 3"))
    project.run("extend", "small", "--seeds", "3")
    out = project.run("worker", "--any")
    assert "No open study is left" in out
    assert project.json("status", "small", "--json")["state"] == "complete"
    assert "No study is open." in project.run("queue")
    assert "Specify the study" in project.run("worker", code=2)
    assert "Specify" in project.run("worker", "small", "--any", code=2)
