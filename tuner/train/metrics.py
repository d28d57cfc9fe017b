"""Figures of a split from its log-probabilities, in float64 and in nats.

They are computed from the same float32 log-probabilities that are stored as
predictions, so a stored prediction reproduces its stored figure.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import SplitName, most_probable

LogProbabilities = NDArray[np.float32]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """The figures of one split; the names are those of records."""

    loss: float
    """The mean negative log-likelihood of the true class, in nats."""
    acc: float
    auc: float
    """NaN if a class is missing or a prediction is not finite."""
    balanced_acc: float
    sensitivity: float
    """Recall of class 1; with more than two classes the one-vs-rest mean."""
    specificity: float
    """Recall of class 0; with more than two classes the one-vs-rest mean of specificities."""

    def named(self, split: SplitName) -> dict[str, float]:
        """Return the figures by a split's names in records: val_loss, val_acc, …"""
        return {f"{split}_{name}": value for name, value in vars(self).items()}


def score(predictions: LogProbabilities, labels: Classes) -> Scores:
    """Return all figures of a split."""
    counted = _Counted(predictions, labels)
    sensitivity, specificity = counted.sensitivity_and_specificity()
    return Scores(
        loss=mean_nll(predictions, labels),
        acc=float(counted.hits.sum() / len(labels)),
        auc=area_under_curve(predictions, labels),
        balanced_acc=counted.balanced_accuracy(),
        sensitivity=sensitivity,
        specificity=specificity,
    )


class _Counted:
    """Counts per class: images, predictions, and correct predictions.

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

    def sensitivity_and_specificity(self) -> tuple[float, float]:
        """Return sensitivity and specificity; NaN where a class has no image."""
        if not self.images.all():
            return float("nan"), float("nan")
        found = self.hits / self.images
        # True negatives: images of other classes with a valid prediction other than this class.
        left = (self.valid.sum() - self.valid) - (self.taken - self.hits)
        alone = left / (self.images.sum() - self.images)
        if len(found) == 2:
            return float(found[1]), float(alone[1])
        return float(found.mean()), float(alone.mean())


def balanced_accuracy(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the mean over the classes that occur of the fraction that is right."""
    return _Counted(predictions, labels).balanced_accuracy()


def sensitivity_and_specificity(
    predictions: LogProbabilities, labels: Classes
) -> tuple[float, float]:
    """Return sensitivity and specificity; NaN where a class has no image."""
    return _Counted(predictions, labels).sensitivity_and_specificity()


def mean_nll(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the mean negative log-likelihood of the true class."""
    return -float(predictions[np.arange(len(labels)), labels].mean(dtype=np.float64))


def is_right(predictions: LogProbabilities, labels: Classes) -> NDArray[np.bool_]:
    """Return for each image whether its most probable class is the true one.

    Ties go to the higher class (for two classes: p >= 0.5 is class 1), and an
    image with a NaN prediction is wrong.
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
        # The difference is the log-odds: log p1 alone saturates to 0 for confident predictions.
        return _area(predictions[:, 1].astype(np.float64) - predictions[:, 0], labels == 1)
    return float(np.mean([_area(predictions[:, k], labels == k) for k in range(classes)]))


def _area(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the fraction of (positive, negative) pairs in the right order, ties counting half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2  # ranks from 1, shared by tied scores
    positives = int(positive.sum())
    negatives = len(positive) - positives
    rank_sum = float(mean_rank[place][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
