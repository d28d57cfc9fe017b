"""The area under the ROC curve, its interval by DeLong, and what each image adds to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from tuner.answers.statistics.spread import CONFIDENCE, Interval

Array = NDArray[np.float64]
Truth = NDArray[np.bool_]


FEWEST = 2
"""Images of a class without which nothing is known of how an area scatters."""


@dataclass(frozen=True)
class Placements:
    """For each image the share of the other class that it is ranked right against."""

    area: float
    positives: Array
    negatives: Array


def placements(scores: Array, truth: Truth) -> Placements | None:
    """Return how each image is ranked against the other class; None where one class is missing."""
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return None
    among_all = rankdata(scores)
    above = among_all[truth] - rankdata(positive)
    below = len(positive) - (among_all[~truth] - rankdata(negative))
    share_above = above / len(negative)
    return Placements(float(share_above.mean()), share_above, below / len(positive))


def delong(scores: Array, truth: Truth, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the area with DeLong's interval, on the logit so that it stays within 0 and 1.

    None where a class has fewer than two images.
    """
    placed = placements(scores, truth)
    if placed is None or min(len(placed.positives), len(placed.negatives)) < FEWEST:
        return None
    area, variance = placed.area, _variance(placed.positives, placed.negatives)
    if area in (0.0, 1.0) or variance == 0.0:
        return _perfect(area, len(scores), confidence)
    z = float(ndtri(0.5 + confidence / 2))
    logit = np.log(area / (1 - area))
    half = z * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-(logit + side * half))) for side in (-1, 1))
    return Interval(area, float(low), float(high))


def roc(scores: Array, truth: Truth) -> tuple[Array, Array]:
    """Return false and true positive rates from the strictest threshold to the mildest."""
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
    scores: Array, other: Array, truth: Truth, confidence: float = CONFIDENCE
) -> tuple[Interval, float] | None:
    """Return the difference of two areas on the same images with its interval and p value."""
    one, two = placements(scores, truth), placements(other, truth)
    if one is None or two is None or min(len(one.positives), len(one.negatives)) < FEWEST:
        return None
    value = one.area - two.area
    error = np.sqrt(
        _variance(one.positives - two.positives, one.negatives - two.negatives),
    )
    if error == 0:
        return Interval(value, value, value), 1.0 if value == 0 else 0.0
    half = float(ndtri(0.5 + confidence / 2) * error)
    return Interval(value, value - half, value + half), float(2 * ndtr(-abs(value) / error))


def shares_of_area(scores: Array, truth: Truth) -> Array | None:
    """Return for each image a value whose mean over all images is the area.

    An image's value moves with how it is ranked against the other class, by as
    much as leaving it out would move the area, so that areas can be analysed
    image by image like accuracies.
    """
    placed = placements(scores, truth)
    if placed is None:
        return None
    images = len(truth)
    values = np.empty(images)
    for mine, own in ((truth, placed.positives), (~truth, placed.negatives)):
        values[mine] = placed.area + (own - placed.area) * images / len(own)
    return values


def _variance(positives: Array, negatives: Array) -> float:
    return sum(
        float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.0
        for part in (positives, negatives)
    )


def _perfect(area: float, images: int, confidence: float) -> Interval:
    """Return the limits of an area of 0 or 1, on which no spread is seen (as for a share)."""
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    off = z2 / (images + z2)
    return Interval(area, max(0.0, area - off), min(1.0, area + off))
