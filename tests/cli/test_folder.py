"""No process of ours imports modules that happen to lie in the current folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project

NAMES = ("numpy", "statistics", "random", "typing", "json", "torch", "uuid")


@pytest.fixture
def poisoned(project: Project) -> Project:
    """Put files named like modules of Python and of packages into the project's folder."""
    for name in NAMES:
        (project.folder / f"{name}.py").write_text(trap(project.folder / "taken", name))
    return project


def trap(taken: Path, name: str) -> str:
    """Return a module that records its import, and fails."""
    return f"open({str(taken)!r}, 'a').write({name!r} + '\\n')\nraise ImportError('a trap')\n"


def start(project: Project, *arguments: str, safe: bool = True) -> "subprocess.Popen[str]":
    """Start tuner as its installed command does: without the current folder in sys.path."""
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
    """Run a command that must succeed; check that no trap was imported."""
    out, err = (process := start(project, *arguments, safe=safe)).communicate(timeout=240)
    taken = project.folder / "taken"
    assert not taken.exists(), f"{arguments[0]} imported {taken.read_text()}\n{err}"
    assert process.returncode == 0, f"{arguments[0]}: {out}\n{err}"


def test_no_command_imports_from_the_folder_one_stands_in(poisoned: Project) -> None:
    """launch, check, worker, best, predict, dashboard and their children import nothing from it."""
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
    """`python -m tuner` starts with the current folder in sys.path, but imports nothing from it."""
    for name in ("statistics", "random", "numpy", "json", "uuid"):
        assert (poisoned.folder / f"{name}.py").is_file()
    # Python itself imports typing before any line of ours runs.
    (poisoned.folder / "typing.py").unlink()
    run(poisoned, "studies", safe=False)
