"""Clustered errors: images of one patient are correlated, so the patient is the sampling unit.

A mean over N images of P patients is the ratio of two sums over patients. Its influence function
gives each patient one value,

    y[p] = m + P/N · a[p] · (sum of the images of p − n[p] · m),   a[p] = (1 − 1/P) / (1 − n[p]/N),

whose mean over patients is the mean m over images, and whose variance over P is the variance of m
by the delete-one-patient jackknife (CV3). All methods for images, including crossed seeds and
images, then apply to patients with y in place of the images' values. y is linear in the values,
with the same weights under every setting and seed, so that differences and means of panels remain
differences and means. With equally many images per patient a = 1, and with one image per patient
y is the image's value itself.

With few patients, or a few large ones, the variance estimate is uncertain. It has the degrees of
freedom of Bell and McCaffrey (2002) for perfectly correlated images within a patient, the worst
case: P − 1 for patients with equally many images, about 1 if one patient has most of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]

FEWEST = 10
"""With fewer patients than this, no conclusions are drawn."""
GIANT = 0.25
"""A patient with at least this share of all images is worth a remark."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which images are of the same patient."""

    of_image: Places
    """The number of each image's patient, counted from 0."""

    @staticmethod
    def of(patients: Sequence[str]) -> "Clusters":
        """Number patients by name; an image without a name counts as a separate patient."""
        numbers: dict[object, int] = {}
        named = (name or place for place, name in enumerate(patients))
        return Clusters(np.array([numbers.setdefault(one, len(numbers)) for one in named], int))

    @cached_property
    def sizes(self) -> Places:
        """How many images each patient has."""
        return np.bincount(self.of_image)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.of_image)

    @property
    def patients(self) -> int:
        """How many patients there are."""
        return len(self.sizes)

    @property
    def single(self) -> bool:
        """Whether every patient has one image, so that clustering makes no difference."""
        return self.patients == self.images

    @property
    def too_few(self) -> bool:
        """Whether there are too few patients to draw conclusions."""
        return self.patients < FEWEST

    @property
    def largest(self) -> float:
        """The share of all images that belong to the patient with the most."""
        return float(self.sizes.max() / self.images)

    @property
    def effective(self) -> float:
        """Effective number of patients: of equally large ones, for perfectly correlated images."""
        return float(self.images**2 / (self.sizes.astype(float) ** 2).sum())

    @cached_property
    def freedom(self) -> float:
        """The degrees of freedom of a variance over patients; 0 (known) for single images."""
        if self.single:
            return 0.0
        if self.patients == 1:
            return 1.0
        share = self.sizes / self.images
        # The estimate is S' B S for the patients' sums S with variances v, where
        # B = (I − s1')' A² (I − s1') = D + U C U'; freedom = tr(BV)² / tr(BVBV), in rank-two form.
        d = self._leverage**2
        v = share**2
        u = np.stack([d * share, np.ones_like(share)])
        c = np.array([[0.0, -1.0], [-1.0, float((d * share**2).sum())]])
        uvu = (u * v) @ u.T
        trace = float((d * v).sum() + np.trace(c @ uvu))
        both = c @ uvu
        square = (d * v) ** 2
        squares = float(
            square.sum() + 2 * np.trace(c @ ((u * (v * d * v)) @ u.T)) + np.trace(both @ both)
        )
        return max(1.0, trace**2 / squares)

    @cached_property
    def _leverage(self) -> Array:
        return np.asarray((1 - 1 / self.patients) / (1 - self.sizes / self.images))

    @cached_property
    def _order(self) -> tuple[Places, Places]:
        order = np.argsort(self.of_image, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.sizes)[:-1]])

    def linearise(self, values: Array) -> Array:
        """Return one value per patient from one per image (the last axis), with the same mean."""
        if self.single:
            return values
        mean = values.mean(axis=-1, keepdims=True)
        if self.patients == 1:
            return np.asarray(mean)
        order, starts = self._order
        sums = np.add.reduceat(values[..., order], starts, axis=-1)
        moved = self._leverage * (sums - self.sizes * mean)
        moved -= moved.mean(axis=-1, keepdims=True)
        return np.asarray(mean + moved * (self.patients / self.images))

    def variance(self, values: Array) -> float:
        """Return the variance of the mean of one value per image."""
        by_patient = self.linearise(values)
        if len(by_patient) < 2:
            return 0.0
        return float(by_patient.var(ddof=1)) / len(by_patient)

    def take(self, images: NDArray[np.bool_]) -> "Clusters":
        """Return the clusters of a subset of the images."""
        _, numbers = np.unique(self.of_image[images], return_inverse=True)
        return Clusters(numbers.astype(np.int64).reshape(-1))


def too_few(clusters: Sequence[Clusters]) -> bool:
    """Return whether some split has too few patients to draw conclusions."""
    return any(one.too_few for one in clusters)
