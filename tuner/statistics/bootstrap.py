"""The studentised bootstrap, for means of skewed values such as losses."""

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.clusters import Clusters
from tuner.statistics.distributions import students
from tuner.statistics.variance import CONFIDENCE, Interval

Array = NDArray[np.float64]
DRAWS = 4000
SEED = 20_011


def mean_difference(
    one: Array,
    other: Array,
    clusters: Clusters | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean difference of paired values with the interval of a studentised bootstrap.

    If patients are named, patients are resampled, each with all its images.

    Studentised, because a percentile bootstrap of such skewed values covers too
    little. The draws are seeded, so the interval is reproducible.
    """
    differences = one - other if clusters is None else clusters.linearise(one - other)
    count = len(differences)
    value = float(differences.mean())
    error = float(differences.std(ddof=1)) / count**0.5 if count > 1 else 0.0
    if error == 0:
        return Interval(value, value, value)
    ratios = _ratios(differences, value)
    tail = (1 - confidence) / 2
    low, high = (float(one) for one in np.quantile(ratios, (tail, 1 - tail)))
    if clusters is not None and clusters.freedom:
        # Resamples of few or unequal patients understate the uncertainty: use at least Student's t
        # with their degrees of freedom.
        limit = students(1 - tail, clusters.freedom)
        low, high = min(low, -limit), max(high, limit)
    return Interval(value, value - high * error, value - low * error)


def _ratios(differences: Array, value: float) -> Array:
    """Return the studentised means of resamples, a block at a time to spare memory."""
    generator = np.random.default_rng(SEED)
    count = len(differences)
    block = max(1, 2_000_000 // count)
    found = []
    for start in range(0, DRAWS, block):
        drawn = differences[generator.integers(0, count, (min(block, DRAWS - start), count))]
        errors = drawn.std(axis=1, ddof=1) / count**0.5
        known = errors > 0
        found.append((drawn.mean(axis=1)[known] - value) / errors[known])
    return np.concatenate(found)
