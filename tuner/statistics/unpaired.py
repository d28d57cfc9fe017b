"""Unpaired groups of trials, as in a random search: only the images are shared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.statistics.anova import LevelDifference
from tuner.statistics.clusters import Clusters
from tuner.statistics.variance import Interval, Spread, around, fraction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """The trials of one level: the mean of each, and the means by image over all of them."""

    trials: Array
    """One mean per trial."""
    by_image: tuple[Array, ...]
    """For each block the mean over the trials, image by image; empty for figures without images."""
    squares: tuple[float, ...]
    """For each block the sum of all squared values, from which the residual follows."""
    block_means: tuple[Array, ...]
    """For each block one mean per trial; they add up to `trials`."""

    @property
    def size(self) -> int:
        """How many trials there are."""
        return len(self.trials)

    @cached_property
    def rest(self) -> float:
        """The residual variance of the group's mean: trial × image interaction."""
        found = 0.0
        blocks = zip(self.by_image, self.squares, self.block_means, strict=True)
        for image, squares, trials in blocks:
            count, images = len(trials), len(image)
            if count < 2 or images < 2:
                continue
            mean = float(image.mean())
            left = (
                squares
                - images * float((trials**2).sum())
                - count * float((image**2).sum())
                + count * images * mean**2
            )
            found += max(0.0, left) / ((count - 1) * (images - 1)) / (count * images)
        return found


@dataclass(frozen=True)
class Groups:
    """Levels with separate trials on the same images."""

    members: tuple[Group, ...]
    counts_images: bool = True
    clusters: tuple[Clusters, ...] = ()
    """For each block its patients; empty if values are by image."""

    @property
    def means(self) -> Array:
        """The mean of each level."""
        return np.array([group.trials.mean() for group in self.members])

    @property
    def images(self) -> int:
        """How many images the means are over; 0 for a figure without images."""
        if self.clusters:
            return sum(clusters.images for clusters in self.clusters)
        return sum(len(image) for image in self.members[0].by_image)

    @property
    def patients(self) -> int:
        """How many patients the images are from; 0 if the data name none."""
        return sum(clusters.patients for clusters in self.clusters)

    @property
    def units(self) -> int:
        """How many patients (or images, if none are named) the means are over."""
        return self.patients or self.images

    @property
    def grain(self) -> float:
        """The resolution of the measurement: the variance due to one image more or less."""
        # The variance of a single patient cannot be estimated.
        alone = float(sum(clusters.patients == 1 < clusters.images for clusters in self.clusters))
        if not self.counts_images:
            return alone
        if self.clusters:
            return alone + sum(1.0 / clusters.images**2 for clusters in self.clusters)
        return sum(1.0 / len(image) ** 2 for image in self.members[0].by_image)

    @cached_property
    def _pooled(self) -> tuple[float, int]:
        """The variance of one trial about its level's mean, and its degrees of freedom."""
        free = sum(group.size - 1 for group in self.members)
        if free == 0:
            return 0.0, 0
        total = sum(float(group.trials.var()) * group.size for group in self.members)
        return total / free, free

    def difference(self, one: int, other: int) -> LevelDifference:
        """Return the difference of two levels; its spread is the wider of pooled and their own."""
        first, second = self.members[one], self.members[other]
        variance, free = self._pooled
        apart = 1 / first.size + 1 / second.size
        own = _own(first) + _own(second)
        images = _image_variance(first, second)
        rest = first.rest + second.rest
        spread = Spread.of(
            max(variance * apart, own), free, images - rest, rest, self._image_freedom
        )
        if not free and not self.images:
            spread = Spread.unknown()
        value = float(self.means[one] - self.means[other])
        return LevelDifference(value, spread.plus(self.grain), min(first.size, second.size))

    def mean(self, level: int) -> Interval:
        """Return a level's mean with the interval over its trials and its images."""
        group = self.members[level]
        images = sum(
            float(image.var(ddof=1)) / len(image) for image in group.by_image if len(image) > 1
        )
        rest = group.rest
        spread = Spread.of(_own(group), group.size - 1, images - rest, rest, self._image_freedom)
        if group.size < 2 and not self.images:
            spread = Spread.unknown()
        value = float(self.means[level])
        if self.counts_images and len(group.by_image) == 1 and self.images > 1:
            count = self.clusters[0].effective if self.clusters else self.images
            return fraction(value, spread, count)
        return around(value, spread.plus(self.grain))

    def take(self, levels: Sequence[int]) -> "Groups":
        """Return a subset of the levels."""
        return replace(self, members=tuple(self.members[level] for level in levels))

    @property
    def _image_freedom(self) -> float:
        """The patients' component's degrees of freedom: the smallest of all blocks; 0 if known."""
        return min(
            (clusters.freedom for clusters in self.clusters if clusters.freedom), default=0.0
        )


def _own(group: Group) -> float:
    return float(group.trials.var(ddof=1)) / group.size if group.size > 1 else 0.0


def _image_variance(group: Group, other: Group) -> float:
    return sum(
        float((first - second).var(ddof=1)) / len(first)
        for first, second in zip(group.by_image, other.by_image, strict=True)
        if len(first) > 1
    )
