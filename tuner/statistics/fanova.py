"""Functional ANOVA of a full grid: how much of the variance each parameter and pair explains.

The decomposition is exact; the noise of seeds and images is subtracted from each component.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.ordering import precedence
from tuner.statistics.variance import CONFIDENCE, Interval

Array = NDArray[np.float64]
Places = NDArray[np.int64]
DRAWS = 400
SEED = 20_013


@dataclass(frozen=True)
class Shares:
    """Shares of the variance over settings, in the order of `terms`; they add up to 1."""

    terms: tuple[tuple[int, ...], ...]
    """The main effects, then the two-way interactions, then () for all higher ones."""
    shares: tuple[Interval, ...]
    ahead: tuple[tuple[int, int], ...]
    """Pairs of parameters of which the first explains significantly more variance."""
    spread: float
    """The standard deviation over settings after subtracting noise; 0 if only noise is left."""


def decompose(values: Array, levels: Places, draws: Array | None = None) -> Shares:
    """Return the shares of a full grid: `values` by setting and seed, `levels` by setting.

    Studies are resampled from this one: seeds' noise from the residuals, and the images
    too if `draws` has each trial's figure on resampled images (draw, setting, seed). The
    noise of a draw inflates a variance by as much as the study's own noise did, so that
    amount is subtracted.
    """
    terms = _terms(levels.shape[1])
    # Which settings share a term's levels is the same in every draw, so sort only once.
    groups = {term: _Groups.of(levels[:, list(term)]) for term in terms if term}
    seen = _variances(values.mean(axis=1), groups)
    again = np.array([_variances(one, groups) for one in _drawn(values, draws)])
    if not len(again):
        return _unsure(terms, seen)
    corrected = 2 * seen - again
    total = np.maximum(corrected.mean(axis=0), 0).sum()
    spread = float(np.sqrt(max(total, 0.0)))
    if total <= 0:
        intervals = tuple(Interval(0.0, 0.0, 1.0) for _ in terms)
        return Shares(terms, intervals, (), 0.0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(corrected, (tail, 1 - tail), axis=0)
    value = np.maximum(corrected.mean(axis=0), 0)
    shares = tuple(
        Interval(float(v / total), float(max(0, a) / total), float(min(1, max(0, b) / total)))
        for v, a, b in zip(value, low, high, strict=True)
    )
    return Shares(terms, shares, precedence(corrected[:, : levels.shape[1]]), spread)


def _unsure(terms: tuple[tuple[int, ...], ...], seen: Array) -> Shares:
    """Return the plain shares, without intervals, because their uncertainty is unknown."""
    total = float(seen.sum()) or 1.0
    shares = tuple(Interval(float(one) / total, 0.0, 1.0) for one in seen)
    return Shares(terms, shares, (), float(np.sqrt(seen.sum())))


def _terms(parameters: int) -> tuple[tuple[int, ...], ...]:
    alone = [(one,) for one in range(parameters)]
    return (*alone, *combinations(range(parameters), 2), ())


@dataclass(frozen=True)
class _Groups:
    """Groups of settings with the same levels of some parameters."""

    of_setting: Places
    sizes: Places

    @staticmethod
    def of(levels: Places) -> "_Groups":
        _, places = np.unique(levels, axis=0, return_inverse=True)
        places = places.reshape(-1)
        return _Groups(places, np.bincount(places))

    def means(self, values: Array) -> Array:
        """Return for each setting the mean over all settings with the same levels."""
        sums = np.bincount(self.of_setting, weights=values)
        return np.asarray((sums / self.sizes)[self.of_setting])


def _variances(means: Array, groups: Mapping[tuple[int, ...], _Groups]) -> Array:
    """Return each term's variance over all settings of the grid, the remainder last."""
    centred = means - means.mean()
    effects: dict[tuple[int, ...], Array] = {}
    for term, group in groups.items():
        effect = group.means(centred)
        for part in term if len(term) > 1 else ():
            effect = effect - effects[part,]
        effects[term] = effect
    rest = centred - sum(effects.values())
    return np.array([float((one**2).mean()) for one in (*effects.values(), rest)])


def _drawn(values: Array, draws: Array | None) -> list[Array]:
    """Return the settings' means in resampled studies."""
    generator = np.random.default_rng(SEED)
    settings, seeds = values.shape
    means = values.mean(axis=1)
    if seeds < 2 and draws is None:
        return []
    moved = np.zeros((DRAWS, settings))
    if draws is not None:
        moved += draws.mean(axis=2) - means
    if seeds > 1:
        # Remove the seeds' main effect: it shifts all settings alike.
        left = values - means[:, None] - values.mean(axis=0) + means.mean()
        left = left * np.sqrt(seeds / (seeds - 1) * settings / max(1, settings - 1))
        moved += generator.choice(left.ravel(), (DRAWS, settings, seeds)).mean(axis=2)
    return [means + one for one in moved]
