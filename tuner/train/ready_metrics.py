"""The ready-made metrics that a study may name: functions of labels and predicted probabilities.

`tuner.results.measures` computes F1 and Brier as one value per image, for the statistics.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def f1(labels: Labels, probabilities: Probabilities) -> float:
    """Return F1 of class 1, 2 TP / (2 TP + FP + FN); with more classes, the mean (macro F1).

    A class that neither occurs nor is predicted has an F1 of 0.
    """
    predicted = most_probable(probabilities)
    scores = []
    for k in _scored(probabilities):
        hits = 2 * np.count_nonzero((predicted == k) & (labels == k))
        weight = np.count_nonzero(predicted == k) + np.count_nonzero(labels == k)
        scores.append(hits / weight if weight else 0.0)
    return float(np.mean(scores))


def sensitivity_at_95_specificity(labels: Labels, probabilities: Probabilities) -> float:
    """Return the sensitivity for class 1 at the lowest threshold with 95% specificity or more.

    With more than two classes, the one-vs-rest mean; NaN if a class is missing.
    """
    found = []
    for k in _scored(probabilities):
        positive = labels == k
        if not positive.any() or positive.all():
            return float("nan")
        with np.errstate(divide="ignore"):
            scores = np.log(probabilities[:, k])
            if probabilities.shape[1] == 2:
                # Log-odds: near 1 a probability is rounded, but its complement is not.
                scores = scores - np.log(probabilities[:, 0])
        negatives = np.sort(scores[~positive])[::-1]
        # At most this many negatives may be above the threshold; rounding must not lose one.
        allowed = int(0.05 * len(negatives) + 1e-9)
        found.append(np.count_nonzero(scores[positive] > negatives[allowed]) / positive.sum())
    return float(np.mean(found))


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean over images of the squared error, summed over the classes: 0 to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def _scored(probabilities: Probabilities) -> range:
    """Return the scored classes: class 1 of two, else all."""
    classes = probabilities.shape[1]
    return range(1, 2) if classes == 2 else range(classes)


FUNCTIONS: Mapping[str, Callable[[Labels, Probabilities], float]] = {
    "f1": f1,
    "sensitivity_at_95_specificity": sensitivity_at_95_specificity,
    "brier": brier,
}
"""The function of each metric in `tuner.records.READY`."""
BY_IMAGE = frozenset({"f1", "brier"})
"""Those with a value for each image (`tuner.results.measures`)."""
