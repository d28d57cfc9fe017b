"""Power analysis: how many seeds, images or patients it takes to detect a difference.

The variance components that a study estimated are scaled to other numbers of seeds and images.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

from tuner.statistics.anova import VarianceComponents
from tuner.statistics.distributions import chi_square
from tuner.statistics.special import ndtr
from tuner.statistics.variance import CONFIDENCE

POWER = 0.8
"""The power to plan for: the difference is detected 8 times in 10."""
SEEDS_MOST = 1000
"""The upper limit of the search."""
SEEDS_WITH_IMAGES = (20, 100, 1000)
"""The numbers of seeds to try if more images are needed."""
DRAWS = tuple((place + 0.5) / 12 for place in range(12))
"""Quantiles of the seeds' variance that the power is averaged over."""


@dataclass(frozen=True)
class PowerPlan:
    """What it takes to detect a difference, given the spread that was estimated."""

    difference: float
    seeds: int | None
    """The total number of seeds needed; None if no number of seeds is enough."""
    images: int | None
    """If seeds alone are not enough: the total number of images needed with these seeds."""
    patients: int | None = None
    """The number of patients those images come from, at today's images per patient."""
    low: int | None = None
    """The same number if the spread were at the lower end of its interval."""
    high: int | None = None
    """The same at the upper end; None if no tried number is enough."""


@dataclass(frozen=True)
class Observed:
    """The variance components of a difference of two levels, as a study estimated them."""

    parts: VarianceComponents
    seeds: int
    images: int
    levels: int
    grain: float = 0.0
    patients: int = 0
    """How many patients the images are from; 0 if the data name none."""

    def spread_by(self, factor: float) -> "Observed":
        """Return the same with the seeds' variance multiplied by this factor."""
        by_seed = max(self.parts.by_seed * factor, self.parts.rest)
        return replace(self, parts=replace(self.parts, by_seed=by_seed))

    @property
    def limits(self) -> tuple["Observed", "Observed"]:
        """The same at both ends of the interval of the seeds' variance, wide for few seeds.

        The images' component is estimated from many images and left unchanged.
        """
        freedom = self.parts.freedom
        tail = (1 - CONFIDENCE) / 2
        low, high = (1 / float(chi_square(share, freedom)) for share in (1 - tail, tail))
        return self.spread_by(low), self.spread_by(high)

    def with_more(self, seeds: int, images: float = 1.0) -> "Observed":
        """Return the components for this many seeds and this many times the images.

        The images' component does not shrink with seeds; the residual shrinks with both.
        """
        shrinking = max(self.parts.by_seed + min(0.0, self.parts.by_image), self.parts.rest)
        of_seeds = shrinking - self.parts.rest + self.parts.rest / images
        scale = self.seeds / seeds
        freedom = max(1, round(self.parts.freedom * (seeds - 1) / max(1, self.seeds - 1)))
        parts = VarianceComponents(
            of_seeds * scale,
            freedom,
            max(0.0, self.parts.by_image) / images,
            self.parts.rest * scale / images,
            self.parts.image_freedom * images,
        )
        return replace(
            self,
            parts=parts,
            seeds=seeds,
            images=round(self.images * images),
            grain=self.grain / images**2,
            patients=round(self.patients * images),
        )


def power(seen: Observed, difference: float) -> float:
    """Return the power of a study with this spread to detect a difference of this size."""
    parts = seen.parts
    # With the same lower bound as a spread: the images' component may be negative.
    error = (max(parts.by_seed + parts.by_image, parts.rest) + seen.grain) ** 0.5
    if error == 0:
        return 1.0
    found = 0.0
    for share in DRAWS:
        # The planned study's own estimate of the spread varies.
        estimate = parts.by_seed * _drawn(share, parts.freedom)
        told = replace(parts, by_seed=estimate, rest=min(parts.rest, estimate))
        limit = told.spread().plus(seen.grain).half_width(seen.levels)
        found += float(ndtr((abs(difference) - limit) / error))
        found += float(ndtr((-abs(difference) - limit) / error))
    return found / len(DRAWS)


def plan(seen: Observed, difference: float) -> PowerPlan:
    """Return how many seeds detect a difference with power 0.8, or how many images that takes.

    The spread is an estimate, so the plan is also made for both ends of its interval.
    """
    seeds = _seeds(seen, difference)
    if seeds is not None:
        return PowerPlan(
            difference, seeds, None, None, *(_seeds(end, difference) for end in seen.limits)
        )
    for several in SEEDS_WITH_IMAGES if seen.images else ():
        times = _times_images(seen, several, difference)
        if times is not None:
            ends = (_times_images(end, several, difference) for end in seen.limits)
            units = seen.patients or seen.images
            return PowerPlan(
                difference,
                several,
                round(seen.images * times),
                round(seen.patients * times) if seen.patients else None,
                *(None if end is None else round(units * end) for end in ends),
            )
    return PowerPlan(difference, None, None)


def _seeds(seen: Observed, difference: float) -> int | None:
    """Return the smallest sufficient number of seeds on these images."""
    if not _enough(seen.with_more(SEEDS_MOST), difference):
        return None
    low, high = 1, SEEDS_MOST
    while high - low > 1:
        middle = (low + high) // 2
        if _enough(seen.with_more(middle), difference):
            high = middle
        else:
            low = middle
    return high


def _times_images(seen: Observed, seeds: int, difference: float) -> float | None:
    low, high = 0.0, 10.0
    if not _enough(seen.with_more(seeds, 2**high), difference):
        return None
    while high - low > 0.03:
        middle = (low + high) / 2
        if _enough(seen.with_more(seeds, 2**middle), difference):
            high = middle
        else:
            low = middle
    return float(2**high)


def _enough(seen: Observed, difference: float) -> bool:
    return power(seen, difference) >= POWER


@lru_cache(maxsize=4096)
def _drawn(share: float, freedom: int) -> float:
    return float(chi_square(share, freedom))
