"""Shell completion of study names, without a database and without any output."""

import subprocess
import sys

import pytest

from tests.cli.conftest import Project


def completed(project: Project, line: str, **more: str) -> list[str]:
    """Return what bash would offer at the end of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "tuner"],
        cwd=project.folder,
        env={
            **project.environment,
            "_TUNER_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **more,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    # If there is nothing to offer, click writes an empty line.
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.processes
@pytest.mark.parametrize(
    "line",
    [
        "tuner table sm",
        "tuner table --study sm",
        "tuner export sm",
        "tuner export --study sm",
        "tuner export --best 3 sm",
        "tuner enqueue sm",
        "tuner plot sm",
    ],
)
def test_a_stored_study_is_completed(trained_once: Project, line: str) -> None:
    """A stored study is completed as an argument and as an option, without a server."""
    nowhere = {"PGCONNECT_TIMEOUT": "1"}
    assert completed(trained_once, line, **nowhere) == ["small"]


@pytest.mark.processes
def test_what_else_is_completed(trained_once: Project) -> None:
    """Study files are completed for launch, and commands and options as before, without repeats."""
    trained_once.write_study("smooth")
    assert completed(trained_once, "tuner launch --study sm") == ["small", "smooth"]
    assert completed(trained_once, "tuner launch sm") == ["small", "smooth"]
    assert completed(trained_once, "tuner table smo") == []
    assert completed(trained_once, "tuner tab") == ["table"]
    assert "--best" in completed(trained_once, "tuner table small --be")
    assert completed(trained_once, "tuner export --study small sm") == []


@pytest.mark.processes
def test_nothing_is_started_or_said_where_there_is_no_database(project: Project) -> None:
    """With no home, no server or an invalid variable there are no names and no error."""
    assert completed(project, "tuner table sm") == []
    away = {"TUNER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    assert completed(project, "tuner table sm", **away) == []
    assert completed(project, "tuner table sm", TUNER_LEASE_SECONDS="soon") == []
    assert not (project.folder / ".tuner").exists()


def test_names_of_a_database_stay_its_own(trained_once: Project) -> None:
    """Another database in the same home has its own names; no address is in the file."""
    names = trained_once.folder / ".tuner" / "names.json"
    assert "small" in names.read_text()
    assert "postgres" not in names.read_text()
    assert names.stat().st_mode & 0o077 == 0
    other = {"TUNER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    assert completed(trained_once, "tuner table sm", **other) == []
