"""Selection bias: the best of many measured trials looks better than its setting really is.

Estimated by a parametric bootstrap over empirical-Bayes estimates of the settings' means: settings
are shrunk towards their common mean, seeds' residuals and resampled images are added, the best
trial is picked, and its excess over its setting's mean is averaged (compare Efron, 2011, on
Tweedie's formula and selection bias).

Settings that are clearly worse than the best and scatter far more over images take no part: they
learned nothing, could not have been picked, and would lend their scatter to all others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]
DRAWS = 1000
SEED = 20_012
CLEARLY = 4.0
"""How many standard errors behind the best a setting is clearly worse."""
WILDLY = 9.0
"""How many times the typical variance of a difference over images is far more."""
MOST = 300
"""How many of the best trials are resampled; the others would never be picked."""


@dataclass(frozen=True)
class SelectionBias:
    """By how much the best trial's figure overstates its setting."""

    value: float
    """In the figure's unit; positive if the figure looks better than the setting is."""
    over_seeds: bool
    """Whether the variation between seeds is included; it needs a second seed of some setting."""
    trials: int
    """The number of trials that the best was picked from."""
    settings: int = 0
    """The number of settings that the best was picked from by its mean over seeds; 0 if a trial
    was picked."""


@dataclass(frozen=True)
class Candidates:
    """All trials that the best was picked from, and the values by image of the best of them."""

    means: Array
    """One figure per trial."""
    settings: Places
    """Which trials are seeds of the same setting: a number from 0 for each trial."""
    best: Places
    """Trials with values by image, including the best one."""
    values: Array
    """Their values, one row per trial and one column per image."""


def selection_bias(candidates: Candidates, *, larger: bool) -> SelectionBias | None:
    """Estimate the bias by picking the best of simulated studies.

    A simulated study has the settings' means, shrunk towards their common mean
    (empirical Bayes); a seed residual resampled from this study's trials is added
    to each, and the images are resampled. The bias is the picked trial's excess
    over the shrunken mean of its setting.
    """
    if len(candidates.means) < 2:
        return None
    trials = len(candidates.means)
    sign = 1.0 if larger else -1.0
    candidates, residuals = _plausible(candidates, sign)
    near, of = np.unique(candidates.settings[candidates.best], return_inverse=True)
    by_image = _by_image(sign * candidates.values, of)
    truths = _shrunken(sign * candidates.means, candidates.settings, residuals, _noise(by_image))[
        near
    ]
    order = np.argsort(-sign * candidates.means[candidates.best], kind="stable")[:MOST]
    generator = np.random.default_rng(SEED)
    # The seed × image interaction is in the seeds' residuals already.
    shown = truths[of[order]] + _image_shifts(by_image, generator)[:, of[order]]
    if residuals is not None:
        shown = shown + generator.choice(residuals, shown.shape)
    picked = shown.argmax(axis=1)
    flattered = shown[np.arange(DRAWS), picked] - truths[of[order]][picked]
    # A trial far ahead of the others has no bias, but random draws might make it negative.
    return SelectionBias(max(0.0, float(flattered.mean())), residuals is not None, trials)


def selection_bias_of_mean(candidates: Candidates, *, larger: bool) -> SelectionBias | None:
    """Estimate the bias by picking the best setting by its mean over seeds, as `selection_bias`.

    A simulated setting has as many residuals as it has seeds, and their mean is added to its own.
    """
    trials, settings = len(candidates.means), len(np.unique(candidates.settings))
    if settings < 2:
        return None
    sign = 1.0 if larger else -1.0
    candidates, residuals = _plausible(candidates, sign)
    sizes, means = np.bincount(candidates.settings), sign * candidates.means
    near, of = np.unique(candidates.settings[candidates.best], return_inverse=True)
    by_image = _by_image(sign * candidates.values, of)
    truths = _shrunken(means, candidates.settings, residuals, _noise(by_image))[near]
    generator = np.random.default_rng(SEED)
    shown = truths + _image_shifts(by_image, generator)
    if residuals is not None:
        for place, setting in enumerate(near):
            drawn = generator.choice(residuals, (DRAWS, sizes[setting])).mean(axis=1)
            shown[:, place] += drawn - drawn.mean()
    picked = shown.argmax(axis=1)
    flattered = shown[np.arange(DRAWS), picked] - truths[picked]
    # As above: of a setting far ahead, random draws might make it negative.
    return SelectionBias(max(0.0, float(flattered.mean())), residuals is not None, trials, settings)


def _plausible(candidates: Candidates, sign: float) -> tuple[Candidates, Array | None]:
    """Return the candidates without settings that learned nothing, and the seeds' residuals.

    A difference from the best setting has a standard error over images, which both share, and over
    seeds; it is that of a typical setting. The residuals are of the settings returned, or if each
    of them has one seed only, of all.
    """
    means, of = sign * candidates.means, candidates.settings
    residuals = _residuals(means, of)
    near, of_near = np.unique(of[candidates.best], return_inverse=True)
    by_image = _by_image(sign * candidates.values, of_near)
    if len(near) < 2 or by_image.shape[1] < 2:
        return candidates, residuals
    sizes = np.bincount(of)
    centres = np.bincount(of, weights=means) / sizes
    best = centres[near].argmax()
    apart = (by_image[best] - by_image).var(axis=1, ddof=1) / by_image.shape[1]
    if not (apart > 0).any():
        return candidates, residuals
    typical = np.median(apart[apart > 0])  # networks that predict the same say nothing of it
    variance = np.full(len(near), typical)
    if residuals is not None:
        variance += residuals.var() * (1 / sizes[near] + 1 / sizes[near[best]])
    worse = centres[near[best]] - centres[near] > CLEARLY * np.sqrt(variance)
    wild = near[worse & (apart > WILDLY * typical)]
    kept = ~np.isin(of, wild) | (of == of[means.argmax()])  # a lucky seed of a bad one was picked
    among = kept[candidates.best]
    plausible = Candidates(
        candidates.means[kept],
        np.unique(of[kept], return_inverse=True)[1],
        (kept.cumsum() - 1)[candidates.best[among]],
        candidates.values[among],
    )
    own = _residuals(means[kept], plausible.settings)
    return plausible, residuals if own is None else own


def _residuals(means: Array, of: Places) -> Array | None:
    """Return the seeds' residuals, over all settings with several seeds."""
    sizes = np.bincount(of)
    centres = np.bincount(of, weights=means) / sizes
    many = sizes[of] > 1
    if not many.any():
        return None
    # Residuals from a mean of n seeds are too small by the factor sqrt((n - 1) / n).
    spread = np.sqrt(sizes[of] / np.maximum(sizes[of] - 1, 1))
    return np.asarray(((means - centres[of]) * spread)[many])


def _by_image(values: Array, of: Places) -> Array:
    """Return each setting's mean over its seeds, image by image."""
    sums = np.zeros((of.max() + 1, values.shape[1]))
    np.add.at(sums, of, values)
    return np.asarray(sums / np.bincount(of)[:, None])


def _noise(by_image: Array) -> float:
    """Return the variance of a setting's mean from the setting × image interaction."""
    count, images = by_image.shape
    if count < 2 or images < 2:
        return 0.0
    apart = by_image - by_image.mean(axis=0) - by_image.mean(axis=1, keepdims=True)
    apart = apart + by_image.mean()
    return float((apart**2).sum() / ((count - 1) * (images - 1)) / images)


def _shrunken(means: Array, of: Places, residuals: Array | None, noise: float) -> Array:
    """Return the settings' means, shrunk towards their common mean (empirical Bayes)."""
    sizes = np.bincount(of)
    centres = np.bincount(of, weights=means) / sizes
    if len(centres) < 2:
        return np.asarray(centres)
    if residuals is not None:
        noise = noise + float(residuals.var()) * float((1 / sizes).mean())
    seen = float(centres.var(ddof=1))
    kept = max(0.0, 1 - noise / seen) if seen > 0 else 0.0
    return np.asarray(centres.mean() + kept * (centres - centres.mean()))


def _image_shifts(by_image: Array, generator: np.random.Generator) -> Array:
    """Return how far each setting's mean moves in each bootstrap sample of the images."""
    settings, images = by_image.shape
    moved = np.empty((DRAWS, settings))
    step = max(1, 4_000_000 // images)
    for start in range(0, DRAWS, step):
        stop = min(DRAWS, start + step)
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=stop - start)
        moved[start:stop] = (drawn - 1.0) @ by_image.T / images
    # Exactly 0 on average, so that a setting that is always picked has no bias.
    return np.asarray(moved - moved.mean(axis=0))
