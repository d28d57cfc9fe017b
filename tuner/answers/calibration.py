"""Calibration: how well a trial's stated probabilities agree with how often it is right."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tuner.answers import words
from tuner.answers.table import Table
from tuner.records import SHARE
from tuner.results import Predicted, right
from tuner.statistics import Interval, reliability, share_of

__all__ = ["Calibration", "calibration"]


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose predictions are about equally confident."""

    images: int
    confidence: float
    """The mean stated probability of the predicted class."""
    accuracy: Interval
    """The share of correct predictions."""

    JSON: ClassVar = ("images", "confidence", "accuracy")

    @property
    def said(self) -> str:
        """What the bin shows, in words."""
        return (
            f"mean confidence {words.percent(self.confidence)}, accuracy "
            f"{words.with_ends(SHARE, self.accuracy)}, {words.count(self.images, 'image')}"
        )


@dataclass(frozen=True)
class Calibration:
    """A trial's calibration on one split."""

    trial: int
    bins: tuple[CalibrationBin, ...]
    error: float
    """The expected calibration error (ECE)."""
    confidence: float
    """The mean over all images."""
    accuracy: Interval
    classes: int

    JSON: ClassVar = ("bins", "ece=error", "confidence", "accuracy", "verdict")

    @property
    def verdict(self) -> str:
        """Say whether the trial is over- or underconfident, or neither significantly."""
        said = (
            f"mean confidence {words.percent(self.confidence)}, accuracy "
            f"{words.with_ends(SHARE, self.accuracy)}"
        )
        if self.confidence > self.accuracy.high:
            verdict = "is overconfident"
        elif self.confidence < self.accuracy.low:
            verdict = "is underconfident"
        else:
            verdict = "is well calibrated"
        return f"Trial {self.trial} {verdict}: {said} (calibration error {self.error:.3f})"

    @property
    def table(self) -> Table:
        """Each range of confidence with its accuracy."""
        rows = tuple(
            (
                words.percent(one.confidence),
                words.with_ends(SHARE, one.accuracy),
                f"{one.images:,}",
            )
            for one in self.bins
        )
        return Table(("confidence", "right", "images"), rows)


def calibration(predicted: Predicted) -> Calibration | None:
    """Return how a trial's confidence and accuracy agree; None if a prediction is NaN."""
    logs = predicted.log_probabilities.astype(np.float64)
    if np.isnan(logs).any():
        return None
    found = reliability(np.exp(logs), predicted.labels)
    hits, clusters = right(predicted.log_probabilities, predicted.labels) > 0, predicted.clusters
    return Calibration(
        trial=predicted.trial,
        bins=tuple(
            CalibrationBin(
                one.images,
                one.confidence,
                share_of(
                    hits[one.members], None if clusters is None else clusters.take(one.members)
                ),
            )
            for one in found.bins
        ),
        error=found.error,
        confidence=float(np.exp(logs).max(axis=1).mean()),
        accuracy=share_of(hits, clusters),
        classes=logs.shape[1],
    )
