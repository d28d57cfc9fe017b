"""Means over seeds with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit


@dataclass(frozen=True)
class Mean:
    """A mean over seeds: its value, how many seeds it stands on, and its 95 % interval."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the interval's width; None with fewer than two seeds."""
        return None if self.high is None else self.high - self.value


def mean_over_seeds(values: Sequence[float], confidence: float = 0.95) -> Mean | None:
    """Return the mean with its t interval; no interval from a single seed, nothing from none."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(mean, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * spread / math.sqrt(n)
    return Mean(mean, n, mean - half, mean + half)
