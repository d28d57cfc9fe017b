"""Predictions agree with the epochs that they belong to; another network's do not."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.train.blobs import Blobs, blob_job, nothing, write_blobs
from tuner.records import METRICS
from tuner.train.metrics import mean_nll
from tuner.work.recomputed import TOLERANCE, disagreement


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """The blobs objective in its own folder."""
    return write_blobs(tmp_path)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"metric": metric, "epochs": 6} for metric in METRICS),
        {"precision": "auto", "epochs": 6},
        {"class_weights": "balanced", "epochs": 6},
        {"label_smoothing": 0.3, "epochs": 6},
        {"lr": 1e3, "optimizer": "sgd", "epochs": 6},
    ],
    ids=str,
)
def test_a_training_agrees_with_itself(blobs: Blobs, parameters: dict[str, object]) -> None:
    """On the CPU the loss of the best and of the last epoch is reproduced exactly."""
    bench, job = blobs.workbench(), blob_job(**parameters)  # type: ignore[arg-type]
    run = bench.begin(job)
    curve = {epoch.epoch: epoch for epoch in run.epochs(nothing)}
    result, data = run.result(), bench.dataset(job)
    assert disagreement(data, result, curve) is None
    labels = next(one.labels for one in data.labels if one.split == "val")
    losses = {
        one.at: mean_nll(one.log_probabilities, labels)
        for one in result.predictions
        if one.split == "val"
    }
    assert {"best", "last"} == {*losses}
    np.testing.assert_array_equal(losses["best"], curve[result.best.epoch].val_loss)
    np.testing.assert_array_equal(losses["last"], curve[result.last.epoch].val_loss)


def test_another_networks_predictions_disagree(blobs: Blobs) -> None:
    """A difference beyond rounding is reported with its epoch; rounding and NaN losses are not."""
    bench, job = blobs.workbench(), blob_job(epochs=6)
    run = bench.begin(job)
    curve = {epoch.epoch: epoch for epoch in run.epochs(nothing)}
    result, data = run.result(), bench.dataset(job)
    for moment in (result.best, result.last):
        epoch = curve[moment.epoch]

        def told(loss: float, epoch: int = moment.epoch) -> str | None:
            altered = replace(curve[epoch], val_loss=loss)
            return disagreement(data, result, {**curve, epoch: altered})

        assert told(epoch.val_loss + TOLERANCE / 2) is None
        assert told(math.nan) is None
        assert told(math.inf) is None
        why = told(epoch.val_loss + 10 * TOLERANCE)
        assert why is not None
        assert f"val_loss of epoch {moment.epoch}" in why


def test_predictions_that_are_no_numbers_disagree_with_a_loss_that_is(blobs: Blobs) -> None:
    """NaN predictions do not agree with a finite loss."""
    bench, job = blobs.workbench(), blob_job(epochs=2)
    run = bench.begin(job)
    curve = {epoch.epoch: epoch for epoch in run.epochs(nothing)}
    result, data = run.result(), bench.dataset(job)
    lost = tuple(
        replace(one, log_probabilities=np.full_like(one.log_probabilities, np.nan))
        for one in result.predictions
    )
    assert disagreement(data, replace(result, predictions=lost), curve) is not None
