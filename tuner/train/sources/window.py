"""Windows deep images to uint8 by limits taken from the training images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.train.sources.pool import Pixels

OUTSIDE = 0.1
"""Percent of the training pixels below the window; the same percentage is above it."""
SAMPLE = 20_000_000
"""How many pixels, evenly spread, the limits are computed from at most."""


@dataclass(frozen=True)
class Window:
    """The values mapped to 0 and to 255."""

    low: float
    high: float

    def apply(self, images: Pixels) -> NDArray[np.uint8]:
        """Map the window's limits to 0 and 255, clipping values outside."""
        scaled = (images.astype(np.float32) - self.low) * (255.0 / (self.high - self.low))
        found: NDArray[np.uint8] = np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8)
        return found

    def words(self) -> str:
        """Return a note for people on what was done."""
        return (
            f"Pixels were windowed to 8 bits: {self.low:g} and below is black, {self.high:g} and "
            f"above is white (all but {2 * OUTSIDE:g}% of the training pixels are between)."
        )


def find_window(images: Pixels, training: NDArray[np.int64]) -> Window | None:
    """Return the window computed from the training images, or None for 8-bit images."""
    if images.dtype == np.uint8:
        return None
    per_image = max(1, SAMPLE // max(1, len(training)))
    step = max(1, int(np.prod(images.shape[1:])) // per_image)
    sample = np.concatenate([images[i].reshape(-1)[::step] for i in training])
    low, high = (float(x) for x in np.percentile(sample, [OUTSIDE, 100 - OUTSIDE]))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return Window(low, high if high > low else low + 1)
