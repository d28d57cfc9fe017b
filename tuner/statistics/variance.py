"""The spread of a mean whose variance components are known from few seeds and many images.

A difference of two settings, measured with S seeds on N images, has three variance components:
setting × seed, setting × image, and the residual. The first has only S - 1 degrees of freedom,
so it is carried as its fiducial distribution (estimate × degrees of freedom / chi square), and
every probability is averaged over it. With one image that is Student's t, with thousands of seeds
the normal distribution, and in between the Behrens-Fisher solution, which is conservative.
docs/statistics.md reports how it does in simulations.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.distributions import chi_square, range_tail
from tuner.statistics.roots import root
from tuner.statistics.special import ndtr

Array = NDArray[np.float64]

NODES = 200
"""How many equally likely values represent the unknown variance."""
CONFIDENCE = 0.95
LATTICE = np.arange(NODES) * 123 % NODES
"""Pairs the equally likely values of two unknown variances evenly (a rank-1 lattice)."""
LEVELS_MAX = 40
"""Upper limit of the number of levels for the range test; more are treated as this many."""


@dataclass(frozen=True)
class Spread:
    """The variance of an estimate, represented by equally likely values of it."""

    variances: Array

    @staticmethod
    def of(
        by_seed: float, freedom: float, by_image: float, least: float, image_freedom: float = 0.0
    ) -> "Spread":
        """Return the spread of a mean from its variance components.

        `by_seed` has `freedom` degrees of freedom and includes the interaction;
        `by_image` may be negative, because it is a difference; the sum is at least `least`.
        With many images their component counts as known; with patients it has `image_freedom`.
        """
        seeds = by_seed / _chi_square(freedom) if freedom else np.zeros(NODES)
        if image_freedom:
            # The estimate is the variance over patients of means over seeds, including `least`.
            drawn = _chi_square(image_freedom)[LATTICE]
            return Spread(np.maximum(seeds + (by_image + least) / drawn - least, least))
        return Spread(np.maximum(seeds + by_image, least))

    @staticmethod
    def known(variance: float) -> "Spread":
        """Return the spread of an estimate whose variance is known."""
        return Spread(np.full(NODES, variance))

    @staticmethod
    def unknown() -> "Spread":
        """Return the spread of an estimate whose variance cannot be estimated: without bounds."""
        return Spread.known(math.inf)

    def or_wider(self, spread: "Spread") -> "Spread":
        """Return the wider of two spreads, value by value."""
        return Spread(np.maximum(self.variances, spread.variances))

    def plus(self, variance: float) -> "Spread":
        """Return the spread with a known variance added."""
        return Spread(self.variances + variance)

    def at_least(self, variance: float) -> "Spread":
        """Return the spread with no value below a variance."""
        return Spread(np.maximum(self.variances, variance))

    @property
    def standard_error(self) -> float:
        """The standard error: the square root of the median variance."""
        return float(np.sqrt(np.median(self.variances)))

    def p_value(self, distance: float, levels: int = 2) -> float:
        """Return the p value of a distance: two-sided for two levels, Tukey's range for more."""
        if distance == 0:
            return 1.0
        errors = np.sqrt(self.variances)
        with np.errstate(divide="ignore"):
            apart = abs(distance) / errors
        if levels <= 2:
            return float(2 * ndtr(-apart).mean())
        return float(_range_tail(apart * np.sqrt(2.0), min(levels, LEVELS_MAX)).mean())

    def half_width(self, levels: int = 2, confidence: float = CONFIDENCE) -> float:
        """Return the half-width of the simultaneous interval for all differences of the levels."""
        error = float(np.sqrt(self.variances.max()))
        if error == 0 or math.isinf(error):
            return error
        wanted = 1 - confidence
        upper = error
        while self.p_value(upper, levels) > wanted:
            upper *= 2
        return root(lambda at: self.p_value(at, levels) - wanted, 0.0, upper, 1e-9 * error)


@dataclass(frozen=True)
class Interval:
    """A value with its 95% confidence limits."""

    value: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether it has limits; with one seed and no images the variance is unknown."""
        return math.isfinite(self.high - self.low)

    @property
    def half_width(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2

    def scaled(self, factor: float) -> "Interval":
        """Return the interval in another unit."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.value * factor, *ends)


def in_agreement(interval: Interval, *, differs: bool) -> Interval:
    """Return an interval that is consistent with the test about 0.

    Test and interval come from different procedures: a stepwise or exact test may reject
    although the interval just includes 0, or the other way round. If they disagree, the
    nearer limit is moved to 0.
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
    """Return the interval about a value, for one difference or for all of this many levels."""
    half = spread.half_width(levels, confidence)
    return Interval(value, value - half, value + half)


def fraction(value: float, spread: Spread, images: float) -> Interval:
    """Return the interval about a fraction: like Wilson's, with the observed spread.

    If every image is right, or every one wrong, the observed spread is 0, and the number
    of images (for patients the effective number) determines the interval.
    """
    seen = value * (1 - value)
    scale = spread.variances / seen if seen > 0 else np.zeros(NODES)
    scale = np.maximum(scale, 1.0 / images if seen <= 0 else 0.0)
    return Interval(value, _fraction_limit(value, scale, 0.0), _fraction_limit(value, scale, 1.0))


def _fraction_limit(value: float, scale: Array, end: float) -> float:
    """Return the farthest fraction towards an end that is consistent with this value."""
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
        # If all patients have the same share, the spread is only rounding.
        return value
    return root(excess, near, far, 1e-9)


@cache
def _chi_square(freedom: float) -> Array:
    """Return equally likely values of chi square divided by its degrees of freedom."""
    shares = (np.arange(NODES) + 0.5) / NODES
    return chi_square(shares, freedom)


RANGES = np.linspace(0.0, 14.0, 1401)


def _range_tail(apart: Array, levels: int) -> Array:
    return np.interp(apart, RANGES, _range_tails(levels), right=0.0)


@cache
def _range_tails(levels: int) -> Array:
    """Return the tail probability of the range of this many normal values, for each of RANGES."""
    return range_tail(RANGES, levels)
