"""Axes of charts, as fractions of the chart's width or height."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MARGIN = 0.03
"""Margin at both ends of an axis, as a fraction of the data's range."""


@dataclass(frozen=True)
class Axis:
    """A linear axis from its low to its high end."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Axis | None":
        """Return an axis that covers all these values; None if one of them is not finite."""
        ends = list(values)
        if not ends or not np.isfinite(ends).all():
            return None
        low, high = min(ends), max(ends)
        width = (high - low) or abs(high) or 1.0
        return cls(low - MARGIN * width, high + MARGIN * width)

    def place(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 1 at the high end."""
        return round(float((value - self.low) / (self.high - self.low)), 4)

    def ticks(self, scale: float = 1.0) -> tuple[tuple[float, str], ...]:
        """Return round values with their positions; labels show the values times `scale`."""
        low, high = self.low * scale, self.high * scale
        step = 10.0 ** np.floor(np.log10((high - low) / 4))
        step = next(
            step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5
        )
        # Multiples of the step, because adding steps would give −0 or 0.30000000000000004.
        values = [
            step * count for count in range(int(np.ceil(low / step)), int(np.ceil(high / step)))
        ]
        return tuple(
            (self.place(float(value) / scale), f"{value or 0.0:.6g}".replace("-", "−"))
            for value in values
        )
