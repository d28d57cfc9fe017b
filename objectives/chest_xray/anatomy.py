"""One patient of the phantom: what differs from chest to chest, drawn once per image.

Lengths are in units of half the picture's width, angles in radians, and
attenuations in the units of the film curve (see `phantom_machine`). "Left" and
"right" are the picture's: a patient faces us, so the heart leans to the right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .phantom_arithmetic import Draws

SIDES = (-1, 1)
"""The picture's left and right lung."""


@dataclass(frozen=True)
class Patient:
    """The build of one patient, and their position in front of the film."""

    centre: tuple[float, float]
    scale: tuple[float, float]
    """Width and height relative to the average chest."""
    tilt: float
    turn: float
    """Rotation about the spine: shifts the midline and makes the lungs unequal."""
    girth: float
    """Overall thickness: how much of everything the rays have to cross."""
    apex: float
    domes: tuple[float, float]
    """Height of the two halves of the diaphragm; the right of the picture lies lower."""
    dome_depth: float
    lung_width: float
    air: float
    """How much less the lungs attenuate than soft tissue."""
    heart: float
    heart_angle: float
    mediastinum: float
    knob: float
    rib_spacing: float
    rib_phase: tuple[float, float]
    rib_slope: float
    ribs: float
    rib_jitter: NDArray[np.float32]
    """Strength of each rib on each side, around 1."""
    clavicle_slope: tuple[float, float]
    clavicle_height: float
    bone: float
    spine_phase: float
    vessels: float
    vessel_angles: NDArray[np.float32]
    """Angle of each vessel on each side."""
    vessel_bends: NDArray[np.float32]
    breasts: float
    gas: tuple[float, float, float]
    """The bubble in the stomach: place along x, width, strength."""
    tissue: NDArray[np.float32]
    """Coefficients of the texture of soft tissue."""


def draw_patient(draws: Draws) -> Patient:
    """Draw a patient; every number is independent of the size of the picture."""
    normal, uniform = draws.normal, draws.uniform
    dome = normal(0.46, 0.035)
    return Patient(
        centre=(normal(0, 0.015), normal(0.02, 0.015)),
        scale=(normal(1, 0.025), normal(1, 0.025)),
        tilt=normal(0, 0.015),
        turn=normal(0, 0.02),
        girth=normal(1, 0.025),
        apex=normal(-0.84, 0.025),
        domes=(dome, dome + normal(0.05, 0.02)),
        dome_depth=normal(0.25, 0.03),
        lung_width=normal(0.44, 0.012),
        air=normal(0.52, 0.02),
        heart=normal(1, 0.07),
        heart_angle=normal(0.5, 0.08),
        mediastinum=normal(0.125, 0.014),
        knob=uniform(0.05, 0.1),
        rib_spacing=normal(0.175, 0.006),
        rib_phase=(normal(0.5, 0.12), normal(0.5, 0.12)),
        rib_slope=normal(0.3, 0.05),
        ribs=normal(0.12, 0.02),
        rib_jitter=1 + 0.15 * draws.normals(2, 32),
        clavicle_slope=(normal(0.2, 0.06), normal(0.2, 0.06)),
        clavicle_height=normal(-0.58, 0.03),
        bone=normal(0.13, 0.02),
        spine_phase=uniform(0, 1),
        vessels=normal(0.16, 0.03),
        vessel_angles=0.16 * draws.normals(2, 7),
        vessel_bends=0.5 * draws.normals(2, 7),
        breasts=max(0.0, normal(0.02, 0.06)),
        gas=(normal(0.42, 0.06), uniform(0.06, 0.14), uniform(0, 0.25)),
        tissue=draws.normals(19, 19),
    )
