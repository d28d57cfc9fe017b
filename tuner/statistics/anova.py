"""Two-way analysis of variance: settings measured with several seeds on the same images.

A panel has a value for each level, seed and image. Seeds and images are crossed random effects:
the variance of a level's mean has a component from seeds, one from images and one from their
interaction, each estimated from the panel's own two-way tables (Cornfield and Tukey, 1956). A
verdict therefore holds for seeds and images like these, not for these alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.clusters import Clusters
from tuner.statistics.variance import CONFIDENCE, Interval, Spread, around, fraction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Values by level, seed and image; a level's mean is the sum of its blocks' means.

    A figure of one split has one block. A gap has two: the validation values, and
    the negated test values. A figure without images has a block of width 1.
    If the data name patients, the values are by patient (`Clusters.linearise`).
    """

    blocks: tuple[Array, ...]
    counts_images: bool = True
    """Whether a value is a share of images, so that one image's variance is a lower bound."""
    own_images: int = 0
    """If values are shares of images already: how many separate images (or patients) each seed
    has."""
    clusters: tuple[Clusters, ...] = ()
    """For each block its patients; empty if values are by image."""

    @cached_property
    def by_seed(self) -> Array:
        """The means by level and seed."""
        return np.asarray(sum(block.mean(axis=2) for block in self.blocks))

    @property
    def means(self) -> Array:
        """The mean of each level."""
        return np.asarray(self.by_seed.mean(axis=1))

    @property
    def seeds(self) -> int:
        """How many seeds every level has."""
        return int(self.blocks[0].shape[1])

    @property
    def images(self) -> int:
        """How many images the means are over; 0 for a figure without images."""
        if self.clusters:
            return sum(clusters.images for clusters in self.clusters)
        return sum(block.shape[2] for block in self.blocks if block.shape[2] > 1)

    @property
    def patients(self) -> int:
        """How many patients the images are from; 0 if the data name none."""
        return sum(clusters.patients for clusters in self.clusters)

    @property
    def units(self) -> int:
        """How many patients (or images, if none are named) the means are over."""
        return self.patients or self.images

    def take(self, levels: Sequence[int]) -> "Panel":
        """Return the panel of some levels."""
        return replace(self, blocks=tuple(block[list(levels)] for block in self.blocks))

    @property
    def grain(self) -> float:
        """The resolution of the measurement: the variance due to one image more or less."""
        # The variance of a single patient cannot be estimated.
        alone = float(sum(clusters.patients == 1 < clusters.images for clusters in self.clusters))
        if not self.counts_images:
            return alone
        if self.clusters:
            return alone + sum(1.0 / clusters.images**2 for clusters in self.clusters)
        widths = [float(block.shape[2]) for block in self.blocks if block.shape[2] > 1]
        return float(sum(width**-2.0 for width in widths))

    def difference(self, one: int, other: int) -> "LevelDifference":
        """Return the difference of two levels with its spread.

        The spread is the wider of the estimate pooled over all levels and the estimate from
        these two: pooling gains degrees of freedom if variances are equal, but must not hide
        a level with a larger variance.
        """
        parts = replace(
            self.parts((one, other)),
            freedom=self.pooled.freedom,
            image_freedom=self.pooled.image_freedom,
        )
        spread = self.pooled.spread().or_wider(parts.spread())
        if self.alone:
            spread = Spread.unknown()
        value = float(self.means[one] - self.means[other])
        return LevelDifference(
            value, spread.plus(self.grain).at_least(self._least(value)), self.seeds
        )

    def _least(self, difference: float) -> float:
        """Return the lower bound of the variance of a difference of shares of separate images.

        Shares are discrete: a few seeds often differ by exactly the same amount, which
        looks like zero variance. At least the share `difference` of the paired images is
        right under one level only, and these images alone cause this variance.
        """
        if not self.own_images:
            return 0.0
        apart = min(1.0, abs(difference))
        return (apart - apart**2) / (self.own_images * self.seeds)

    def mean(self, level: int) -> Interval:
        """Return a level's mean with the interval over its seeds and its images."""
        value, spread = float(self.means[level]), self.spread(level)
        if self.counts_images and len(self.blocks) == 1 and self.images:
            images = self.clusters[0].effective if self.clusters else self.images
            return fraction(value, spread, images)
        return around(value, spread.plus(self.grain))

    def spread(self, level: int) -> Spread:
        """Return the spread of a level's mean, over its seeds and its images."""
        if self.alone:
            return Spread.unknown()
        return _parts([block[[level]] for block in self.blocks], self._freedoms).spread()

    @property
    def alone(self) -> bool:
        """Whether there is one value per level, so that nothing shows how much it varies."""
        return self.seeds < 2 and not self.images

    @property
    def _freedoms(self) -> list[float]:
        """The degrees of freedom of each block's variance over patients; 0 means known."""
        return [clusters.freedom for clusters in self.clusters] or [0.0] * len(self.blocks)

    @cached_property
    def pooled(self) -> "VarianceComponents":
        """The variance components of a difference, pooled over all levels."""
        return self.parts(range(len(self.means)))

    def parts(self, levels: Sequence[int]) -> "VarianceComponents":
        """Return the variance components of a difference, estimated from these levels."""
        chosen = [block[list(levels)] for block in self.blocks]
        among = len(chosen[0])
        deviations = [block - block.mean(axis=0) for block in chosen]
        # The deviations of K levels from their mean have K - 1 of K degrees of freedom, and a
        # difference has twice the variance of a level.
        return _parts(deviations, self._freedoms, share=(among - 1) / among).times(2.0)


@dataclass(frozen=True)
class LevelDifference:
    """A difference of two means and its spread."""

    value: float
    spread: Spread
    seeds: int

    def p_value(self, levels: int = 2) -> float:
        """Return the p value: how often equal levels would differ by this much."""
        return self.spread.p_value(self.value, levels)

    def interval(self, levels: int = 2, confidence: float = CONFIDENCE) -> Interval:
        """Return the confidence interval, simultaneous for all differences of this many levels."""
        return around(self.value, self.spread, levels, confidence)


@dataclass(frozen=True)
class VarianceComponents:
    """The variance of a mean by its source: seeds, images, and their interaction."""

    by_seed: float
    """Variance of the mean from its seeds, including the interaction."""
    freedom: int
    by_image: float
    """Variance from the images alone; may be negative, because it is a difference."""
    rest: float
    """The interaction of seeds and images, with the residual."""
    image_freedom: float = 0.0
    """Degrees of freedom of the images' component if images are clustered by patient, else 0."""

    def times(self, factor: float) -> "VarianceComponents":
        """Return the components, each multiplied by a factor."""
        return replace(
            self,
            by_seed=self.by_seed * factor,
            by_image=self.by_image * factor,
            rest=self.rest * factor,
        )

    def spread(self) -> Spread:
        """Return the spread of the mean that the components add up to."""
        return Spread.of(self.by_seed, self.freedom, self.by_image, self.rest, self.image_freedom)


def _parts(
    blocks: Sequence[Array], freedoms: Sequence[float], share: float = 1.0
) -> VarianceComponents:
    """Estimate the variance components of a level's mean; `share` of the deviations are free."""
    levels, seeds, _ = blocks[0].shape
    free = levels * share
    by_seed = np.asarray(sum(block.mean(axis=2) for block in blocks))
    by_image = rest = squares = 0.0
    for block, of_patients in zip(blocks, freedoms, strict=True):
        image, left = _image_parts(block, free)
        by_image += image
        rest += left
        squares += image**2 / of_patients if of_patients else 0.0
    # Degrees of freedom over blocks by Welch and Satterthwaite; levels are pooled, as for seeds.
    image_freedom = max(1.0, max(1.0, free) * by_image**2 / squares) if squares else 0.0
    if seeds == 1:
        # With one seed the variance between seeds is unknown, so only images are covered.
        return VarianceComponents(0.0, 0, by_image, 0.0, image_freedom)
    deviations = by_seed - by_seed.mean(axis=1, keepdims=True)
    freedom = max(1, round(free * (seeds - 1)))
    by_seed_part = float((deviations**2).sum()) / freedom / seeds
    return VarianceComponents(by_seed_part, freedom, by_image - rest, rest, image_freedom)


def _image_parts(block: Array, free: float) -> tuple[float, float]:
    """Return the variance of the mean from images, and its interaction part."""
    _, seeds, images = block.shape
    if images == 1:
        return 0.0, 0.0
    mean = block.mean(axis=(1, 2), keepdims=True)
    image = block.mean(axis=1, keepdims=True)
    by_image = float(((image - mean) ** 2).sum()) / (free * (images - 1)) / images
    if seeds == 1:
        return by_image, 0.0
    seed = block.mean(axis=2, keepdims=True)
    left = block - seed - image + mean
    free_left = free * (seeds - 1) * (images - 1)
    return by_image, float((left**2).sum()) / free_left / (seeds * images)
