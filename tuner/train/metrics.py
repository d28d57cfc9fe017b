"""Figures of a split from its log-probabilities, in float64 and in nats.

They are computed from the very float32 log-probabilities that are stored as
predictions, so a stored prediction gives its stored figure again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import SplitName, most_probable

LogProbabilities = NDArray[np.float32]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """How well log-probabilities fit the labels of one split; the names are those of records."""

    loss: float
    """The mean negative log-likelihood of the true class, in nats."""
    acc: float
    auc: float
    """NaN where a class is missing or a prediction is not a number."""
    balanced_acc: float
    sensitivity: float
    """Share of class 1 that is found; of more than two classes the mean, one against the rest."""
    specificity: float
    """Share of class 0 that is left alone; of more than two classes the mean as above."""

    def named(self, split: SplitName) -> dict[str, float]:
        """Return them by the names that records have for a split: val_loss, val_acc, …"""
        return {f"{split}_{name}": value for name, value in vars(self).items()}


def score(predictions: LogProbabilities, labels: Classes) -> Scores:
    """Return all figures of a split."""
    counted = _Counted(predictions, labels)
    sensitivity, specificity = counted.found_and_left_alone()
    return Scores(
        loss=mean_nll(predictions, labels),
        acc=float(counted.hits.sum() / len(labels)),
        auc=area_under_curve(predictions, labels),
        balanced_acc=counted.balanced_accuracy(),
        sensitivity=sensitivity,
        specificity=specificity,
    )


class _Counted:
    """How many images there are of each class, are taken for it, and rightly so.

    Counted once for all figures: scoring is most of what a GPU waits for between epochs.
    """

    def __init__(self, predictions: LogProbabilities, labels: Classes) -> None:
        classes = predictions.shape[1]
        valid = ~np.isnan(predictions).any(axis=1)
        taken = most_probable(predictions)
        self.images = np.bincount(labels, minlength=classes)
        self.valid = np.bincount(labels[valid], minlength=classes)
        self.taken = np.bincount(taken[valid], minlength=classes)
        self.hits = np.bincount(labels[valid & (taken == labels)], minlength=classes)

    def balanced_accuracy(self) -> float:
        """Return the mean over the classes that occur of the fraction that is right."""
        there = self.images > 0
        return float((self.hits[there] / self.images[there]).mean())

    def found_and_left_alone(self) -> tuple[float, float]:
        """Return sensitivity and specificity; NaN where a class has no image."""
        if not self.images.all():
            return float("nan"), float("nan")
        found = self.hits / self.images
        # Of the images of other classes, those that have a prediction and are not taken for this.
        left = (self.valid.sum() - self.valid) - (self.taken - self.hits)
        alone = left / (self.images.sum() - self.images)
        if len(found) == 2:
            return float(found[1]), float(alone[1])
        return float(found.mean()), float(alone.mean())


def balanced_accuracy(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the mean over the classes that occur of the fraction that is right."""
    return _Counted(predictions, labels).balanced_accuracy()


def found_and_left_alone(predictions: LogProbabilities, labels: Classes) -> tuple[float, float]:
    """Return sensitivity and specificity; NaN where a class has no image."""
    return _Counted(predictions, labels).found_and_left_alone()


def mean_nll(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the mean negative log-likelihood of the true class."""
    return -float(predictions[np.arange(len(labels)), labels].mean(dtype=np.float64))


def is_right(predictions: LogProbabilities, labels: Classes) -> NDArray[np.bool_]:
    """Say for each image whether its most probable class is the true one.

    Ties go to the higher class (for two classes: p >= 0.5 is class 1), and an
    image whose prediction is not a number is wrong.
    """
    valid = ~np.isnan(predictions).any(axis=1)
    right: NDArray[np.bool_] = (most_probable(predictions) == labels) & valid
    return right


def area_under_curve(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the area under the ROC curve; with more than two classes the one-vs-rest mean."""
    classes = predictions.shape[1]
    if len(np.unique(labels)) < classes or np.isnan(predictions).any():
        return float("nan")
    if classes == 2:
        # The difference is the log-odds: log p1 alone saturates to 0 for sure cases.
        return _area(predictions[:, 1].astype(np.float64) - predictions[:, 0], labels == 1)
    return float(np.mean([_area(predictions[:, k], labels == k) for k in range(classes)]))


def _area(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the fraction of (positive, negative) pairs in right order, ties counting half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2  # ranks from 1, shared by tied scores
    positives = int(positive.sum())
    negatives = len(positive) - positives
    rank_sum = float(mean_rank[place][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
