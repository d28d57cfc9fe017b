"""Which of several shares is larger than which, beyond the chance of all the pairs."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from tuner.answers.statistics.multiplicity import holm
from tuner.answers.statistics.spread import CONFIDENCE

Array = NDArray[np.float64]


def precedence(drawn: Array) -> tuple[tuple[int, int], ...]:
    """Return the pairs of columns of which the first is larger, from draws of all of them.

    A pair counts where its own interval leaves out zero, and where its chance by
    the normal distribution, which a few hundred draws cannot resolve so far out,
    does after correction for all pairs (Holm).
    """
    tail = (1 - CONFIDENCE) / 2
    pairs, chances = [], []
    for one, other in combinations(range(drawn.shape[1]), 2):
        apart = drawn[:, one] - drawn[:, other]
        first, second = (one, other) if apart.mean() >= 0 else (other, one)
        apart = np.abs(apart.mean()) + (apart - apart.mean()) * np.sign(apart.mean() or 1.0)
        pairs.append((first, second, bool(np.quantile(apart, tail) > 0)))
        error = float(apart.std())
        chances.append(2 * float(ndtr(-apart.mean() / error)) if error > 0 else float(not apart[0]))
    corrected = holm(chances)
    return tuple(
        (first, second)
        for (first, second, own), chance in zip(pairs, corrected, strict=True)
        if own and chance < 1 - CONFIDENCE
    )
