"""Calibration of predicted probabilities: bins, expected calibration error, Brier score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: their mean confidence and accuracy."""

    images: int
    confidence: float
    accuracy: float
    members: NDArray[np.bool_]
    """A mask of the images in the bin."""


@dataclass(frozen=True)
class Reliability:
    """How well confidence and accuracy agree over all images."""

    bins: tuple[Bin, ...]
    error: float
    """The expected calibration error: the mean distance of the two, weighted by images."""
    brier: float
    """The mean squared distance of the probabilities from the truth, summed over classes."""


def reliability(probabilities: Array, labels: NDArray[np.int64], bins: int = 10) -> Reliability:
    """Bin images by the confidence of their prediction, in equal parts of [0, 1]."""
    confidence = probabilities.max(axis=1)
    right = most_probable(probabilities) == labels
    # A confidence on a border belongs to the bin below it; only 0 itself has none below.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = [
        Bin(int(mine.sum()), float(confidence[mine].mean()), float(right[mine].mean()), mine)
        for mine in (place == at for at in range(bins))
        if mine.any()
    ]
    off = sum(bucket.images * abs(bucket.confidence - bucket.accuracy) for bucket in found) / len(
        labels
    )
    truth = np.eye(probabilities.shape[1])[labels]
    brier = float(((probabilities - truth) ** 2).sum(axis=1).mean())
    return Reliability(tuple(found), float(off), brier)
