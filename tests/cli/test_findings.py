"""Findings of a data check that runs during training: shown and stored once, or cancelled."""

import sys
import threading
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from tests.harness.processes import until
from tests.store.specs import Bench, make_spec
from tuner import forkserver, questions
from tuner.check.quick import begin
from tuner.cli.data import Findings, look_at_data
from tuner.questions import Checker, Question
from tuner.store import tables as t
from tuner.store.database import Database

EXAMINER = """
import json, pathlib, sys, time

def say(kind, body):
    print(json.dumps({"kind": kind, "body": body}), flush=True)

contents = {"train": {"images": 10, "classes": {"a": 5, "b": 5}}}
say("part", {"contents": contents, "notes": ["Images are read as they are."]})
done = pathlib.Path(sys.argv[1])
while not done.exists():
    time.sleep(0.01)
if done.read_text() == "die":
    sys.exit(3)
found = {"contents": contents, "data": {"image_size": 32}, "notes": []}
say("result", {"examination": found, "warnings": ["7 images have a copy."]})
"""
"""Answers like `tuner.check.quick`; the end of the check waits for a file."""


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Check data with the program above in a fresh process; return the file that it waits for."""
    file = tmp_path / "done"
    monkeypatch.setattr(questions, "starter", forkserver.starter)
    monkeypatch.setattr(forkserver, "python", lambda _: (sys.executable, "-c", EXAMINER, str(file)))
    return file


def begun(home: Path) -> Question:
    """Begin the check of a study's data."""
    spec = make_spec()
    return begin(spec, {"image_size": 32}, Checker(home, (), lambda *_: None), quick=True)


def loaded(database: Database, question: Question) -> Findings:
    """Wait until the data are loaded."""
    findings = look_at_data(database, make_spec(), begun=question, again=False)
    assert findings is not None
    return findings


def stored(database: Database) -> list[list[str]]:
    """Return the warnings of every stored check."""
    with database.transaction() as connection:
        bodies = connection.execute(sa.select(t.check.c.body)).scalars()
        return [body["data"][0]["warnings"] for body in bodies]


def test_findings_that_arrive_late_are_told_and_stored_once(
    database: Database, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source's notes are printed at once; other findings once they exist, and only once."""
    with begun(tmp_path) as question:
        findings = loaded(database, question)
        study = Bench.launch(database, make_spec()).study
        findings.tell(database, study)
        assert capsys.readouterr().err == "Data: Images are read as they are.\n"
        threading.Timer(0.2, done.touch).start()
        findings.tell(database, study, wait=True)
        said = "Waiting for the check of the data to finish …\nWarning: 7 images have a copy.\n"
        assert capsys.readouterr().err == said
        findings.tell(database, study)
        findings.tell(database, study, wait=True)
        findings.stop()
    assert capsys.readouterr().err == ""
    assert stored(database) == [["7 images have a copy."]]


def test_findings_are_kept_after_the_database_was_away(
    database: Database, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings are printed once, and stored as soon as the database is back."""
    with begun(tmp_path) as question:
        findings = loaded(database, question)
        study = Bench.launch(database, make_spec()).study
        done.touch()
        with database.transaction() as connection:
            connection.execute(sa.text('ALTER TABLE tuner."check" RENAME TO away'))
        with pytest.raises(sa.exc.DBAPIError):
            findings.tell(database, study, wait=True)
        with database.transaction() as connection:
            connection.execute(sa.text('ALTER TABLE tuner.away RENAME TO "check"'))
        findings.tell(database, study, wait=True)
    assert capsys.readouterr().err.count("Warning") == 1
    assert stored(database) == [["7 images have a copy."]]


def test_an_examination_that_dies_after_the_data_were_loaded_is_told(
    database: Database, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that dies after the data were loaded does not stop training; nothing is stored."""
    with begun(tmp_path) as question:
        findings = loaded(database, question)
        study = Bench.launch(database, make_spec()).study
        done.write_text("die")
        findings.tell(database, study, wait=True)
        findings.tell(database, study, wait=True)
    said = capsys.readouterr().err
    assert said.count("Warning: the check of the data was not completed") == 1
    assert "ended with 3" in said
    assert stored(database) == []


@pytest.mark.usefixtures("done")
def test_an_examination_is_broken_off(database: Database, tmp_path: Path) -> None:
    """A launch that ends early waits for no check and leaves no process."""
    with begun(tmp_path) as question:
        findings = loaded(database, question)
        examiner = next(
            child for child in psutil.Process().children() if EXAMINER in child.cmdline()
        )
        findings.stop()
    until(lambda: not examiner.is_running(), "the examination ends")
    assert stored(database) == []
