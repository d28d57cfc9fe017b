"""Quantiles and tails of distributions, by scipy.special or written here.

Importing scipy.stats takes a second in every process that needs it; scipy.special a quarter of one,
which a table of means over seeds need not wait for.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.special import betainc, gammaincinv, ndtr, ndtri, stdtrit

Array = NDArray[np.float64]

WHOLE = range(201)
USUAL = 0.999
"""Degrees of freedom, and shares up to which, quantiles are computed here."""
STEP = 1 / 10
PLACES = STEP * np.arange(-180, 101)
"""Integration points for the smallest of several normal values."""


def students(share: float, freedom: float) -> float:
    """Return Student's quantile; the normal one if the freedom is 0 (known variance)."""
    if 0.5 <= share <= USUAL and freedom in WHOLE:
        start = NormalDist().inv_cdf(share)
        return _whole_students(share, int(freedom), start) if freedom else start
    return float(stdtrit(freedom, share) if freedom else ndtri(share))


def _whole_students(share: float, freedom: int, start: float) -> float:
    """Return an upper quantile for whole degrees of freedom, by Newton's method.

    The probability is a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4). It is concave above
    0, and Student's quantile is above the normal one: from there, steps never go too far.
    """
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    scale -= math.log(freedom * math.pi) / 2
    value = start
    while True:
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(value**2 / freedom))
        step = (2 * share - 1 - _within_students(value, freedom)) / (2 * density)
        value += step
        # The next step would be about the square of this one.
        if step <= 1e-9 * value:
            return value


def _within_students(value: float, freedom: int) -> float:
    """Return the probability that Student's t is at most this far from 0."""
    angle = math.atan2(value, math.sqrt(freedom))
    cosine = math.cos(angle)
    first = 1.0 if freedom % 2 == 0 else cosine if freedom > 1 else 0.0
    total = term = first
    for k in range(2 + freedom % 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    total *= math.sin(angle)
    return total if freedom % 2 == 0 else 2 / math.pi * (angle + total)


def chi_square(share: Array | float, freedom: float) -> Array:
    """Return quantiles of chi square divided by its degrees of freedom."""
    return np.asarray(2 * gammaincinv(freedom / 2, share) / freedom, dtype=np.float64)


def heads_at_most(heads: int, throws: int) -> float:
    """Return the probability of at most this many heads in throws of a fair coin."""
    if not 0 <= heads < throws:
        return float(heads >= throws)
    return float(betainc(throws - heads, heads + 1, 0.5))


def heads(throws: int) -> Array:
    """Return the probabilities of 0, 1, …, `throws` heads."""
    middle = throws // 2
    at = np.arange(middle, throws)
    # From the middle outwards nothing overflows, however many throws there are.
    falling = np.concatenate([[1.0], np.cumprod((throws - at) / (at + 1))])
    rising = falling[: throws - 2 * middle : -1]
    both = np.concatenate([rising, falling])
    return np.asarray(both / both.sum(), dtype=np.float64)


def range_tail(distance: Array, count: int) -> Array:
    """Return the tail probability of the range of this many standard normal values.

    Integrates over the smallest value the probability that not all others are within the range
    above it. The sum over equal steps is exact to 1e-10 up to 10,000 values, because the integrand
    is smooth and vanishes at both ends.
    """
    above = ndtr(-PLACES)
    least = count * np.exp(-(PLACES**2) / 2) / np.sqrt(2 * np.pi) * above ** (count - 1)
    beyond = ndtr(-PLACES - np.asarray(distance, dtype=np.float64)[..., None]) / above
    with np.errstate(divide="ignore"):
        not_all = -np.expm1((count - 1) * np.log1p(-beyond))
    return np.asarray(np.minimum(not_all @ (STEP * least), 1.0), dtype=np.float64)
