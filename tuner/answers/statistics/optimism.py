"""How much of the winner's figure is luck: of having been picked among many for that figure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]
DRAWS = 1000
SEED = 20_012
MOST = 300
"""Trials, the best ones, that are resampled; those behind them are never picked."""


@dataclass(frozen=True)
class Optimism:
    """By how much the winner's figure flatters its setting."""

    value: float
    """In the figure's own unit, positive where the figure looks better than the setting is."""
    over_seeds: bool
    """Whether seeds' luck is in it; without a second seed of any setting only images' is."""
    trials: int
    """Among how many trials the winner was picked."""


@dataclass(frozen=True)
class Tried:
    """All trials that a winner was picked among, and the images of the best of them."""

    means: Array
    """One figure a trial."""
    settings: Places
    """Which trials are seeds of the same setting: a number from 0 for each trial."""
    best: Places
    """Trials whose images are known, the best among them."""
    values: Array
    """Their values, a row a trial and a column an image."""


def optimism(tried: Tried, *, larger: bool) -> Optimism | None:
    """Pick winners in studies made up of this one's settings, seeds and images.

    A made-up study has the settings' means, drawn together by as much as chance
    has spread them; each trial has the luck of some trial's seed, and the
    images are drawn anew. What the picked trial then shows above its setting's
    mean is luck.
    """
    if len(tried.means) < 2:
        return None
    sign = 1.0 if larger else -1.0
    luck = _luck(sign * tried.means, tried.settings)
    near, of = np.unique(tried.settings[tried.best], return_inverse=True)
    by_image = _by_image(sign * tried.values, of)
    truths = _shrunken(sign * tried.means, tried.settings, luck, _noise(by_image))[near]
    order = np.argsort(-sign * tried.means[tried.best], kind="stable")[:MOST]
    chance = np.random.default_rng(SEED)
    # What seed and image make together is in the seeds' luck already.
    shown = truths[of[order]] + _image_luck(by_image, chance)[:, of[order]]
    if luck is not None:
        shown = shown + chance.choice(luck, shown.shape)
    picked = shown.argmax(axis=1)
    flattered = shown[np.arange(DRAWS), picked] - truths[of[order]][picked]
    return Optimism(float(flattered.mean()), luck is not None, len(tried.means))


def _luck(means: Array, of: Places) -> Array | None:
    """Return how far trials lie from their setting's mean, over all settings with seeds."""
    sizes = np.bincount(of)
    centres = np.bincount(of, weights=means) / sizes
    many = sizes[of] > 1
    if not many.any():
        return None
    # Few seeds lie nearer to their own mean than to the truth.
    spread = np.sqrt(sizes[of] / np.maximum(sizes[of] - 1, 1))
    return np.asarray(((means - centres[of]) * spread)[many])


def _by_image(values: Array, of: Places) -> Array:
    """Return each setting's mean over its seeds, image by image."""
    sums = np.zeros((of.max() + 1, values.shape[1]))
    np.add.at(sums, of, values)
    return np.asarray(sums / np.bincount(of)[:, None])


def _noise(by_image: Array) -> float:
    """Return the variance of a setting's mean from its liking for these images."""
    count, images = by_image.shape
    if count < 2 or images < 2:
        return 0.0
    apart = by_image - by_image.mean(axis=0) - by_image.mean(axis=1, keepdims=True)
    apart = apart + by_image.mean()
    return float((apart**2).sum() / ((count - 1) * (images - 1)) / images)


def _shrunken(means: Array, of: Places, luck: Array | None, noise: float) -> Array:
    """Return the settings' means, as near to their common mean as their own noise suggests."""
    sizes = np.bincount(of)
    centres = np.bincount(of, weights=means) / sizes
    if len(centres) < 2:
        return np.asarray(centres)
    if luck is not None:
        noise = noise + float(luck.var()) * float((1 / sizes).mean())
    seen = float(centres.var(ddof=1))
    kept = max(0.0, 1 - noise / seen) if seen > 0 else 0.0
    return np.asarray(centres.mean() + kept * (centres - centres.mean()))


def _image_luck(by_image: Array, chance: np.random.Generator) -> Array:
    """Return how each setting's mean moves on each draw of the images, a few draws at a time."""
    settings, images = by_image.shape
    moved = np.empty((DRAWS, settings))
    step = max(1, 4_000_000 // images)
    for start in range(0, DRAWS, step):
        stop = min(DRAWS, start + step)
        drawn = chance.multinomial(images, np.full(images, 1 / images), size=stop - start)
        moved[start:stop] = (drawn - 1.0) @ by_image.T / images
    return moved
