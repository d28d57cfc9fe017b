"""Whether stated probabilities come true: bins, expected calibration error, Brier score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Predictions of about the same confidence: how sure they were, and how often right."""

    images: int
    confidence: float
    accuracy: float
    members: NDArray[np.bool_]
    """Which images these are."""


@dataclass(frozen=True)
class Reliability:
    """How well confidence and accuracy agree over all images."""

    bins: tuple[Bin, ...]
    error: float
    """The expected calibration error: their distance, weighted by images."""
    brier: float
    """The mean squared distance of the probabilities from the truth, summed over classes."""


def reliability(probabilities: Array, labels: NDArray[np.int64], bins: int = 10) -> Reliability:
    """Sort images by the confidence of their prediction into equal parts of [0, 1]."""
    confidence = probabilities.max(axis=1)
    right = most_probable(probabilities) == labels
    # A confidence on a border belongs to the bucket below it; only 0 itself has none below.
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
