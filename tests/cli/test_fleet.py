"""`tuner fleet`, `tuner launch --on` and `--detach`, `tuner attach`: workers on every engine."""

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import STUDY, Project
from tests.harness.processes import until
from tests.store.specs import Bench, make_spec
from tests.train.blobs import PAUSE
from tuner.fleet.contract import Crew
from tuner.store import fleets as stored_fleets
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.fleets import Launcher

LONG = STUDY.replace("epochs = 3", "epochs = 2000")
SLOWLY = {PAUSE: "0.01"}


def fleets(project: Project, *more: str) -> list[dict[str, object]]:
    """Return the fleets of the small study."""
    listed: list[dict[str, object]] = project.json("fleet", "status", "small", "--json", *more)
    return listed


@pytest.mark.processes
def test_a_detached_launch_is_scaled_and_stopped_from_elsewhere(project: Project) -> None:
    """A detached launch outlives its command, and is scaled and stopped through the database."""
    project.write_study("small", LONG)
    out = project.run("launch", "small", "--workers", "1", "--detach", environ=SLOWLY)
    assert "tuner attach small" in out
    (fleet,) = fleets(project)
    assert (fleet["engine"], fleet["workers"], fleet["state"]) == ("local", 1, "working")
    project.run("fleet", "scale", "small", "2")
    until(lambda: fleets(project)[0]["running"] == 2, "a second worker runs")
    project.run("fleet", "stop", "--study", "small")
    until(lambda: not fleets(project), "its workers have left")
    (ended,) = fleets(project, "--all")
    assert (ended["state"], ended["reason"]) == ("ended", "")
    assert project.json("status", "small", "--json")["state"] == "open"


@pytest.mark.processes
def test_a_launcher_that_was_killed_leaves_a_fleet_that_is_told_as_lost(project: Project) -> None:
    """If a launcher is killed, its fleet is listed as lost and can be stopped."""
    project.write_study("small", LONG)
    project.run("launch", "small", "--workers", "1", "--detach", environ=SLOWLY)
    (fleet,) = fleets(project)
    os.kill(int(str(fleet["pid"])), signal.SIGKILL)
    until(lambda: str(fleets(project)[0]["state"]).startswith("lost"), "it is told as lost")
    project.run("fleet", "stop", "small")
    assert fleets(project) == []


@pytest.mark.processes
def test_a_detached_launch_that_cannot_begin_says_so_here(project: Project) -> None:
    """A detached launch that cannot begin prints its error; it is not hidden in a log."""
    out = project.run("launch", "small", "--device", "cuda", "--detach", code=2)
    assert "no usable NVIDIA GPU" in out


@pytest.mark.processes
def test_attach_shows_a_study_until_its_end(project: Project) -> None:
    """A complete study is reported at once."""
    project.run("launch", "small", "--workers", "1")
    assert "small is complete" in project.run("attach", "small")
    assert "No fleet works on small" in project.run("fleet", "status", "small")
    out = project.run("fleet", "scale", "small", "2", code=2)
    assert "no fleet that works on it" in out


@pytest.mark.processes
def test_the_probe_is_printed_and_is_the_exit_code(project: Project) -> None:
    """The probe exits with 0 if a worker could work, and with 3 if not."""
    project.run("launch", "small", "--workers", "1")
    assert "ok     objective" in project.run("worker", "small", "--probe")
    (project.folder / "objectives" / "blobs" / "__init__.py").write_text("broken(")
    out = project.run("fleet", "probe", "small", code=3)
    assert "WRONG  objective" in out
    assert "no JSON" in project.run("worker", "small", "--json", code=2)


def test_options_of_engines_are_key_and_value(project: Project) -> None:
    """Engine options that are not KEY=VALUE are refused with an example."""
    out = project.run("launch", "small", "--fleet", "partition", code=2)
    assert "is not KEY=VALUE" in out
    out = project.run("launch", "small", "--fleet", "partition=gpu", code=2)
    assert "no options" in out


def test_an_engine_that_cannot_be_asked_hides_no_other_fleet(
    project: Project, database: Database, tmp_path: Path
) -> None:
    """A fleet of an unreachable engine is shown as last seen; the others are asked to stop."""
    (tmp_path / "bin").mkdir()
    for name in ("squeue", "scancel", "scontrol", "sbatch"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho nobody is there >&2\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    asked = Project(project.folder, {**project.environment, **path})
    bench = Bench.launch(database, make_spec())
    handle = {"folder": str(tmp_path), "jobs": [5], "leaving": [], "left": []}
    handles = {"slurm": {**handle, "accidents": 0, "messages": []}, "local": {}}
    crew = Crew("small@1", ("cpu",)).to_json()
    with database.transaction() as connection:
        for engine, kept in handles.items():
            launcher = Launcher("elsewhere", 7, "ann@elsewhere")
            stored_fleets.begin(
                connection, bench.study, engine, crew, kept, workers=1, launcher=launcher
            )
    slurm, local = fleets(asked)
    assert "controller does not answer" in str(slurm["error"])
    assert (local["engine"], local["error"], local["state"]) == ("local", None, "working")
    assert "as it was at" in asked.run("fleet", "status", "small")
    out = asked.run("fleet", "stop", "small", code=3)
    assert "was not asked to stop: Slurm's controller does not answer" in out
    assert "(local) was asked to stop" in out
    assert [fleet["state"] for fleet in fleets(asked)] == ["working", "stopping"]


def test_a_fleet_whose_cluster_is_gone_is_forgotten(project: Project, database: Database) -> None:
    """Forgetting shows what may still run; the engine is not asked and nothing is stopped."""
    handle = {"jobs": [5, 6], "cluster": "old", "folder": "/home/ann/.tuner/fleet/small@1-0a1b"}
    bench = Bench.launch(database, make_spec())
    with database.transaction() as connection:
        crew, launcher = Crew("small@1").to_json(), Launcher("elsewhere", 7, "ann@elsewhere")
        stored_fleets.begin(
            connection, bench.study, "slurm", crew, handle, workers=3, launcher=launcher
        )
    assert "can be asked to leave" in project.run("fleet", "forget", "small", "--yes", code=2)
    with database.transaction() as connection:
        connection.execute(sa.update(t.fleet).values(seen=t.fleet.c.seen - timedelta(hours=1)))
    assert "jobs 5,6 on the Slurm cluster old" in project.run("fleet", "forget", "small", code=130)
    assert bench.rows(t.fleet)[0].ended is None
    out = project.run("fleet", "forget", "small", "--yes")
    assert "`tuner stop small` makes them exit" in out
    (fleet,) = bench.rows(t.fleet)
    assert fleet.ended is not None
    assert fleet.reason.startswith("forgotten by ")
    assert [row.kind for row in bench.rows(t.event)][-1] == "fleet forgotten"
    assert bench.state() == "open"
