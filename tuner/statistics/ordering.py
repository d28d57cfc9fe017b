"""Significant pairwise order of several shares, corrected for multiple comparisons."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.multiple_comparisons import holm
from tuner.statistics.special import ndtr
from tuner.statistics.variance import CONFIDENCE

Array = NDArray[np.float64]


def precedence(drawn: Array) -> tuple[tuple[int, int], ...]:
    """Return the pairs of columns of which the first is significantly larger, from draws.

    A pair counts if its own interval excludes zero and its p value, corrected for
    all pairs (Holm), is significant. The p value uses the normal distribution,
    because a few hundred draws cannot resolve the tail.
    """
    tail = (1 - CONFIDENCE) / 2
    pairs, p_values = [], []
    for one, other in combinations(range(drawn.shape[1]), 2):
        apart = drawn[:, one] - drawn[:, other]
        first, second = (one, other) if apart.mean() >= 0 else (other, one)
        apart = np.abs(apart.mean()) + (apart - apart.mean()) * np.sign(apart.mean() or 1.0)
        pairs.append((first, second, bool(np.quantile(apart, tail) > 0)))
        error = float(apart.std())
        p_values.append(
            2 * float(ndtr(-apart.mean() / error)) if error > 0 else float(not apart[0])
        )
    corrected = holm(p_values)
    return tuple(
        (first, second)
        for (first, second, own), p_value in zip(pairs, corrected, strict=True)
        if own and p_value < 1 - CONFIDENCE
    )
