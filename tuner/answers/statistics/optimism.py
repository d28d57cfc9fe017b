"""How much of the winner's figure is luck: of having been picked among many for that figure."""

from collections.abc import Sequence
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


def optimism(values: Array, settings: Sequence[int], *, larger: bool) -> Optimism | None:
    """Pick winners in studies made up of this one's settings, seeds and images.

    `values` has a row a trial and a column an image; `settings` says which
    trials are seeds of the same setting. A made-up study has the settings'
    means, drawn together by as much as chance has spread them; each trial has
    the luck of some trial's seed, and the images are drawn anew. What the
    picked trial then shows above its setting's mean is luck.
    """
    count = len(values)
    if count < 2:
        return None
    signed = values if larger else -values
    of = np.unique(np.asarray(settings), return_inverse=True)[1]
    by_image = _by_image(signed, of)
    luck = _luck(signed.mean(axis=1), of)
    truths = _shrunken(by_image, np.bincount(of), luck)
    best = np.argsort(-signed.mean(axis=1), kind="stable")[:MOST]
    chance = np.random.default_rng(SEED)
    # What seed and image make together is in the seeds' luck already.
    shown = truths[of[best]] + _image_luck(by_image, chance)[:, of[best]]
    if luck is not None:
        shown = shown + chance.choice(luck, shown.shape)
    picked = shown.argmax(axis=1)
    flattered = shown[np.arange(DRAWS), picked] - truths[of[best]][picked]
    return Optimism(float(flattered.mean()), luck is not None, count)


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


def _shrunken(by_image: Array, sizes: Places, luck: Array | None) -> Array:
    """Return the settings' means, as near to their common mean as their own noise suggests."""
    means = by_image.mean(axis=1)
    count, images = by_image.shape
    if count < 2:
        return np.asarray(means)
    common = float(means.mean())
    apart = by_image - by_image.mean(axis=0) - (means - means.mean())[:, None]
    noise = float((apart**2).sum()) / ((count - 1) * max(images - 1, 1)) / images
    if luck is not None:
        noise += float(luck.var()) * float((1 / sizes).mean())
    seen = float(means.var(ddof=1))
    kept = max(0.0, 1 - noise / seen) if seen > 0 else 0.0
    return np.asarray(common + kept * (means - common))


def _image_luck(values: Array, chance: np.random.Generator) -> Array:
    """Return how each trial's mean moves on each draw of the images."""
    images = values.shape[1]
    weights = chance.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images
    return np.asarray((weights - 1 / images) @ values.T)
