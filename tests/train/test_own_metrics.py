"""Metrics beside the built-in ones in the trainer: computed, stored in checkpoints, refused."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.train.blobs import (
    DATA,
    DECLARATIONS,
    MODELS,
    Blobs,
    blob_job,
    nothing,
    untimed,
    write_objective,
)
from tuner.errors import ObjectiveError
from tuner.records import READY, Job, Metric
from tuner.train.checkpoints import manifest
from tuner.train.checkpoints.keys import Base, root
from tuner.train.own_metrics import OwnMetrics, Truth

DICE = Metric("dice", "higher", "Dice of class 1.")
FUNCTIONS = '''
def dice(labels, probabilities):
    """Return the soft Dice coefficient, and try to spoil what others get."""
    positive = probabilities[:, 1]
    found = 2 * positive[labels == 1].sum() / (positive.sum() + (labels == 1).sum())
    labels[:] = 0
    probabilities[:] = 0.5
    return found
'''


@pytest.fixture
def dices(tmp_path: Path) -> Blobs:
    """Write the blobs objective with a metric of its own."""
    declared = DECLARATIONS.replace(
        "    data=[", '    metrics=[Metric("dice", "higher", "Dice of class 1.")],\n    data=['
    ).replace("OBJECTIVE =", "from tuner.records import Metric\n\nOBJECTIVE =")
    package = tmp_path / "objectives" / "blobs"
    write_objective(package, declared, DATA, MODELS)
    (package / "metrics.py").write_text(FUNCTIONS)
    return Blobs(tmp_path / "objectives", tmp_path / "cache")


def dice_job(*more: Metric) -> Job:
    """Return a job that is ranked by dice."""
    return replace(blob_job(metric="val_dice", epochs=4), metrics=(DICE, *more))


def test_an_own_metric_chooses_the_best_epoch(dices: Blobs) -> None:
    """It is in every epoch, and on validation and test at the best and the last."""
    run = dices.workbench().begin(dice_job(READY["f1"]))
    curve = list(run.epochs(nothing))
    result = run.result()
    values = [epoch.own["val_dice"] for epoch in curve]
    assert result.best.epoch == values.index(max(values)) + 1
    assert result.best.own["val_dice"] == max(values)
    assert set(result.last.own) == {"val_dice", "test_dice", "val_f1", "test_f1"}
    assert result.last.own["val_dice"] == values[-1]


def test_a_metric_changes_nothing_else(dices: Blobs) -> None:
    """Other metrics and the training do not notice what a function does to its arguments."""
    bench = dices.workbench()
    with_it = [*bench.begin(dice_job(READY["f1"])).epochs(nothing)]
    only_f1 = replace(blob_job(epochs=4), metrics=(READY["f1"],))
    without = [*bench.begin(only_f1).epochs(nothing)]
    assert [epoch.own["val_f1"] for epoch in with_it] == [epoch.own["val_f1"] for epoch in without]
    plain = [untimed(replace(epoch, own={})) for epoch in with_it]
    assert plain == [untimed(replace(epoch, own={})) for epoch in without]


def test_checkpoints_keep_the_figures_and_resume_equals_never_having_stopped(dices: Blobs) -> None:
    """A run restored from a state goes on with the same figures, bit for bit."""
    bench = dices.workbench()
    whole = bench.begin(dice_job())
    state = None
    for epoch in whole.epochs(nothing):
        state = whole.state() if epoch.epoch == 2 else state
    assert state is not None
    description = manifest.Description(bench.base(dice_job()), "", {})
    file = f"parts/{'a' * 64}-{'b' * 32}"
    parts = {name: manifest.CheckpointFile(f"{file}.{name}", 1, "") for name in manifest.PARTS}
    stored = manifest.Manifest("a" * 64, description, state.best_epoch, state.curve, parts)
    undefined = replace(state.curve[0], own={"val_dice": math.nan})
    for curve in (state.curve, (undefined, *state.curve[1:])):
        written = manifest.write(replace(stored, curve=curve))
        again = manifest.read(f"{'a' * 64}.json", written)
        assert all(a.has_figures_of(b) for a, b in zip(again.curve, curve, strict=True))
        assert again.description.base == description.base
    resumed = bench.begin(dice_job())
    read = manifest.read(f"{'a' * 64}.json", manifest.write(stored))
    resumed.restore(replace(state, curve=read.curve))
    list(resumed.epochs(nothing))
    assert [untimed(one) for one in resumed.curve] == [untimed(one) for one in whole.curve]


def test_another_function_is_another_training(dices: Blobs) -> None:
    """The key of a checkpoint covers metrics.py, so no figure of older code is taken over."""
    before = dices.workbench().base(dice_job())
    code = dices.folder / "blobs" / "metrics.py"
    other = dices.folder.parent / "other"
    other.mkdir()
    (other / "objectives").mkdir()
    write_objective(
        other / "objectives" / "blobs", (dices.folder / "blobs" / "__init__.py").read_text(), DATA,
        MODELS,
    )  # fmt: skip
    changed = code.read_text().replace("2 * positive", "3 * positive")
    (other / "objectives" / "blobs" / "metrics.py").write_text(changed)
    after = Blobs(other / "objectives", dices.cache).workbench().base(dice_job())
    assert before.source != after.source
    assert root(before) != root(after)


def test_keys_without_further_metrics_are_those_of_before() -> None:
    """Checkpoints of studies that have none are found again."""
    base = Base("source", "data", {}, 0, "val_loss", {})
    assert "metrics" not in base.plain()


def test_a_metric_is_undefined_for_predictions_that_are_no_numbers(dices: Blobs) -> None:
    """The network has diverged: that is told, not that the metric failed."""
    found = dices.workbench().found(blob_job())
    truth = Truth("val", np.array([0, 1, 1]), (), ("a", "b"))
    logs = np.log(np.full((3, 2), 0.5, np.float32))
    own = OwnMetrics(found, (DICE,))
    assert own.figures(truth, logs) == {"val_dice": pytest.approx(2 / 3.5)}
    logs[1] = np.nan
    assert math.isnan(own.figures(truth, logs)["val_dice"])


def test_a_metric_fails_before_the_first_epoch(dices: Blobs) -> None:
    """Every function is tried on random predictions when a trial begins."""
    (dices.folder / "blobs" / "metrics.py").write_text(
        "def dice(labels, probabilities):\n    1 / 0"
    )
    with pytest.raises(ObjectiveError, match=r"metrics\.py, line 2 failed: ZeroDivisionError"):
        dices.workbench().begin(dice_job())
