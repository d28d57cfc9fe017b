"""The X-ray machine: from attenuation to grey values, and how machines differ.

At shift 0 every picture is taken on the machine of the training images; at shift 1 on a mobile one:
manual exposure, no anti-scatter grid, a flatter film curve, a larger focal spot, more noise, and a
patient closer to the tube.
"""

from dataclasses import dataclass

import numpy as np

from .phantom_arithmetic import Draws, exponential, logarithm
from .phantom_field import Field, Frame, blurred, frame_of, smoothed


@dataclass(frozen=True)
class Knob:
    """A number of a machine: its mean and spread on the fixed and on the mobile machine."""

    mean: tuple[float, float]
    spread: tuple[float, float]

    def at(self, shift: float, draw: float) -> float:
        """Return the number for one picture, given a standard normal draw."""
        mean = self.mean[0] + shift * (self.mean[1] - self.mean[0])
        spread = self.spread[0] + shift * (self.spread[1] - self.spread[0])
        return mean + spread * draw


# In units of attenuation, of half the picture's width, or shares of the whole; the mobile
# machine's numbers are chosen for the gap that docs/phantom.md measures.
EXPOSURE = Knob((0.0, 0.0), (0.04, 0.20))
LATITUDE = Knob((0.25, 0.28), (0.006, 0.025))
PENETRATION = Knob((1.0, 0.9), (0.02, 0.03))
SCATTER = Knob((0.04, 0.11), (0.01, 0.03))
HEEL_X = Knob((0.0, 0.04), (0.01, 0.09))
HEEL_Y = Knob((0.0, 0.06), (0.01, 0.08))
FOCUS = Knob((0.0045, 0.011), (0.0004, 0.001))
EDGE_GAIN = Knob((0.25, 0.6), (0.05, 0.1))
NOISE = Knob((0.02, 0.04), (0.002, 0.006))
MAGNIFICATION = Knob((1.0, 1.06), (0.01, 0.025))
DECENTRE_X = Knob((0.0, 0.02), (0.01, 0.035))
DECENTRE_Y = Knob((0.0, 0.02), (0.01, 0.04))


@dataclass(frozen=True)
class XrayMachine:
    """The settings under which one picture is taken."""

    exposure: float
    latitude: float
    penetration: float
    scatter: float
    heel: tuple[float, float]
    focus: float
    edge_gain: float
    noise: float
    magnification: float
    decentre: tuple[float, float]

    def frame(self, size: int) -> Frame:
        """Return where this machine's pixels lie in the patient."""
        return frame_of(size, self.magnification, *self.decentre)


def draw_machine(draws: Draws, shift: float) -> XrayMachine:
    """Draw one picture's settings; the same draws serve every shift."""
    draw = np.clip(draws.normals(12), -2.5, 2.5).tolist()
    return XrayMachine(
        exposure=EXPOSURE.at(shift, draw[0]),
        latitude=LATITUDE.at(shift, draw[1]),
        penetration=PENETRATION.at(shift, draw[2]),
        scatter=SCATTER.at(shift, draw[3]),
        heel=(HEEL_X.at(shift, draw[4]), HEEL_Y.at(shift, draw[5])),
        focus=FOCUS.at(shift, draw[6]),
        edge_gain=EDGE_GAIN.at(shift, draw[7]),
        noise=NOISE.at(shift, draw[8]),
        magnification=MAGNIFICATION.at(shift, draw[9]),
        decentre=(DECENTRE_X.at(shift, draw[10]), DECENTRE_Y.at(shift, draw[11])),
    )


def expose(attenuation: Field, machine: XrayMachine, frame: Frame, draws: Draws) -> Field:
    """Take the picture: rays, scatter, blur, quantum noise, film curve, edge enhancement."""
    size = attenuation.shape[0]
    rays = exponential(attenuation * (-2 * machine.penetration))
    # The focal spot blurs by a share of the picture that is independent of its size in pixels.
    rays = blurred(rays, machine.focus * size)
    # Summed as integers, whose sum is the same in any order.
    mean = int((rays * 2**20).astype(np.int64).sum()) / (2**20 * rays.size)
    veil = machine.scatter
    rays = rays * (1 - veil) + veil * mean
    # A pixel of a small picture gathers the photons of many small pixels.
    grain = machine.noise * size / 256
    noise = draws.normals(*rays.shape)
    dense = logarithm(rays) * -0.5 + grain * noise / np.sqrt(rays) * 0.5
    heel = frame.x * machine.heel[0] + (frame.y * machine.heel[1])[:, None]
    film = (dense + heel - (0.66 + machine.exposure)) * (0.5 / machine.latitude)
    grey: Field = 1 / (1 + exponential(np.clip(film, -8, 8) * -2))
    reach = max(1, int(0.025 * size))
    soft = smoothed(grey, [1 / (2 * reach + 1)] * (reach + 1))
    return grey + machine.edge_gain * (grey - soft)
