"""Average ranks: ties share the mean of their ranks."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def average_ranks(values: NDArray[np.generic]) -> Array:
    """Return the rank of each value, counted from 1; all are NaN if any value is NaN."""
    if np.isnan(values).any():
        return np.full(len(values), np.nan)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(middles[place], dtype=np.float64)
