"""Soft shapes and smooth random textures, the brushes the phantom is painted with.

Everything is float32 and worked out pixel by pixel, so that an image does not depend on how
many threads or which BLAS happened to draw it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """Return 1 well inside (distance > 0), 0 well outside, and a smooth edge between."""
    inside: Field = 0.5 + 0.5 * np.tanh(distance * (0.5 / width))
    return inside


def bump(distance: Field, width: float) -> Field:
    """Return a Gaussian bell of the given standard deviation."""
    bell: Field = np.exp(np.square(distance * (1 / width)) * -0.5)
    return bell


def radius(
    frame: tuple[Field, Field], centre: tuple[float, float], axes: tuple[float, float], angle: float
) -> Field:
    """Return the elliptical radius around a centre: 1 on the ellipse; the angle in radians."""
    x, y = frame[0] - centre[0], frame[1] - centre[1]
    cos, sin = math.cos(angle), math.sin(angle)
    along = x * (cos / axes[0]) + y * (sin / axes[0])
    across = y * (cos / axes[1]) - x * (sin / axes[1])
    away: Field = np.sqrt(np.square(along) + np.square(across))
    return away


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
    weights = [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]
    return first, [weight.astype(np.float32) for weight in weights]
