"""Figures of a split from its log-probabilities, in float64 and in nats.

They are computed from the very float32 log-probabilities that are stored as
predictions, so a stored prediction gives its stored figure again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable

LogProbabilities = NDArray[np.float32]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """How well log-probabilities fit the labels of one split."""

    nll: float
    accuracy: float
    auc: float
    """NaN where a class is missing or a prediction is not a number."""
    balanced_accuracy: float
    sensitivity: float
    """Share of class 1 that is found; of more than two classes the mean, one against the rest."""
    specificity: float
    """Share of class 0 that is left alone; of more than two classes the mean as above."""


def score(predictions: LogProbabilities, labels: Classes) -> Scores:
    """Return all figures of a split."""
    right = is_right(predictions, labels)
    sensitivity, specificity = found_and_left_alone(predictions, labels)
    return Scores(
        nll=mean_nll(predictions, labels),
        accuracy=float(right.mean()),
        auc=area_under_curve(predictions, labels),
        balanced_accuracy=balanced_accuracy(right, labels),
        sensitivity=sensitivity,
        specificity=specificity,
    )


def mean_nll(predictions: LogProbabilities, labels: Classes) -> float:
    """Return the mean negative log-likelihood of the true class."""
    return -float(predictions[np.arange(len(labels)), labels].mean(dtype=np.float64))


def found_and_left_alone(predictions: LogProbabilities, labels: Classes) -> tuple[float, float]:
    """Return sensitivity and specificity; NaN where a class has no image."""
    classes = predictions.shape[1]
    if len(np.unique(labels)) < classes:
        return float("nan"), float("nan")
    right, taken = is_right(predictions, labels), most_probable(predictions)
    valid = ~np.isnan(predictions).any(axis=1)
    found = [right[labels == k].mean() for k in range(classes)]
    alone = [((taken != k) & valid)[labels != k].mean() for k in range(classes)]
    if classes == 2:
        return float(found[1]), float(alone[1])
    return float(np.mean(found)), float(np.mean(alone))


def is_right(predictions: LogProbabilities, labels: Classes) -> NDArray[np.bool_]:
    """Say for each image whether its most probable class is the true one.

    Ties go to the higher class (for two classes: p >= 0.5 is class 1), and an
    image whose prediction is not a number is wrong.
    """
    valid = ~np.isnan(predictions).any(axis=1)
    right: NDArray[np.bool_] = (most_probable(predictions) == labels) & valid
    return right


def balanced_accuracy(right: NDArray[np.bool_], labels: Classes) -> float:
    """Return the mean over the classes that occur of the fraction that is right."""
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


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
