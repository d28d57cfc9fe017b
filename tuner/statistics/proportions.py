"""Shares of images: their intervals, their differences, and two classifiers on the same images.

If patients are named, a share has Wilson's interval with the effective number of images (N over
the design effect, estimated from the variance between patients) and Student's t in place of the
normal distribution (Korn and Graubard, 1998); two classifiers are compared by patients.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.clusters import Clusters
from tuner.statistics.distributions import heads, heads_at_most, students
from tuner.statistics.variance import CONFIDENCE, Interval, in_agreement

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Effective:
    """The effective number of independent images for a share of clustered images."""

    images: float
    freedom: float = 0.0
    """Degrees of freedom of the variance over patients; 0 if images are independent."""


def effective(hits: NDArray[np.float64] | Right, clusters: Clusters | None) -> Effective:
    """Return the effective number of images, given which are right and their patients.

    It is never above the number of images; if all are right, or all wrong, images of a patient
    are taken as perfectly correlated.
    """
    values = np.asarray(hits, np.float64)
    if clusters is None or clusters.single:
        return Effective(len(values))
    share = float(values.mean())
    variance = clusters.variance(values)
    if share in (0.0, 1.0) or clusters.patients == 1:
        return Effective(clusters.effective, clusters.freedom)
    worth = share * (1 - share) / variance if variance > 0 else math.inf
    return Effective(min(worth, len(values)), clusters.freedom)


def share_of(hits: Right, clusters: Clusters | None, confidence: float = CONFIDENCE) -> Interval:
    """Return the share of correct images, with its interval (over patients if named)."""
    worth = effective(hits, clusters)
    if not worth.freedom:
        return wilson(int(hits.sum()), len(hits), confidence)
    return wilson_of(float(hits.mean()), worth, confidence)


def wilson_of(share: float, worth: Effective, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with Wilson's interval for the effective number of images."""
    return wilson(share * worth.images, worth.images, confidence, worth.freedom)


def wilson(
    right: float, images: float, confidence: float = CONFIDENCE, freedom: float = 0.0
) -> Interval:
    """Return a share with Wilson's interval, which is valid near 0 and 1 and for few images."""
    share = right / images
    z2 = students(0.5 + confidence / 2, freedom) ** 2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * share * (1 - share) / images + (z2 / images) ** 2 / 4) / (1 + z2 / images)
    # At 0 and 1 the limit is the value itself, up to rounding.
    low = 0.0 if right == 0 else middle - half
    high = 1.0 if right == images else middle + half
    return Interval(share, low, high)


def newcombe(
    right: float, images: int, other_right: float, other_images: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return the difference of two shares of different images (Newcombe's hybrid of Wilson's)."""
    return apart(wilson(right, images, confidence), wilson(other_right, other_images, confidence))


def apart(interval: Interval, other: Interval) -> Interval:
    """Return the difference of two independent shares from their intervals (Newcombe)."""
    return Interval(
        interval.value - other.value,
        interval.value
        - other.value
        - math.hypot(interval.value - interval.low, other.high - other.value),
        interval.value
        - other.value
        + math.hypot(interval.high - interval.value, other.value - other.low),
    )


@dataclass(frozen=True)
class Discordance:
    """Two classifiers on the same images: where they differ, and how significantly."""

    images: int
    only_one: int
    """Images that only the first classifies correctly."""
    only_other: int
    difference: Interval
    p_value: float
    patients: int = 0
    """How many patients the images are from; 0 if none are named."""

    @property
    def discordant(self) -> int:
        """Images that exactly one of them classifies correctly."""
        return self.only_one + self.only_other


def mcnemar(one: Right, other: Right, clusters: Clusters | None = None) -> Discordance:
    """Compare two classifiers on the same images by the exact McNemar test.

    If patients are named, each patient has a balance: images that only the first classifies
    correctly, minus those that only the second does. Under the null hypothesis both signs of a
    balance are equally likely: a sign-flip permutation test over patients. With one image per
    patient that is McNemar's test.
    """
    only_one = int((one & ~other).sum())
    only_other = int((other & ~one).sum())
    p_value = min(1.0, 2 * heads_at_most(min(only_one, only_other), only_one + only_other))
    if clusters is not None and not clusters.single:
        balance = np.bincount(clusters.of_image, one.astype(float) - other.astype(float))
        p_value = _signs_thrown(balance.astype(np.int64))
    interval = newcombe_paired(one, other, clusters)
    difference = in_agreement(interval, differs=p_value < 1 - CONFIDENCE)
    patients = clusters.patients if clusters is not None else 0
    return Discordance(len(one), only_one, only_other, difference, p_value, patients)


def _signs_thrown(balances: NDArray[np.int64]) -> float:
    """Return the exact two-sided probability of a sum this large under random signs."""
    sizes, counts = np.unique(np.abs(balances[balances != 0]), return_counts=True)
    total = int((sizes * counts).sum())
    # The distribution of the sum, from -total to total, one size of balance after the other.
    sums = np.zeros(2 * total + 1)
    sums[total] = 1.0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        thrown = np.zeros_like(sums)
        for plus, share in enumerate(heads(count).tolist()):
            thrown += share * np.roll(sums, size * (2 * plus - count))
        sums = thrown
    far = abs(int(balances.sum()))
    outside = np.abs(np.arange(-total, total + 1)) >= far
    return min(1.0, float(sums[outside].sum()))


def newcombe_paired(
    one: Right, other: Right, clusters: Clusters | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Return the difference of two shares of the same images (Newcombe 1998, method 10).

    With patients, the shares have intervals over patients, and their correlation is that of the
    patients' values.
    """
    first = share_of(one, clusters, confidence)
    second = share_of(other, clusters, confidence)
    value = first.value - second.value
    lower, upper = first.value - first.low, first.high - first.value
    other_lower, other_upper = second.value - second.low, second.high - second.value
    together = _correlation(one, other)
    if clusters is not None and not clusters.single:
        together = _correlation_by_patient(one, other, clusters)
    down = lower**2 - 2 * together * lower * other_upper + other_upper**2
    up = upper**2 - 2 * together * upper * other_lower + other_lower**2
    return Interval(value, value - math.sqrt(max(0.0, down)), value + math.sqrt(max(0.0, up)))


def _correlation_by_patient(one: Right, other: Right, clusters: Clusters) -> float:
    both = np.stack([one, other]).astype(np.float64)
    values = clusters.linearise(both)
    first, second = values - values.mean(axis=1, keepdims=True)
    spread = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / spread if spread > 0 else 0.0


def _correlation(one: Right, other: Right) -> float:
    """Return the correlation of two classifiers, with the continuity correction of method 10."""
    images = len(one)
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    margins = (
        (both + only_one) * (only_other + neither) * (both + only_other) * (only_one + neither)
    )
    if margins == 0:
        return 0.0
    covering = both * neither - only_one * only_other
    if covering > 0:
        return max(covering - images / 2, 0.0) / math.sqrt(margins)
    return float(covering / math.sqrt(margins))
