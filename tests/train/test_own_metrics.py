"""Metrics besides the built-in ones in the trainer: computed, stored in checkpoints, refused."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

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
from tuner.statistics import Clusters
from tuner.train.checkpoints import manifest
from tuner.train.checkpoints.keys import Base, root
from tuner.train.objective import find
from tuner.train.own_metrics import RESAMPLED_MOST, OwnMetrics, Truth

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
    """Write the blobs objective with its own metric."""
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
    """It is in every epoch, and in validation and test figures at the best and the last."""
    run = dices.workbench().begin(dice_job(READY["f1"]))
    curve = list(run.epochs(nothing))
    result = run.result()
    values = [epoch.own["val_dice"] for epoch in curve]
    assert result.best.epoch == values.index(max(values)) + 1
    assert result.best.own["val_dice"] == max(values)
    assert set(result.last.own) == {"val_dice", "test_dice", "val_f1", "test_f1"}
    assert result.last.own["val_dice"] == values[-1]


def test_a_metric_changes_nothing_else(dices: Blobs) -> None:
    """A function that changes its arguments affects neither other metrics nor the training."""
    bench = dices.workbench()
    with_it = [*bench.begin(dice_job(READY["f1"])).epochs(nothing)]
    only_f1 = replace(blob_job(epochs=4), metrics=(READY["f1"],))
    without = [*bench.begin(only_f1).epochs(nothing)]
    assert [epoch.own["val_f1"] for epoch in with_it] == [epoch.own["val_f1"] for epoch in without]
    plain = [untimed(replace(epoch, own={})) for epoch in with_it]
    assert plain == [untimed(replace(epoch, own={})) for epoch in without]


def test_checkpoints_keep_the_figures_and_resume_equals_never_having_stopped(dices: Blobs) -> None:
    """A run restored from a state continues with the same figures, bit for bit."""
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
    """A checkpoint's key covers metrics.py, so no figure of older code is reused."""
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
    """Checkpoints of studies without own metrics are still found."""
    base = Base("source", "data", {}, 0, "val_loss", {})
    assert "metrics" not in base.plain()


def test_a_metric_is_undefined_for_predictions_that_are_no_numbers(dices: Blobs) -> None:
    """If the network has diverged the error says so, and does not blame the metric."""
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


HITS = '''
def hits(labels, probabilities):
    """Return the accuracy, whose variance by image is known."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def half(labels, probabilities):
    """Be undefined where other than half of the labels are 1."""
    return 1.0 if 2 * labels.sum() == len(labels) else float("nan")


def families(labels, probabilities, patients):
    """Return how many patients there are, against the images."""
    return len(set(patients)) / len(labels)
'''


@pytest.fixture
def hits(tmp_path: Path) -> OwnMetrics:
    """Write an objective with three metrics, and return them ready to be computed."""
    return hit_metrics(tmp_path, HITS)


def hit_metrics(tmp_path: Path, functions: str) -> OwnMetrics:
    """Write an objective with these functions, and return its metrics."""
    metrics = [Metric(name, "higher", "One of three.") for name in ("hits", "half", "families")]
    package = tmp_path / "objectives" / "blobs"
    declared = DECLARATIONS.replace(
        "    data=[",
        "    metrics=[Metric(name, 'higher', 'One of three.') "
        "for name in ('hits', 'half', 'families')],\n    data=[",
    ).replace("OBJECTIVE =", "from tuner.records import Metric\n\nOBJECTIVE =")
    write_objective(package, declared, DATA, MODELS)
    (package / "metrics.py").write_text(functions)
    return OwnMetrics(find("blobs", [tmp_path / "objectives"]), metrics)


def predicted(labels: NDArray[np.int64], right: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return two-class log-probabilities that are right exactly where requested."""
    sure = np.where(right, labels, 1 - labels)
    return np.log(np.eye(2)[sure] * 0.8 + 0.1).astype(np.float32)


def resampled(
    own: OwnMetrics, truth: Truth, logs: NDArray[np.float32]
) -> Mapping[str, NDArray[np.float32]]:
    """Return the values on resamples."""
    return own.resampled(truth, logs, nothing).values


def test_resampled_values_have_the_variance_of_values_by_image(hits: OwnMetrics) -> None:
    """Also for the difference of two networks on the same resamples."""
    chance = np.random.default_rng(1)
    labels = np.arange(400) % 2
    one = chance.random(400) < 0.8
    other = np.where(chance.random(400) < 0.9, one, ~one)
    truth = Truth("val", labels, (), ("no", "yes"))
    found = [resampled(hits, truth, predicted(labels, right))["hits"] for right in (one, other)]
    assert found[0].mean() == pytest.approx(one.mean(), abs=1e-6)
    assert found[0].var(ddof=1) == pytest.approx(one.var(ddof=1), rel=0.2)
    apart = one.astype(float) - other
    assert (found[0] - found[1]).var(ddof=1) == pytest.approx(apart.var(ddof=1), rel=0.2)


def test_patients_are_resampled_with_all_their_images(hits: OwnMetrics) -> None:
    """There is one value per patient, with the variance over patients, whole patients drawn."""
    chance = np.random.default_rng(2)
    labels, patients = np.arange(600) % 2, tuple(f"p{image // 3}" for image in range(600))
    right = np.repeat(chance.random(200) < 0.7, 3)
    truth = Truth("test", labels, patients, ("no", "yes"))
    found = resampled(hits, truth, predicted(labels, right))
    over = Clusters.of(patients).variance(right.astype(float))
    assert len(found["hits"]) == 200
    assert found["hits"].var(ddof=1) / 200 == pytest.approx(over, rel=0.25)
    assert found["families"] == pytest.approx(np.full(200, 1 / 3))


def test_what_is_undefined_on_a_resample_has_no_values(hits: OwnMetrics) -> None:
    """Too many images, or a diverged training, have no values either."""
    labels = np.arange(100) % 2
    logs = predicted(labels, labels == 1)
    truth = Truth("val", labels, (), ("no", "yes"))
    assert set(resampled(hits, truth, logs)) == {"hits", "families"}
    many = np.arange(RESAMPLED_MOST + 1) % 2
    large = Truth("val", many, (), ("no", "yes"))
    assert resampled(hits, large, predicted(many, many == 1)) == {}
    assert resampled(hits, truth, np.full_like(logs, np.nan)) == {}


def test_every_resample_has_the_classes_of_the_split() -> None:
    """Also if a class has two images, which many resamples would lack."""
    truth = Truth("val", np.array([1, 1, *[0] * 30]), (), ("no", "yes"))
    drawn = list(truth.resamples(named=False))
    assert len(drawn) == 32
    assert all(resample.labels.sum() > 0 for resample, _ in drawn)
    again = list(replace(truth, split="test").resamples(named=False))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(drawn, again, strict=True))


@pytest.mark.parametrize(
    ("labels", "patients", "why"),
    [
        (np.repeat(np.arange(100), 2), (), "most resamples lack a class"),
        (np.arange(20), (), "a single image has class 0, 1"),
        (np.array([0, 1] * 10 + [2, 2]), tuple("ababcdcdefefghghikikll"), "single patient has"),
        (np.zeros(RESAMPLED_MOST + 1, int), (), "there are 2,001 images, and 2 to 2,000 can"),
    ],
    ids=["many rare classes", "single images", "a patient's class", "too many"],
)
def test_what_cannot_be_resampled_says_why(
    hits: OwnMetrics, labels: NDArray[np.int64], patients: tuple[str, ...], why: str
) -> None:
    """The reason is known before a metric is called, without a long search."""
    classes = int(labels.max()) + 1
    truth = Truth("val", labels, patients, tuple(str(k) for k in range(classes)))
    logs = np.log(np.full((len(labels), classes), 1 / classes)).astype(np.float32)
    found = hits.resampled(truth, logs, nothing)
    assert found.values == {}
    assert set(found.obstacles) == {"hits", "half", "families"}
    assert why in found.obstacles["hits"]


def test_a_slow_metric_is_given_up_and_the_others_are_not(tmp_path: Path) -> None:
    """Its time on all resamples is extrapolated from its first calls; the trainer stays alive."""
    labels = np.arange(100) % 2
    truth = Truth("val", labels, (), ("no", "yes"))
    sleeps = HITS.replace("    return len(set", "    time.sleep(0.2)\n    return len(set")
    own = hit_metrics(tmp_path, f"import time\n{sleeps}")
    signs: list[str] = []
    logs = predicted(labels, labels == 1)
    found = own.resampled(truth, logs, lambda: signs.append("alive"), seconds=12)
    assert set(found.values) == {"hits"}
    assert "100 calls would take 2" in found.obstacles["families"]
    assert "returned nan" in found.obstacles["half"]
    assert len(signs) >= 100


def test_resamples_are_drawn_once_for_all_trials(dices: Blobs) -> None:
    """They are cached with the data, for every trial, both moments and all metrics."""
    bench = dices.workbench()
    first = bench.prepared(dice_job()).truth("val")
    assert first is not None
    assert bench.prepared(replace(dice_job(), seed=1)).truth("val") is first
