"""A run trains epoch by epoch, keeps its best weights, and uses test data only at its end."""

import math
import sys
from itertools import islice

import numpy as np
import pytest
from scipy.special import logsumexp

from tests.train.blobs import Blobs, blob_job, nothing, untimed
from tuner.errors import UserError
from tuner.records import METRICS, Predictions, Result
from tuner.train.metrics import score
from tuner.train.objective import find
from tuner.train.run import Run
from tuner.train.state import fingerprint

NOISY = {"contrast": 3.0}
"""Hardly visible blobs: the network overfits, and the best epoch is an early one."""


def seen_test_images(blobs: Blobs) -> int:
    """Return how many test images the blobs' models have processed in this process."""
    seen = sys.modules[f"{find('blobs', [blobs.folder]).module}.models"].SEEN
    return int(seen["test"])


def overfitted(blobs: Blobs, metric: str = "val_loss") -> Run:
    """Return a run at its end whose best epoch is not its last."""
    job = blob_job(metric=metric, data=NOISY, epochs=15, hidden=64, lr=0.02)
    run = blobs.workbench().begin(job)
    list(run.epochs(nothing))
    return run


def predictions(result: Result, split: str, at: str) -> Predictions:
    """Return the predictions of one split at one moment."""
    return next(p for p in result.predictions if (p.split, p.at) == (split, at))


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_blobs_are_learnt(blobs: Blobs, loss: str) -> None:
    """Both losses learn separable data, and the NLL falls."""
    run = blobs.workbench().begin(blob_job(loss=loss, epochs=15))
    curve = list(run.epochs(nothing))
    assert [epoch.epoch for epoch in curve] == list(range(1, 16))
    assert curve[-1].val_acc > 0.9
    assert curve[-1].val_auc > 0.95
    assert curve[-1].val_loss < curve[0].val_loss
    assert curve[-1].train_loss == pytest.approx(curve[-1].train_nll, rel=1e-5)


def test_the_rate_of_each_epoch_is_the_schedule_s(blobs: Blobs) -> None:
    """The record has the rate that was used, and a rate near 0 changes nothing."""
    job = blob_job(scheduler="step", step_size=2, decay=1e-12, epochs=4, batch_norm=False)
    run = blobs.workbench().begin(job)
    prints = []
    rates = []
    for epoch in run.epochs(nothing):
        rates.append(epoch.lr)
        prints.append(fingerprint(run.state().weights))
    assert rates == pytest.approx([1e-2, 1e-2, 1e-14, 1e-14])
    assert prints[0] != prints[1] == prints[2] == prints[3]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_the_best_epoch_is_the_metric_s(blobs: Blobs, metric: str) -> None:
    """The best is the first epoch with the metric's best figure, in the metric's direction."""
    run = overfitted(blobs, metric)
    figures = [epoch.figure(metric) for epoch in run.state().curve]
    wanted = min(figures) if METRICS[metric] == "minimize" else max(figures)
    assert run.result().best.epoch == figures.index(wanted) + 1


def test_results_come_from_the_best_and_the_last_weights(blobs: Blobs) -> None:
    """Predictions at best and last give the recorded figures of those epochs again."""
    run = overfitted(blobs)
    curve, result = run.state().curve, run.result()
    assert result.best.epoch < result.last.epoch == len(curve)
    true = blobs.workbench().dataset(blob_job(data=NOISY)).labels
    for figures, at in ((result.best, "best"), (result.last, "last")):
        epoch = curve[figures.epoch - 1]
        assert (figures.train_loss, figures.train_nll) == (epoch.train_loss, epoch.train_nll)
        assert figures.train_acc == epoch.train_acc
        val = score(predictions(result, "val", at).log_probabilities, true[0].labels)
        assert (val.loss, val.acc) == (epoch.val_loss, epoch.val_acc)
        assert (figures.val_loss, figures.val_acc) == (epoch.val_loss, epoch.val_acc)
        test = score(predictions(result, "test", at).log_probabilities, true[1].labels)
        assert (figures.test_loss, figures.test_acc) == (test.loss, test.acc)
        assert figures.gap == epoch.val_acc - test.acc


def test_predictions_are_log_probabilities_of_every_image(blobs: Blobs) -> None:
    """They have one float32 row per image, with probabilities adding up to 1."""
    result = overfitted(blobs).result()
    for prediction in result.predictions:
        rows = prediction.log_probabilities
        assert rows.dtype == np.float32
        assert rows.shape == ({"val": 40, "test": 30}[prediction.split], 2)
        np.testing.assert_allclose(logsumexp(rows, axis=1), 0, atol=1e-5)
    assert {(p.split, p.at) for p in result.predictions} == {
        (split, at) for split in ("val", "test") for at in ("best", "last")
    }


def test_the_last_weights_stay_in_place(blobs: Blobs) -> None:
    """Evaluating the best weights leaves the last ones unchanged."""
    run = overfitted(blobs)
    before = fingerprint(run.state().weights)
    assert before != fingerprint(run.state().best_weights)
    run.result()
    assert fingerprint(run.state().weights) == before


def test_test_images_are_seen_once_for_each_moment_and_only_at_the_end(blobs: Blobs) -> None:
    """Test images are processed only for the result, each at best and at last."""
    run = overfitted(blobs)
    assert seen_test_images(blobs) == 0
    run.result()
    assert seen_test_images(blobs) == 2 * 30


def test_a_restored_run_has_the_same_result(blobs: Blobs) -> None:
    """A state taken at the end restores best and last, with their predictions."""
    run = overfitted(blobs)
    again = blobs.workbench().begin(blob_job(data=NOISY, epochs=15, hidden=64, lr=0.02))
    again.restore(run.state())
    assert not list(again.epochs(nothing))
    ours, theirs = run.result(), again.result()
    assert (ours.best, ours.last) == (theirs.best, theirs.last)
    for one, other in zip(ours.predictions, theirs.predictions, strict=True):
        assert (one.split, one.at) == (other.split, other.at)
        assert one.log_probabilities.tobytes() == other.log_probabilities.tobytes()


def test_batch_norm_follows_training_batches_and_no_others(blobs: Blobs) -> None:
    """Every epoch trains in training mode, and evaluations do not change the statistics."""
    run = blobs.workbench().begin(blob_job(batch_size=32))
    list(run.epochs(nothing))
    run.result()
    weights = run.state().weights
    (batches,) = [weights[name] for name in weights if name.endswith("num_batches_tracked")]
    assert batches.item() == 3 * 3


def test_patience_ends_a_run_that_no_longer_improves(blobs: Blobs) -> None:
    """A run ends exactly `patience` epochs after its best one."""
    job = blob_job(data=NOISY, epochs=60, hidden=64, lr=0.02, patience=4)
    run = blobs.workbench().begin(job)
    curve = list(run.epochs(nothing))
    assert len(curve) < 60
    assert len(curve) - run.result().best.epoch == 4
    patient = blobs.workbench().begin(blob_job(data=NOISY, epochs=60, hidden=64, lr=0.02))
    assert [untimed(epoch) for epoch in curve] == [
        untimed(epoch) for epoch in islice(patient.epochs(nothing), len(curve))
    ]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_run_ends_where_figures_stop_being_numbers(blobs: Blobs, metric: str) -> None:
    """The NaN epoch is returned as it is, none follows, and it is not the best one."""
    job = blob_job(metric=metric, optimizer="sgd", lr=1e30, epochs=9, batch_norm=False)
    run = blobs.workbench().begin(job)
    curve = list(run.epochs(nothing))
    assert len(curve) == 1
    assert run.diverged
    assert not math.isfinite(curve[0].train_loss)
    assert not list(run.epochs(nothing))
    assert run.result().last.epoch == 1


def test_an_undefined_area_is_no_divergence(blobs: Blobs) -> None:
    """If validation lacks a class there is no area, and training continues to its end."""
    run = blobs.workbench().begin(blob_job(data={"classes": 3, "val_images": 2}))
    curve = list(run.epochs(nothing))
    assert [math.isnan(epoch.val_auc) for epoch in curve] == [True] * 3
    assert all(math.isfinite(epoch.val_loss) for epoch in curve)
    assert not run.diverged
    assert run.result().best.epoch == min(curve, key=lambda epoch: epoch.val_loss).epoch


def test_alive_is_called_at_every_batch(blobs: Blobs) -> None:
    """97 images in batches of 30 are four batches, with validation at least one more."""
    calls: list[int] = []
    run = blobs.workbench().begin(blob_job(batch_size=30, batch_norm=False))
    next(run.epochs(lambda: calls.append(1)))
    assert len(calls) >= 5
    calls.clear()
    run.result(lambda: calls.append(1))
    assert len(calls) >= 2


def test_stopping_from_alive_leaves_the_finished_epochs(blobs: Blobs) -> None:
    """An exception from `alive` ends the epoch, which then does not count."""
    run = blobs.workbench().begin(blob_job())

    class StopNow(Exception):  # noqa: N818 - an order, not an error
        """Raised by a supervisor's order."""

    def stop() -> None:
        if run.state().curve:
            raise StopNow

    epochs = run.epochs(stop)
    next(epochs)
    with pytest.raises(StopNow):
        next(epochs)
    assert len(run.state().curve) == 1


@pytest.mark.parametrize("batch_size", [32, 48, 96])
def test_a_last_batch_of_one_is_trained_with_batch_norm(blobs: Blobs, batch_size: int) -> None:
    """97 images leave a rest of one, which joins the batch before it."""
    run = blobs.workbench().begin(blob_job(batch_size=batch_size))
    assert math.isfinite(next(run.epochs(nothing)).train_loss)


def test_batches_of_one_need_a_network_without_batch_norm(blobs: Blobs) -> None:
    """With batch norm the error says what to set; without it, such batches are trained."""
    with pytest.raises(UserError, match="set batch_size to 2 or more"):
        blobs.workbench().begin(blob_job(batch_size=1))
    run = blobs.workbench().begin(blob_job(batch_size=1, batch_norm=False))
    assert math.isfinite(next(run.epochs(nothing)).train_loss)


def test_float_images_are_trained_as_uint8_ones(blobs: Blobs) -> None:
    """The same pixels as float32 give the same epochs, except for rounding of the moments."""
    curves = [
        list(blobs.workbench().begin(blob_job(data={"floats": floats})).epochs(nothing))
        for floats in (False, True)
    ]
    assert curves[1][-1].val_loss == pytest.approx(curves[0][-1].val_loss, abs=0.05)
