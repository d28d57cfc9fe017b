"""The distributions of chance that are asked for, by scipy.special or by what is written here.

Importing scipy.stats takes a second in every process that judges; scipy.special does not.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaincinv, ndtr, ndtri, stdtrit

Array = NDArray[np.float64]

STEP = 1 / 10
PLACES = STEP * np.arange(-180, 101)
"""Where the least of several normal values may lie."""


def students(share: float, freedom: float) -> float:
    """Return Student's quantile; the normal one where the freedom is 0: the variance is known."""
    return float(stdtrit(freedom, share) if freedom else ndtri(share))


def chi_square(share: Array | float, freedom: float) -> Array:
    """Return quantiles of chi square over its degrees of freedom."""
    return np.asarray(2 * gammaincinv(freedom / 2, share) / freedom, dtype=np.float64)


def heads_at_most(heads: int, throws: int) -> float:
    """Return how often this many throws of a coin show at most this many heads."""
    if not 0 <= heads < throws:
        return float(heads >= throws)
    return float(betainc(throws - heads, heads + 1, 0.5))


def heads(throws: int) -> Array:
    """Return how often this many throws show no head, one, two, and so on to all of them."""
    middle = throws // 2
    at = np.arange(middle, throws)
    # From the middle outwards nothing overflows, however many throws there are.
    falling = np.concatenate([[1.0], np.cumprod((throws - at) / (at + 1))])
    rising = falling[: throws - 2 * middle : -1]
    both = np.concatenate([rising, falling])
    return np.asarray(both / both.sum(), dtype=np.float64)


def range_tail(apart: Array, count: int) -> Array:
    """Return how often this many standard normal values range farther than this apart.

    For each place of the least of them: how often not all others are within reach above it.
    The sum over equal steps is exact to 1e-10 up to 10,000 values: the integrand is smooth, and
    nothing at both ends.
    """
    above = ndtr(-PLACES)
    least = count * np.exp(-(PLACES**2) / 2) / np.sqrt(2 * np.pi) * above ** (count - 1)
    beyond = ndtr(-PLACES - np.asarray(apart, dtype=np.float64)[..., None]) / above
    with np.errstate(divide="ignore"):
        not_all = -np.expm1((count - 1) * np.log1p(-beyond))
    return np.asarray(np.minimum(not_all @ (STEP * least), 1.0), dtype=np.float64)
