"""The probe: a worker's requirements, checked where it will run, with all faults at once."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.scenery import Scene, Sizes
from tuner.check.identity import identify
from tuner.check.quick import configurations
from tuner.errors import MachineError, UserError
from tuner.questions import Checker
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.store import identities
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.work.probe import ProbeFinding, ProbeReport, probe

SMALL = StudyRef("small")


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Scene]:
    """Return a folder with the blobs objective, and a stored study on it."""
    scene = Scene(settings, database, tmp_path / "scene")
    scene.launch(Sizes())
    yield scene
    scene.close()


def ask(scene: Scene, settings: Settings | None = None, ref: StudyRef = SMALL) -> ProbeReport:
    """Probe for the study of a scene."""
    return probe(settings or scene.settings, ref, (scene.blobs.folder,), lambda: "cpu")


def test_all_is_well_where_all_is_there(scene: Scene) -> None:
    """Each requirement has its line, and the report reads back the same."""
    report = ask(scene)
    assert report.faults == []
    needs = ["device", "home", "database", "versions", "objective", "code and data", "checkpoints"]
    assert [finding.what for finding in report.findings] == needs
    printed = f"Loading module cuda\n{{not json\n{json.dumps(report.to_json())}\nbye\n"
    assert ProbeReport.read(printed) == report


def test_all_that_is_wrong_is_told_together(scene: Scene, tmp_path: Path) -> None:
    """A missing GPU, an unwritable folder, versions and a missing objective are all reported."""
    file = tmp_path / "a file"
    file.write_text("")

    def no_gpu() -> str:
        raise UserError("This machine has no usable NVIDIA GPU.")

    with scene.database.transaction() as connection:
        packages = {"tuner": "0.0.1", "packages": {"torch": "0.3.0", "numpy": None}}
        connection.execute(t.study.update().values(provenance=packages))
    settings = replace(scene.settings, checkpoints=str(file))
    report = probe(settings, SMALL, (), no_gpu)
    assert not report.ok
    wrong = {finding.what: finding.said for finding in report.findings if not finding.ok}
    assert set(wrong) == {"device", "versions", "objective", "checkpoints"}
    assert "tuner" in wrong["versions"]
    assert "torch" in wrong["versions"]
    assert "numpy" not in wrong["versions"]
    assert "blobs" in wrong["objective"]


def test_another_code_than_the_trained_one_is_told(scene: Scene) -> None:
    """A machine with another version of the objective is detected before it trains."""
    bench = scene.launch(Sizes())
    checker = Checker(scene.settings.home, (scene.blobs.folder,), lambda *_: None)
    (trained,) = identify("blobs", configurations(bench.study.spec), checker, whole=False)
    with scene.database.transaction() as connection:
        identities.check(connection, bench.study.study_id, trained)
    assert ask(scene).faults == []
    models = scene.blobs.folder / "blobs" / "models.py"
    models.write_text(models.read_text() + "\n# changed\n")
    (fault,) = ask(scene).faults
    assert "blobs/models.py changed" in fault


def test_a_database_that_is_away_is_told_without_its_password(scene: Scene) -> None:
    """The rest cannot be checked, and is not guessed."""
    away = replace(scene.settings, database_url="postgresql://me:secret-1@127.0.0.1:1/x")
    report = ask(scene, away)
    (fault,) = report.faults
    assert fault.startswith("database: ")
    assert "secret-1" not in json.dumps(report.to_json())


def test_a_study_that_is_not_stored_is_told(scene: Scene) -> None:
    """The message has the requested name."""
    (fault,) = ask(scene, ref=StudyRef("nowhere")).faults
    assert "nowhere" in fault


def test_an_output_without_a_report_is_told() -> None:
    """Such as a cluster's shell message when it cannot even start Python."""
    with pytest.raises(MachineError, match="command not found"):
        ProbeReport.read("bash: tuner: command not found\n")


def test_a_report_with_a_fault_is_not_ok() -> None:
    """Its faults are printed as lines."""
    report = ProbeReport("node7", "ann@node7", (ProbeFinding("home", ok=False, said="full"),))
    assert (report.ok, report.faults) == (False, ["home: full"])
