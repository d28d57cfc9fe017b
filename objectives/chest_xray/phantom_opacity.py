"""Pneumonia: patches of lung that fill with fluid, from plain to hardly visible."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import SIDES
from .anatomy_shadow import Body
from .phantom_arithmetic import Draws, exponential, logarithm
from .phantom_field import Field, Frame, radius, soft_step, texture


@dataclass(frozen=True)
class Opacity:
    """One patch: where it lies in the patient, how large, how turned, and how dense."""

    centre: tuple[float, float]
    axes: tuple[float, float]
    angle: float
    strength: float


@dataclass(frozen=True)
class Disease:
    """The opacities of one patient and the grain they share."""

    opacities: tuple[Opacity, ...]
    grain: NDArray[np.float32]


SUBTLE = (0.12, 0.30)
PLAIN = (0.4, 0.85)
"""Ranges of density relative to soft tissue; subtle disease is hardly visible."""

AT_MOST = (0.30, 0.62, 0.85, 1.0)
"""How often there are at most one, two, three, four opacities."""


def draw_disease(draws: Draws, subtle: bool) -> Disease:
    """Draw one to four opacities; those of one patient are about equally dense."""
    luck = draws.uniform(0, 1)
    count = 1 + sum(luck >= share for share in AT_MOST)
    low, high = SUBTLE if subtle else PLAIN
    density = float(exponential(draws.uniform(float(logarithm(low)), float(logarithm(high)))))
    opacities = tuple(_draw_opacity(draws, density) for _ in range(count))
    return Disease(opacities=opacities, grain=draws.normals(35, 35))


def _draw_opacity(draws: Draws, density: float) -> Opacity:
    side = SIDES[int(draws.uniform(0, 2))]
    # Lower zones are ill more often than upper ones.
    height = draws.triangular(-0.5, 0.25, 0.45)
    size = draws.uniform(0.17, 0.32)
    stretch = float(exponential(draws.normal(0, 0.13)))
    # Behind the heart a patch could not be seen.
    inner = 0.46 if side > 0 and height > -0.1 else 0.28
    return Opacity(
        centre=(side * draws.uniform(inner, 0.66), height),
        axes=(size * stretch, size / stretch),
        angle=draws.uniform(0, 3.141592653589793),
        strength=density * float(exponential(draws.normal(0, 0.2))),
    )


def fill(disease: Disease, body: Body, frame: Frame, lungs: Field) -> Field:
    """Return the attenuation that the opacities add: fuzzy, patchy, and inside the lungs only."""
    grain = texture(disease.grain, frame)
    clear = np.ones_like(lungs)
    for opacity in disease.opacities:
        away = radius((body.u, body.v), opacity.centre, opacity.axes, opacity.angle)
        ragged = 1 - away + 0.5 * grain
        clear *= 1 - min(opacity.strength, 0.9) * soft_step(ragged, 0.26)
    return (1 - clear) * lungs * (1 + 0.25 * grain)
