"""Shares of images: their intervals, their differences, and two classifiers on the same images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binom

from tuner.answers.statistics.spread import CONFIDENCE, Interval, in_agreement

Right = NDArray[np.bool_]


def wilson(right: float, images: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with Wilson's interval, which holds near 0 and 1 and for few images."""
    share = right / images
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * share * (1 - share) / images + (z2 / images) ** 2 / 4) / (1 + z2 / images)
    # At 0 and 1 the limit is the value itself, but for rounding.
    low = 0.0 if right == 0 else middle - half
    high = 1.0 if right == images else middle + half
    return Interval(share, low, high)


def newcombe(
    right: float, images: int, other_right: float, other_images: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return the difference of two shares of different images (Newcombe's hybrid of Wilson's)."""
    one = wilson(right, images, confidence)
    other = wilson(other_right, other_images, confidence)
    return Interval(
        one.value - other.value,
        one.value - other.value - math.hypot(one.value - one.low, other.high - other.value),
        one.value - other.value + math.hypot(one.high - one.value, other.value - other.low),
    )


@dataclass(frozen=True)
class Discordance:
    """Two classifiers on the same images: where they differ, and what chance makes of it."""

    images: int
    only_one: int
    """Images that only the first has right."""
    only_other: int
    difference: Interval
    chance: float

    @property
    def discordant(self) -> int:
        """Images that one of them has right and the other wrong."""
        return self.only_one + self.only_other


def mcnemar(one: Right, other: Right) -> Discordance:
    """Compare two classifiers on the same images by those on which they differ (exact test)."""
    only_one = int((one & ~other).sum())
    only_other = int((other & ~one).sum())
    discordant = only_one + only_other
    tail = float(binom.cdf(min(only_one, only_other), discordant, 0.5)) if discordant else 1.0
    chance = min(1.0, 2 * tail)
    difference = in_agreement(newcombe_paired(one, other), differs=chance < 1 - CONFIDENCE)
    return Discordance(len(one), only_one, only_other, difference, chance)


def newcombe_paired(one: Right, other: Right, confidence: float = CONFIDENCE) -> Interval:
    """Return the difference of two shares of the same images (Newcombe 1998, method 10)."""
    images = len(one)
    first = wilson(int(one.sum()), images, confidence)
    second = wilson(int(other.sum()), images, confidence)
    value = first.value - second.value
    lower, upper = first.value - first.low, first.high - first.value
    other_lower, other_upper = second.value - second.low, second.high - second.value
    together = _correlation(one, other)
    down = lower**2 - 2 * together * lower * other_upper + other_upper**2
    up = upper**2 - 2 * together * upper * other_lower + other_lower**2
    return Interval(value, value - math.sqrt(max(0.0, down)), value + math.sqrt(max(0.0, up)))


def _correlation(one: Right, other: Right) -> float:
    """Return how alike two classifiers are, with the continuity correction of method 10."""
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
