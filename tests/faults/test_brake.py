"""A fault in every trial: the brake pauses the study early, and it completes after a repair."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.scenes import Scene, held, small_disk, states, told
from tests.store.specs import Bench
from tuner.settings import Settings
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.optuna_storage import Binding

TRIALS = 8
VARIANTS = {"variant": list(range(TRIALS))}
FEW = 7
"""Attempts allowed for a study with one fault in every trial: two per trial, and the last."""


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Scene:
    """Set up the scene of one test."""
    return Scene(settings, database, tmp_path)


def attempts(bench: Bench) -> list[str]:
    """Return the reasons of all failed attempts."""
    return [row.text for row in bench.rows(t.event) if row.kind == "attempt failed"]


def assert_braked(bench: Bench, cause: str) -> None:
    """Check that the study is paused after a few attempts, with no trial used up."""
    assert bench.state() == "paused"
    assert bench.rows(t.outcome) == []
    reasons = attempts(bench)
    assert len(reasons) <= FEW
    assert all(cause in reason for reason in reasons), reasons
    assert {row.state for row in held(bench)} == {"released"}
    assert {row.strikes for row in held(bench)} == {0}


def reopen(bench: Bench) -> None:
    """Do what `tuner retry` does."""
    control.retry(bench.database, Binding(bench.database), bench.study, [])


def assert_complete(bench: Bench) -> None:
    """Check that the study has exactly its trials, each trained to its end."""
    assert bench.state() == "complete"
    assert states(bench) == ["COMPLETE"] * TRIALS
    assert {one.curve for one in told(bench).values()} == {(1, 2, 3, 4)}


def test_missing_data_pause_the_study(scene: Scene) -> None:
    """A missing data path costs a few attempts; once the file exists the study completes."""
    images = scene.folder / "images.npz"
    bench = scene.launch("missing", space=VARIANTS, data={"path": str(images)})
    assert scene.work("missing").state == "paused"
    assert_braked(bench, "No such file or directory")
    images.touch()
    reopen(bench)
    assert scene.work("missing").state == "complete"
    assert_complete(bench)


def test_an_objective_that_raises_pauses_the_study(scene: Scene) -> None:
    """Epochs before the common fault are kept: after the repair, the trials continue from them."""
    models = scene.objectives / "trouble" / "models.py"
    sound = models.read_text()
    breaking = 'if int(self.trained) == 2:\n            raise KeyError("no such layer")\n        '
    broken = sound.replace("if int(self.trained) != 2", breaking + "if int(self.trained) != 2")
    models.write_text(broken)
    bench = scene.launch("raising", space=VARIANTS)
    assert scene.work("raising").state == "paused"
    assert_braked(bench, "KeyError: 'no such layer'")
    assert Counter(one.curve for one in told(bench).values())[(1,)] >= 3
    models.write_text(sound)
    reopen(bench)
    assert scene.work("raising").state == "complete"
    assert_complete(bench)


def test_a_device_that_is_not_there_pauses_the_study(scene: Scene) -> None:
    """A worker without its device uses up no trial; a worker on another device completes."""
    bench = scene.launch("nowhere", space=VARIANTS)
    assert scene.work("nowhere", device="cuda:99").state == "paused"
    assert_braked(bench, "device cuda:99 is not usable here")
    reopen(bench)
    assert scene.work("nowhere").state == "complete"
    assert_complete(bench)


def test_a_full_disk_for_the_cache_pauses_the_study(scene: Scene, tmp_path: Path) -> None:
    """An objective that cannot write its cache says so; with free space, the study continues."""
    cache = scene.settings.home / "cache"
    bench = scene.launch("full", space=VARIANTS, data={"scratch": 1_000_000})
    with small_disk(cache, "256k"):
        assert scene.work("full").state == "paused"
        assert_braked(bench, "No space left on device")
    reopen(bench)
    assert scene.work("full").state == "complete"
    assert_complete(bench)
