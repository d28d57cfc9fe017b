"""The shadow of a patient: attenuation over the picture, independent of the machine."""

from dataclasses import dataclass

import numpy as np

from .anatomy import SIDES, Patient
from .phantom_arithmetic import angle_of, exponential, rotation, sine
from .phantom_field import Field, Frame, bump, radius, soft_step, texture


@dataclass(frozen=True)
class Shadow:
    """Attenuation over the picture, and where air-filled lung is visible (0 to 1)."""

    attenuation: Field
    lungs: Field


@dataclass(frozen=True)
class Body:
    """Pixels in the patient's coordinates, and the width of drawn edges."""

    u: Field
    v: Field
    edge: float

    def half(self, side: int) -> tuple["Body", slice]:
        """Return one side of the picture with some of the other, and its columns."""
        size = self.u.shape[1]
        margin = size // 8
        columns = slice(0, size // 2 + margin) if side < 0 else slice(size // 2 - margin, size)
        return Body(self.u[:, columns], self.v[:, columns], self.edge), columns


def body_of(patient: Patient, frame: Frame) -> Body:
    """Place the picture's pixels in the patient: centred, straightened, and scaled."""
    x, y = frame.x - patient.centre[0], frame.y - patient.centre[1]
    cos, sin = rotation(patient.tilt)
    wide, high = patient.scale
    u = x * (cos / wide) + (y * (sin / wide))[:, None]
    v = (y * (cos / high))[:, None] - x * (sin / high)
    return Body(u=u, v=v, edge=max(0.011, 0.4 * frame.pixel))


def cast_shadow(patient: Patient, frame: Frame) -> Shadow:
    """Add up the attenuation along the rays: trunk, air, heart, vessels, and bones."""
    body = body_of(patient, frame)
    trunk = _trunk(body)
    centre = _centre(patient, body)
    lungs = np.zeros_like(trunk)
    detail = np.zeros_like(trunk)
    for index, side in enumerate(SIDES):
        half, columns = body.half(side)
        lung, inside = _lung(patient, half, index)
        lungs[:, columns] += lung * (1 - centre[:, columns])
        detail[:, columns] += _ribs(patient, half, index, inside) * trunk[:, columns]
        detail[:, columns] += _vessels(patient, half, index) * lung
        detail[:, columns] += _clavicle(patient, half, index) * trunk[:, columns]
    soft: Field = trunk * (1 + 0.035 * texture(patient.tissue, frame))
    soft -= patient.air * lungs
    soft += 0.10 * centre * trunk + _axis(patient, body) * trunk
    soft += _lower(patient, body) + detail
    return Shadow(attenuation=soft * patient.girth, lungs=lungs)


def _trunk(body: Body) -> Field:
    """Draw neck, shoulders and trunk, thinner towards the sides."""
    u, v = np.abs(body.u), body.v
    shoulder = np.clip((v + 1.12) / 0.42, 0, 1)
    waist = np.clip((v + 0.55) / 0.6, 0, 1)
    half_width = 0.26 + 0.86 * shoulder * shoulder * (3 - 2 * shoulder) - 0.13 * waist
    inside = soft_step(half_width - u, 0.02)
    thickness = np.sqrt(np.clip(1 - np.square(u / (half_width * 1.12)), 0.02, 1))
    return np.asarray(inside * (0.45 + 0.55 * thickness), dtype=np.float32)


def _centre(patient: Patient, body: Body) -> Field:
    """Draw heart, great vessels and the band between the lungs, 0 to 1."""
    u, v = body.u - patient.turn, body.v
    band = patient.mediastinum + 0.10 * np.square(np.clip(-0.25 - v, 0, 1))
    band += 0.4 * np.clip(v - 0.33, 0, 0.5)
    gap = 1 - soft_step(band.astype(np.float32) - np.abs(u), 1.6 * body.edge)
    size = patient.heart
    ellipses = (
        ((0.16, 0.25), (0.38 * size, 0.25 * size), patient.heart_angle, 1.0),
        ((-0.06, 0.27), (0.16 * size, 0.25 * size), 0.0, 1.0),
        ((0.09, -0.25), (patient.knob + 0.05, 0.11), 0.0, 1.0),
        ((0.10, -0.06), (0.13, 0.12), 0.0, 0.8),
    )
    for centre, axes, angle, weight in ellipses:
        distance = (1 - radius((u, v), centre, axes, angle)) * axes[1]
        gap *= 1 - weight * soft_step(distance, 1.6 * body.edge)
    return 1 - gap


def _lung(patient: Patient, body: Body, index: int) -> tuple[Field, Field]:
    """Return the lung as air and the rib cage around it, both 0 to 1."""
    side = SIDES[index]
    p, v = side * body.u, body.v
    width = patient.lung_width * (1 + side * patient.turn)
    t = (v - patient.apex) * (1 / 1.5)
    down = 1 - np.minimum(t, 1)
    dome = 1 - np.abs(down * down * down)
    half = np.sign(dome) * np.sqrt(np.abs(dome)) * (0.86 + 0.14 * np.clip(t, 0, 1)) * width
    middle = 0.27 + 0.14 * np.clip(t, 0, 1)
    wall = (half - np.abs(p - middle)).astype(np.float32)
    bend = np.abs(p - 0.36) * (1 / 0.47)
    floor = patient.domes[index] + patient.dome_depth * _curve(bend) - v
    inside = soft_step(wall, body.edge)
    above = soft_step(floor.astype(np.float32), body.edge)
    depth = 0.72 + 0.28 * np.clip(wall * 6, 0, 1)
    # Under the diaphragm bones drown in the dense organs in front of them.
    cage = soft_step(wall + 0.02, 2 * body.edge)
    return inside * above * depth, cage * (0.4 + 0.6 * above)


def _curve(x: Field) -> Field:
    """Return x to the power of 2.25 for x ≥ 0, by square roots."""
    return np.asarray(x * x * np.sqrt(np.sqrt(x)), dtype=np.float32)


def _ribs(patient: Patient, body: Body, index: int, inside: Field) -> Field:
    """Draw all ribs of a side at once: bands that repeat along a curved coordinate."""
    p = np.clip((SIDES[index] * 1.25) * body.u, 0, 1.2)
    back = body.v - patient.rib_slope * (_curve(p) - 0.45 * p)
    front = body.v + 0.62 * p - 0.25 * np.square(p)
    strength = patient.rib_jitter[index]
    shade = _bands(back, patient.rib_spacing, patient.rib_phase[index], strength, 0.30)
    fading = np.clip((p - 0.25) * 1.6, 0, 1)
    spacing, phase = patient.rib_spacing * 1.12, patient.rib_phase[index] + 0.37
    shade += fading * 0.55 * _bands(front, spacing, phase, strength[::-1], 0.36)
    return shade * inside * patient.ribs


def _bands(along: Field, spacing: float, phase: float, strength: Field, share: float) -> Field:
    place = along * (1 / spacing) + (phase + 16)
    rib = np.floor(place)
    off = np.abs(place - rib - 0.5) * 2
    band = soft_step(share - off, 0.05)
    # The dense outer layer of a rib shows as a brighter rim.
    rim = bump(off - share, 0.08)
    bands: Field = (band + 0.4 * rim) * np.take(strength, rib.astype(np.int64) % 32)
    return bands


def _vessels(patient: Patient, body: Body, index: int) -> Field:
    """Draw the root of the lung and the vessels that fan out of it and thin away."""
    side = SIDES[index]
    x = side * body.u - 0.15
    y = body.v - (0.0 if side > 0 else 0.04)
    far = np.sqrt(np.square(x) + np.square(y)) + 1e-3
    angle = angle_of(np.maximum(x, 0) + 0.01, y)
    shade = 0.9 * bump(far, 0.09)
    reach = exponential(far * (-1 / 0.22))
    across = np.zeros_like(far)
    for j in range(7):
        away = angle - (np.float32(0.45 * (j - 3)) + patient.vessel_angles[index, j])
        away -= far * patient.vessel_bends[index, j]
        across += bump(away * far, 0.016 + 0.4 * body.edge)
    vessels: Field = patient.vessels * (shade + 1.3 * across * reach)
    return vessels


def _clavicle(patient: Patient, body: Body, index: int) -> Field:
    """Draw a collar bone and the head of the upper arm beyond it."""
    side = SIDES[index]
    p = side * body.u
    slope = patient.clavicle_slope[index]
    line = patient.clavicle_height - slope * p + 0.05 * sine(p * (6.5 / (2 * np.pi)))
    half = 0.024 + 0.012 * np.square(p - 0.35)
    off = (body.v - line).astype(np.float32)
    ends = soft_step(p - 0.10, 0.015) * soft_step(0.86 - p, 0.03)
    bar = soft_step(half.astype(np.float32) - np.abs(off), 0.8 * body.edge)
    head = bump(radius((p, body.v), (0.98, -0.66), (1.0, 1.0), 0.0), 0.09)
    bones: Field = patient.bone * (bar * ends + 0.9 * head)
    return bones


def _axis(patient: Patient, body: Body) -> Field:
    """Draw the spine, and the windpipe in front of it."""
    u, v = body.u, body.v
    turns = v * (1 / 0.135) + (patient.spine_phase + 0.25)
    spine = bump(np.square(u * (1 / 0.085)), 1.0)
    spine *= 0.09 + 0.025 * sine(turns)
    pipe = bump(u - 0.7 * patient.turn, 0.03)
    pipe *= soft_step(-0.2 - v, 0.04)
    return spine - 0.15 * pipe


def _lower(patient: Patient, body: Body) -> Field:
    """Draw the breasts' soft shade and the bubble of gas under the right dome."""
    place, width, strength = patient.gas
    bubble = radius((body.u, body.v), (place, patient.domes[1] + 0.14), (width, 0.05), 0.0)
    shade = -strength * soft_step(1 - bubble, 0.15)
    if patient.breasts > 0:
        away = radius((np.abs(body.u), body.v), (0.45, 0.3), (0.33, 0.3), 0.0)
        shade += patient.breasts * soft_step(1 - away, 0.09)
    return shade
