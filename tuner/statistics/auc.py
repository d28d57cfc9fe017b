"""The area under the ROC curve, its interval by DeLong, and what each image adds to it.

Images of one patient are correlated: their placements are summed by patient (Obuchowski, 1997),
including the covariance between a patient's images of both classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.clusters import Clusters
from tuner.statistics.distributions import students
from tuner.statistics.ranks import average_ranks
from tuner.statistics.special import ndtr, stdtr
from tuner.statistics.variance import CONFIDENCE, Interval

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


FEWEST = 2
"""Fewest images, or patients, of a class from which the variance of an area can be estimated."""


@dataclass(frozen=True)
class Placements:
    """For each image the share of the other class that it is ranked correctly against."""

    area: float
    positives: Array
    negatives: Array


def placements(scores: Array, truth: Mask) -> Placements | None:
    """Return each image's placement against the other class; None if one class is missing."""
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return None
    among_all = average_ranks(scores)
    above = among_all[truth] - average_ranks(positive)
    below = len(positive) - (among_all[~truth] - average_ranks(negative))
    share_above = above / len(negative)
    return Placements(float(share_above.mean()), share_above, below / len(positive))


def delong(
    scores: Array,
    truth: Mask,
    clusters: Clusters | None = None,
    confidence: float = CONFIDENCE,
) -> Interval | None:
    """Return the area with DeLong's interval, on the logit scale so that it stays within 0 and 1.

    None if a class has fewer than two images or patients.
    """
    placed = placements(scores, truth)
    if placed is None or _fewest(truth, clusters) < FEWEST:
        return None
    area = placed.area
    variance, freedom = _variance(placed.positives, placed.negatives, truth, clusters)
    if area in (0.0, 1.0) or variance == 0.0:
        images = len(scores) if clusters is None else clusters.effective
        return _perfect(area, images, confidence)
    z = students(0.5 + confidence / 2, freedom)
    logit = np.log(area / (1 - area))
    half = z * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-(logit + side * half))) for side in (-1, 1))
    return Interval(area, float(low), float(high))


def roc(scores: Array, truth: Mask) -> tuple[Array, Array]:
    """Return false and true positive rates from the highest threshold to the lowest."""
    order = np.argsort(-scores, kind="stable")
    # Equal scores cross a threshold together.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[ends]
    false = ends + 1 - hits
    return (
        np.concatenate([[0.0], false / max(1, int(false[-1]))]),
        np.concatenate([[0.0], hits / max(1, int(hits[-1]))]),
    )


def delong_difference(
    scores: Array,
    other: Array,
    truth: Mask,
    clusters: Clusters | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[Interval, float] | None:
    """Return the difference of two areas on the same images with its interval and p value."""
    one, two = placements(scores, truth), placements(other, truth)
    if one is None or two is None or _fewest(truth, clusters) < FEWEST:
        return None
    value = one.area - two.area
    variance, freedom = _variance(
        one.positives - two.positives, one.negatives - two.negatives, truth, clusters
    )
    error = np.sqrt(variance)
    if error == 0:
        return Interval(value, value, value), 1.0 if value == 0 else 0.0
    half = float(students(0.5 + confidence / 2, freedom) * error)
    far = -abs(value) / error
    p_value = float(2 * (stdtr(freedom, far) if freedom else ndtr(far)))
    return Interval(value, value - half, value + half), p_value


def shares_of_area(scores: Array, truth: Mask) -> Array | None:
    """Return for each image a value whose mean over all images is the area.

    The values are linearised by the area's influence function: an image's value reflects its
    ranking against the other class. So areas can be analysed image by image like accuracies.
    """
    placed = placements(scores, truth)
    if placed is None:
        return None
    images = len(truth)
    values = np.empty(images)
    for mine, own in ((truth, placed.positives), (~truth, placed.negatives)):
        values[mine] = placed.area + (own - placed.area) * images / len(own)
    return values


def _fewest(truth: Mask, clusters: Clusters | None) -> int:
    """Return the number of images, or patients, of the rarer class."""
    if clusters is None:
        return int(min(truth.sum(), (~truth).sum()))
    return min(clusters.take(truth).patients, clusters.take(~truth).patients)


def _variance(
    positives: Array, negatives: Array, truth: Mask, clusters: Clusters | None
) -> tuple[float, float]:
    """Return the variance of an area, and its degrees of freedom; 0 means known."""
    sides = (truth, positives), (~truth, negatives)
    if clusters is None or clusters.single:
        parts = (float(v.var(ddof=1)) / len(v) if len(v) > 1 else 0.0 for _, v in sides)
        return sum(parts), 0.0
    moved = np.zeros((2, clusters.patients))
    total = squares = 0.0
    for row, (mine, values) in zip(moved, sides, strict=True):
        of_class = clusters.take(mine)
        by_patient = of_class.linearise(values)
        row[np.unique(clusters.of_image[mine])] = (by_patient - values.mean()) / len(by_patient)
        part = float(by_patient.var(ddof=1)) / len(by_patient)
        total += part
        squares += part**2 / of_class.freedom if of_class.freedom else 0.0
    freedom = max(1.0, total**2 / squares) if squares else 0.0
    count = clusters.patients
    together = 2 * float((moved[0] * moved[1]).sum()) * count / (count - 1)
    return max(0.0, total + together), freedom


def _perfect(area: float, images: float, confidence: float) -> Interval:
    """Return the limits of an area of 0 or 1, whose estimated variance is 0 (as for a share)."""
    z2 = students(0.5 + confidence / 2, 0.0) ** 2
    off = z2 / (images + z2)
    return Interval(area, max(0.0, area - off), min(1.0, area + off))
