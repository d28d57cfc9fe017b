"""Rank correlation of two figures over trials."""

import math

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.distributions import students
from tuner.statistics.ranks import average_ranks
from tuner.statistics.variance import CONFIDENCE, Interval

Array = NDArray[np.float64]
FEWEST = 4
"""Fewest pairs for a rank correlation."""


def rank_correlation(one: Array, other: Array, confidence: float = CONFIDENCE) -> Interval | None:
    """Return Spearman's correlation (Fisher's z with the variance of Bonett and Wright).

    None with fewer than 4 pairs, or if one of the figures is constant.
    """
    if len(one) < FEWEST or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    value = float(np.corrcoef(average_ranks(one), average_ranks(other))[0, 1])
    count = len(one)
    # Continuity correction: few pairs are in perfect order by chance, so 1 is replaced by the
    # midpoint to the next lower value.
    most = 1 - 6 / (count * (count**2 - 1))
    bounded = math.copysign(min(abs(value), most), value)
    half = students(0.5 + confidence / 2, 0.0) * math.sqrt((1 + value**2 / 2) / (len(one) - 3))
    low, high = (math.tanh(math.atanh(bounded) + side * half) for side in (-1, 1))
    return Interval(value, min(low, value), max(high, value))
