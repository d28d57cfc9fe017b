"""How far a mean may be off: seeds are few and images are many, and both are drawn by chance.

A difference of two settings that is measured with S seeds on N images varies for three reasons:
the settings' luck with each seed, their liking for different images, and what is left over.
Only the first is known badly, from S - 1 degrees of freedom. Its share of the variance is
therefore carried as a distribution (its fiducial one: estimate times degrees of freedom over chi
square), and every probability is averaged over it. With one image that is Student's t, with
thousands of seeds the normal distribution, and in between the solution of Behrens and Fisher,
which does not claim more than it should. docs/statistics.md has what simulations say of it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from tuner.answers.statistics.distributions import chi_square, range_tail
from tuner.answers.statistics.roots import root

Array = NDArray[np.float64]

NODES = 200
"""How many equally likely values stand for the unknown variance."""
CONFIDENCE = 0.95
LATTICE = np.arange(NODES) * 123 % NODES
"""Pairs the equally likely values of two unknown variances evenly (a rank-1 lattice)."""
LEVELS_MAX = 40
"""More levels than this are compared as if they were this many; nobody reads such a table."""


@dataclass(frozen=True)
class Spread:
    """The variance of an estimate, as equally likely values of it."""

    variances: Array

    @staticmethod
    def of(
        by_seed: float, freedom: float, by_image: float, least: float, image_freedom: float = 0.0
    ) -> "Spread":
        """Return the spread of a mean from its parts, each as a variance of that mean.

        `by_seed` has so many degrees of freedom and includes what is left over;
        `by_image` may be negative, being a difference; the sum is never below `least`.
        Images are so many that their part is known; patients' has `image_freedom`.
        """
        seeds = by_seed / _chi_square(freedom) if freedom else np.zeros(NODES)
        if image_freedom:
            # What was estimated is the variance over patients of means over seeds, `least` in it.
            drawn = _chi_square(image_freedom)[LATTICE]
            return Spread(np.maximum(seeds + (by_image + least) / drawn - least, least))
        return Spread(np.maximum(seeds + by_image, least))

    @staticmethod
    def known(variance: float) -> "Spread":
        """Return the spread of an estimate whose variance is known well."""
        return Spread(np.full(NODES, variance))

    def or_wider(self, spread: "Spread") -> "Spread":
        """Return the wider of two, value by value."""
        return Spread(np.maximum(self.variances, spread.variances))

    def plus(self, variance: float) -> "Spread":
        """Return the spread with a known variance added."""
        return Spread(self.variances + variance)

    def at_least(self, variance: float) -> "Spread":
        """Return the spread with no value below a variance."""
        return Spread(np.maximum(self.variances, variance))

    @property
    def standard_error(self) -> float:
        """The typical distance from the truth."""
        return float(np.sqrt(np.median(self.variances)))

    def chance(self, distance: float, levels: int = 2) -> float:
        """Return how often chance alone puts the extremes of so many equal levels this far apart.

        With two levels that is the usual two-sided p value.
        """
        if distance == 0:
            return 1.0
        errors = np.sqrt(self.variances)
        with np.errstate(divide="ignore"):
            apart = abs(distance) / errors
        if levels <= 2:
            return float(2 * ndtr(-apart).mean())
        return float(_range_tail(apart * np.sqrt(2.0), min(levels, LEVELS_MAX)).mean())

    def half_width(self, levels: int = 2, confidence: float = CONFIDENCE) -> float:
        """Return half of the interval in which all differences of so many levels lie together."""
        error = float(np.sqrt(self.variances.max()))
        if error == 0:
            return 0.0
        wanted = 1 - confidence
        upper = error
        while self.chance(upper, levels) > wanted:
            upper *= 2
        return root(lambda at: self.chance(at, levels) - wanted, 0.0, upper, 1e-9 * error)


@dataclass(frozen=True)
class Interval:
    """A value and the limits between which the truth lies, 95 times in 100."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    def scaled(self, factor: float) -> "Interval":
        """Return it in another unit."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.value * factor, *ends)


def in_agreement(interval: Interval, *, differs: bool) -> Interval:
    """Return an interval that says of 0 what the verdict says.

    Verdict and interval come from two procedures: a test made step by step, or
    an exact one, may tell apart what the interval does not quite, or not tell
    apart what it just does. Where they disagree, the interval is drawn to 0.
    """
    holds_zero = interval.low <= 0 <= interval.high
    if differs == (not holds_zero):
        return interval
    if differs:
        ends = (interval.low, 0.0) if interval.value < 0 else (0.0, interval.high)
        return Interval(interval.value, *ends)
    return Interval(interval.value, min(interval.low, 0.0), max(interval.high, 0.0))


def around(
    value: float, spread: Spread, levels: int = 2, confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval about a value, for one difference or for all of so many levels."""
    half = spread.half_width(levels, confidence)
    return Interval(value, value - half, value + half)


def fraction(value: float, spread: Spread, images: float) -> Interval:
    """Return the interval about a fraction: as Wilson's, with the spread that was seen.

    Where every image is right, or every one wrong, no spread is seen, and the
    images (of patients: their effective number) alone say how far off that may be.
    """
    seen = value * (1 - value)
    scale = spread.variances / seen if seen > 0 else np.zeros(NODES)
    scale = np.maximum(scale, 1.0 / images if seen <= 0 else 0.0)
    return Interval(value, _fraction_limit(value, scale, 0.0), _fraction_limit(value, scale, 1.0))


def _fraction_limit(value: float, scale: Array, end: float) -> float:
    """Return the farthest fraction towards an end that would still give this value by chance."""
    if value == end or not scale.any():
        return value

    def excess(at: float) -> float:
        errors = np.sqrt(scale * at * (1 - at))
        with np.errstate(divide="ignore"):
            return float(ndtr(-abs(value - at) / errors).mean()) - (1 - CONFIDENCE) / 2

    tiny = 1e-12
    far = tiny if end == 0.0 else 1 - tiny
    if excess(far) > 0:
        return end
    near = value + (tiny if end > value else -tiny)
    if excess(near) <= 0:
        # Patients who all have the same share scatter by rounding only.
        return value
    return root(excess, near, far, 1e-9)


@cache
def _chi_square(freedom: float) -> Array:
    """Return equally likely values of chi square over its degrees of freedom."""
    shares = (np.arange(NODES) + 0.5) / NODES
    return chi_square(shares, freedom)


RANGES = np.linspace(0.0, 14.0, 1401)


def _range_tail(apart: Array, levels: int) -> Array:
    return np.interp(apart, RANGES, _range_tails(levels), right=0.0)


@cache
def _range_tails(levels: int) -> Array:
    """Return how often so many normal values range farther than each of RANGES."""
    return range_tail(RANGES, levels)
