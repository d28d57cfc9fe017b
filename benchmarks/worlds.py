"""Worlds whose truth is known: simulated studies in which seeds and images are crossed.

An image is right or wrong by a logit: images differ in difficulty, seeds in luck, and settings
respond differently to seeds and to images.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tuner.statistics.anova import Panel
from tuner.statistics.clusters import Clusters

Array = NDArray[np.float64]
EASE, DIFFICULTY, LUCK = 1.3, 1.5, 0.3
"""An image's logit: what is common, how images differ, how seeds differ."""
EACH = 5
"""Images of a patient on average."""


Sizes = Literal["none", "one", "equal", "unequal", "giant"]
"""Patients: not named, with one image each, with 5 each, with 1 to many, and one with a third."""


@dataclass(frozen=True)
class World:
    """How strongly settings respond to seeds and to images, on the logit."""

    name: str
    to_seeds: float
    to_images: float
    to_both: float
    wild: float = 1.0
    """How many times as strongly the first setting responds to seeds."""
    by_patient: float = 0.0
    """The share by patient of the images' variance, and of settings' responses to them."""
    sizes: Sizes = "none"
    """How many images each patient has."""


WORLDS = (
    World("seeds matter most", 0.4, 0.0, 0.3),
    World("settings prefer different images", 0.05, 1.0, 0.3),
    World("both", 0.25, 0.7, 0.5),
    World("neither: noise by image and seed", 0.0, 0.0, 1.0),
)
WILD = tuple(
    World(f"one setting scatters {times} times as much", 0.15, 0.3, 0.3, times) for times in (2, 4)
)

PATIENTS = tuple(
    World(f"{what}, {sizes} sizes", to_seeds, to_images, 0.3, by_patient=share, sizes=sizes)
    for sizes in ("equal", "unequal")
    for what, to_seeds, to_images, share in (
        ("settings prefer patients", 0.05, 1.0, 1.0),
        ("settings prefer images", 0.05, 1.0, 0.0),
        ("settings prefer both", 0.25, 0.7, 0.5),
    )
)
GIANT = World("one patient has a third", 0.05, 1.0, 0.3, by_patient=1.0, sizes="giant")
PAIRS = tuple(
    World(f"networks prefer {what}, {sizes} sizes", 0, 0, 0, by_patient=share, sizes=sizes)
    for sizes in ("one", "equal", "unequal", "giant")
    for what, share in (("patients", 1.0), ("images", 0.0), ("both", 0.5))
    if sizes != "one" or what == "images"
)


@dataclass(frozen=True)
class Shape:
    """A study's size, and by how much its last setting is worse."""

    world: World
    settings: int
    seeds: int
    images: int
    planted: float = 0.0
    behind: int = 1
    """How many settings, the last ones, are worse."""
    evened: bool = False
    """Whether a setting with a larger variance is made as accurate as the others."""


def people(sizes: Sizes, images: int, chance: np.random.Generator) -> Clusters | None:
    """Draw which patient each image is of."""
    if sizes == "none":
        return None
    if sizes == "one":
        return Clusters(np.arange(images))
    count = images // EACH
    if sizes == "equal":
        return Clusters(np.arange(images) % count)
    weights = chance.lognormal(0.0, 1.0, count)
    if sizes == "giant":
        weights = np.ones(count)
        weights[0] = (count - 1) / 2
    more = chance.choice(count, images - count, p=weights / weights.sum())
    return Clusters(np.concatenate([np.arange(count), more]))


def draw(shape: Shape, chance: np.random.Generator, *, by_patient: bool = True) -> Panel:
    """Draw one study's hits and misses, by patient where the world has any."""
    world, settings = shape.world, shape.settings
    seeds, images = shape.seeds, shape.images
    of = people(world.sizes, images, chance)

    def by_image(levels: int) -> Array:
        """Draw effects of images for this many levels, correlated within a patient."""
        own = chance.standard_normal((levels, 1, images))
        if of is None or not world.by_patient:
            return own
        shared = chance.standard_normal((levels, 1, of.patients))[..., of.of_image]
        return np.asarray(world.by_patient**0.5 * shared + (1 - world.by_patient) ** 0.5 * own)

    logits = EASE + DIFFICULTY * by_image(1)
    logits = logits + LUCK * chance.standard_normal((1, seeds, 1))
    scale = np.full((settings, 1, 1), world.to_seeds)
    scale[0] *= world.wild
    logits = logits + scale * chance.standard_normal((settings, seeds, 1))
    logits = logits + world.to_images * by_image(settings)
    logits = logits + world.to_both * chance.standard_normal((settings, seeds, images))
    if shape.evened and world.wild != 1:
        logits[0] += _lift(spread(world, 0), spread(world))
    if shape.planted:
        logits[-shape.behind :] += _shift(spread(world), shape.planted)
    hits = chance.random(logits.shape) < expit(logits)
    values = hits.astype(np.float64)
    if of is None or not by_patient:
        return Panel((values,))
    return Panel((of.linearise(values),), clusters=(of,))


def spread(world: World, setting: int = 1) -> float:
    """Return the standard deviation of a setting's logits over images and seeds."""
    to_seeds = world.to_seeds * (world.wild if setting == 0 else 1.0)
    return float(
        np.sqrt(DIFFICULTY**2 + LUCK**2 + to_seeds**2 + world.to_images**2 + world.to_both**2)
    )


def accuracy(scatter: float, shift: float = 0.0) -> float:
    """Return the true accuracy of logits of this spread (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float((weights * expit(EASE + shift + scatter * nodes)).sum() / weights.sum())


@cache
def _shift(scatter: float, worse: float) -> float:
    """Return the logit shift that lowers a setting's accuracy by this much."""
    low, high = -8.0, 0.0
    wanted = accuracy(scatter) - worse
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy(scatter, middle) < wanted else (low, middle)
    return low


@cache
def _lift(scatter: float, usual: float) -> float:
    """Return the logit shift that makes a setting of this spread as accurate as the usual one."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy(scatter, middle) < accuracy(usual) else (low, middle)
    return low
