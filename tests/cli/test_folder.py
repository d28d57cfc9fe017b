"""The folder one stands in: what lies there by chance is not imported, by no process of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project

NAMES = ("numpy", "statistics", "random", "typing", "json", "torch", "uuid")


@pytest.fixture
def poisoned(project: Project) -> Project:
    """Put files into the project's folder that are called as modules of Python and packages are."""
    for name in NAMES:
        (project.folder / f"{name}.py").write_text(trap(project.folder / "taken", name))
    return project


def trap(taken: Path, name: str) -> str:
    """Return a module that notes that it was imported, and fails."""
    return f"open({str(taken)!r}, 'a').write({name!r} + '\\n')\nraise ImportError('a trap')\n"


def start(project: Project, *arguments: str, safe: bool = True) -> "subprocess.Popen[str]":
    """Start tuner as its installed command does: without the folder on the path of imports."""
    return subprocess.Popen(
        [sys.executable, *(["-P"] if safe else []), "-m", "tuner", *arguments],
        cwd=project.folder,
        env=dict(project.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(project: Project, *arguments: str, safe: bool = True) -> None:
    """Run a command to its good end; no trap was sprung."""
    out, err = (process := start(project, *arguments, safe=safe)).communicate(timeout=240)
    taken = project.folder / "taken"
    assert not taken.exists(), f"{arguments[0]} imported {taken.read_text()}\n{err}"
    assert process.returncode == 0, f"{arguments[0]}: {out}\n{err}"


def test_no_command_imports_from_the_folder_one_stands_in(poisoned: Project) -> None:
    """Launch, check, worker, best, predict and dashboard, with all the processes they start."""
    (poisoned.folder / "tuner").mkdir()
    text = trap(poisoned.folder / "taken", "tuner")
    (poisoned.folder / "tuner" / "__init__.py").write_text(text)
    run(poisoned, "check", "small")
    run(poisoned, "launch", "--study", "small", "--workers", "1")
    run(poisoned, "worker", "--study", "small")
    run(poisoned, "best", "small", "--save", "model")
    run(poisoned, "predict", "model", "--split", "test", "-o", "predictions.csv")
    dashboard = start(poisoned, "dashboard", "--port", "0")
    assert dashboard.stdout is not None
    told = dashboard.stdout.readline()
    dashboard.kill()
    _, err = dashboard.communicate()
    assert "http://" in told, err
    assert not (poisoned.folder / "taken").exists()


def test_python_m_tuner_imports_nothing_from_there_either(poisoned: Project) -> None:
    """`python -m tuner` has the folder first on its path until it begins; nothing is taken."""
    for name in ("statistics", "random", "numpy", "json", "uuid"):
        assert (poisoned.folder / f"{name}.py").is_file()
    # Python itself imports this one, before any line of ours runs.
    (poisoned.folder / "typing.py").unlink()
    run(poisoned, "studies", safe=False)
