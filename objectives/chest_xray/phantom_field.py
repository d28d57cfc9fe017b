"""Soft shapes and smooth random textures, with which the phantom is drawn.

Everything is float32 and computed pixel by pixel, by operations that round alike on every machine
(see `phantom_arithmetic`). So an image depends neither on the number of threads nor on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .phantom_arithmetic import exponential, power, rotation

Field = NDArray[np.float32]
"""Values over the picture, `(rows, columns)`, or over one of its axes."""


@dataclass(frozen=True)
class Frame:
    """Where the pixels lie in the patient: -1 is the left (or upper) edge, 1 the right (lower)."""

    x: Field
    """Of each column."""
    y: Field
    """Of each row."""

    @property
    def pixel(self) -> float:
        """The width of one pixel."""
        return float(self.x[1] - self.x[0])


def frame_of(size: int, magnification: float, left: float, up: float) -> Frame:
    """Return the frame of a square picture; decentring is in the units of the frame."""
    centres = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    return Frame(
        x=((centres + left) / magnification).astype(np.float32),
        y=((centres + up) / magnification).astype(np.float32),
    )


def soft_step(distance: Field, width: float) -> Field:
    """Return 1 well inside (distance > 0), 0 well outside; the edge is three widths each way."""
    t: Field = np.minimum(np.maximum(distance * (1 / (6 * width)) + 0.5, 0), 1)
    return t * t * (3 - 2 * t)


def bump(distance: Field, width: float) -> Field:
    """Return nearly a Gaussian bell of the given standard deviation: (1 - z²/16)⁸ up to 4."""
    z = distance * (1 / width)
    return power(np.maximum(1 - z * z * (1 / 16), 0), 3)


def radius(
    frame: tuple[Field, Field], centre: tuple[float, float], axes: tuple[float, float], angle: float
) -> Field:
    """Return the elliptical radius around a centre: 1 on the ellipse; the angle in radians."""
    x, y = frame[0] - centre[0], frame[1] - centre[1]
    cos, sin = rotation(angle)
    along = x * (cos / axes[0]) + y * (sin / axes[0])
    across = y * (cos / axes[1]) - x * (sin / axes[1])
    away: Field = np.sqrt(along * along + across * across)
    return away


def blurred(image: Field, deviation: float) -> Field:
    """Blur by a Gaussian of a standard deviation in pixels, cut off at three."""
    offsets = range(int(3 * deviation + 0.5) + 1)
    bell = [float(exponential(-0.5 * (k / deviation) * (k / deviation))) for k in offsets]
    # Not by sum(), which rounds floats differently since Python 3.12.
    side = 0.0
    for weight in bell[1:]:
        side += weight
    whole = bell[0] + 2 * side
    return smoothed(image, [weight / whole for weight in bell])


def smoothed(image: Field, weights: Sequence[float]) -> Field:
    """Average over rows and columns with the weights of offsets 0, ±1, ...; edges are repeated."""
    reach = len(weights) - 1
    for _ in range(2):
        size = image.shape[0]
        padded = image[np.clip(np.arange(-reach, size + reach), 0, size - 1)]
        mean = padded[reach : reach + size] * weights[0]
        for k in range(1, reach + 1):
            before, after = padded[reach - k :][:size], padded[reach + k :][:size]
            mean += (before + after) * weights[k]
        image = mean.T
    return image


def texture(grid: Field, frame: Frame) -> Field:
    """Interpolate a square grid over [-1.25, 1.25]² by cubic B-splines, at the frame's pixels."""
    cells = grid.shape[0] - 3
    rows, row_weights = _spline(frame.y, cells)
    columns, column_weights = _spline(frame.x, cells)
    down = sum((row_weights[j][:, None] * grid[rows + j] for j in range(4)), 0)
    across = (column_weights[j] * np.take(down, columns + j, axis=1) for j in range(4))
    return np.asarray(sum(across, 0), dtype=np.float32)


def _spline(axis: Field, cells: int) -> tuple[NDArray[np.int64], list[Field]]:
    place = np.clip((axis + 1.25) * (cells / 2.5), 0, cells - 1e-3)
    first = place.astype(np.int64)
    t = (place - first).astype(np.float32)
    s = 1 - t
    return first, [
        s * s * s / 6,
        (3 * t * t * (t - 2) + 4) / 6,
        (3 * t * (1 + t * s) + 1) / 6,
        t * t * t / 6,
    ]
