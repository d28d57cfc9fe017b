"""`tuner.launch`, `tuner.studies` and an opened study: the commands from Python."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import tuner
from tests.cli.conftest import QUICK, Project, make_project
from tests.harness import warm
from tuner import forkserver
from tuner.errors import (
    DatabaseUnreachableError,
    StudyFailedError,
    StudyFileError,
    UnknownStudyError,
    UserError,
)
from tuner.settings import Settings
from tuner.spec.setting import plain
from tuner.spec.writing import inline

STUDY: dict[str, Any] = {
    "study": {"name": "rates", "question": "Which rate?", "objective": "blobs"},
    "budget": {"trials": "grid"},
    "space": {"lr": (1e-3, 1e-2)},
    "fixed": {"epochs": 2, "hidden": 4},
}
"""A study as written in Python; a tuple is accepted as a list."""


@pytest.fixture
def project(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """Change to a project's folder, with its database in the environment."""
    project = make_project(tmp_path / "project", {"TUNER_DATABASE_URL": str(settings.database_url)})
    for name, value in {**QUICK, "TUNER_DATABASE_URL": str(settings.database_url)}.items():
        monkeypatch.setenv(name, value)
    with contextlib.chdir(project.folder):
        yield project


@pytest.fixture
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the fork servers of a test's launches with torch loaded."""
    if forkserver.AVAILABLE:
        monkeypatch.setattr(forkserver.ForkServer, "start", warm.serve)


@pytest.mark.usefixtures("_warm")
@pytest.mark.processes
def test_a_dict_is_launched_and_comes_back_opened(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study is trained and shown as by the command, and returned opened."""
    with tuner.launch(STUDY, workers=1) as study:
        assert repr(study) == "<tuner study rates@1>"
        assert list(study.trials.state) == ["COMPLETE", "COMPLETE"]
        assert sorted(study.trials.lr) == [1e-3, 1e-2]
        assert "lr: " in study.compare().verdict
        assert study.gap().verdict
        assert [one.metric for one in study.influence("val_loss")] == ["val_loss"]
        curves = study.figure("curves", by="lr")
        png, size = curves._repr_png_()
        assert png.startswith(b"\x89PNG")
        assert 500 < size["width"] < 1000
        saved = curves.save("curves.png")
        assert matplotlib.image.imread(saved).shape[1] == 2 * size["width"]
        with pytest.raises(UserError, match="by goes with curves"):
            study.figure("history", by="lr")
    printed = capsys.readouterr().out
    assert "New study rates: Which rate?  (2 trials)" in printed
    assert "2/2 trials" in printed
    assert "rates: all 2 complete trials" in printed
    (listed,) = tuner.studies()
    assert (listed.name, listed.state, listed.ended, listed.total) == ("rates", "complete", 2, 2)
    assert list(pd.DataFrame(tuner.studies()).name) == ["rates"]
    # An opened study is resumed, a dict with more seeds extends it, and a file works as before.
    tuner.launch(tuner.open("rates")).close()
    more = {**STUDY, "replicates": {"seeds": 2}}
    with tuner.launch(more, workers=1) as study:
        assert len(study.trials) == 4
    with tuner.launch("studies/small.toml", set={"lr": [1e-3], "epochs": 1}, workers=1) as study:
        assert set(study.trials.lr) == {1e-3}
        assert set(study.trials.epochs_run) == {1}


def test_what_the_command_refuses_is_raised(project: Project) -> None:
    """All faults of a dict at once, an unknown study, an unreachable server; never SystemExit."""
    faulty = {**STUDY, "space": {"lrr": [1e-3]}, "fixed": {"epochs": "many"}}
    with pytest.raises(StudyFileError) as told:
        tuner.launch(faulty)
    assert "Did you mean lr?" in str(told.value).replace("did", "Did")
    assert "epochs" in str(told.value)
    assert len(told.value.faults) == 2
    with pytest.raises(UserError, match="no study 'nowhere'"):
        tuner.launch("nowhere")
    with pytest.raises(UnknownStudyError):
        tuner.launch("nowhere@2")
    with pytest.raises(UserError, match="Use either"):
        tuner.launch(STUDY, new_version=True, accept_changes=True)
    with pytest.raises(DatabaseUnreachableError):
        tuner.launch(STUDY, wait=0, database="postgresql://nobody@127.0.0.1:9/none")
    assert tuner.studies() == []


@pytest.mark.usefixtures("_warm")
@pytest.mark.processes
def test_workers_that_cannot_train_are_an_error_with_their_words(project: Project) -> None:
    """A missing device ends the launch with the workers' output."""
    with pytest.raises(StudyFailedError, match="is paused") as told:
        tuner.launch(STUDY, device="cuda:7")
    assert "cuda:7" in str(told.value)
    assert [one.state for one in tuner.studies()] == ["paused"]


@pytest.mark.usefixtures("_warm")
@pytest.mark.processes
def test_interrupting_gives_trials_back_and_raises(project: Project) -> None:
    """An interrupt during trials raises KeyboardInterrupt, and signal handlers are restored."""
    before = signal.getsignal(signal.SIGINT)
    long = {**STUDY, "fixed": {"epochs": 100_000, "hidden": 4}}

    def interrupt() -> None:
        while not (tuner.studies() and tuner.studies()[0].running):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        tuner.launch(long, workers=1)
    watcher.join()
    assert signal.getsignal(signal.SIGINT) is before
    (listed,) = tuner.studies()
    assert (listed.state, listed.running, listed.waiting) == ("open", 0, 1)


def test_a_launch_on_another_thread_trains_too(project: Project) -> None:
    """Signals arrive only on the main thread; a launch on another one does without them."""
    opened: list[Any] = []
    thread = threading.Thread(target=lambda: opened.append(tuner.launch(STUDY, workers=1)))
    thread.start()
    thread.join()
    (study,) = opened
    assert len(study.trials) == 2
    study.close()


@pytest.mark.usefixtures("_warm")
@pytest.mark.processes
def test_a_known_good_setting_is_trained_first(project: Project) -> None:
    """`enqueue` works in a launch, in an opened study and as a command; faults are reported."""
    with pytest.raises(UserError, match=r"lr: 0\.5 is not 0\.001 or 0\.01"):
        tuner.launch(STUDY, enqueue=[{"lr": 0.5}])
    assert tuner.studies() == []
    with tuner.launch(STUDY, enqueue=[{"lr": np.float64(1e-2)}], workers=1) as study:
        assert list(study.trials.lr) == [1e-2, 1e-3]
        assert study.enqueue({"lr": 1e-2}).trial == 0
    assert project.run("enqueue", "rates") == "lr=0.01 is trial 0.\n"
    assert "lr=0.001 is trial 1." in project.run("enqueue", "--study", "rates", "lr=1e-3")
    said = project.run("enqueue", "rates", "lrr=1e-3", code=2)
    assert "Did you mean lr?" in said
    assert "lr: missing" in said
    drawn = {**STUDY, "study": {**STUDY["study"], "name": "drawn"}, "budget": {"trials": 2}}
    drawn |= {"space": {"lr": {"low": 1e-4, "high": 1e-1, "log": True}}}
    drawn |= {"search": {"sampler": "random"}}
    study = tuner.launch(drawn, workers=1)
    with study, pytest.raises(UserError, match="Increase `trials`"):
        study.enqueue({"lr": 0.05})
    drawn["budget"] = {"trials": 4}
    project.write_study("drawn", inline_file(drawn))
    project.run("launch", "--study", "drawn", "--enqueue", "lr=0.05", "--workers", "1")
    with tuner.open("drawn") as study:
        assert list(study.trials.lr)[2] == 0.05
        assert len(study.trials) == 4


def inline_file(study: dict[str, Any]) -> str:
    """Return a study as a file."""
    return "".join(
        f"[{section}]\n"
        + "".join(f"{key} = {inline(plain(value))}\n" for key, value in body.items())
        for section, body in study.items()
    )
