"""The shift probe: can a small classifier tell which of two splits an image came from?

It is fitted on one half of the images, from image features, and tested on the other
half. An area under the ROC curve of 0.5 means that it cannot. (Cross-validation would
use every image twice, but its folds share training images: its intervals covered 0.5 in
85% of random splits, not 95%.) Images are only compared with images of their own
class, so that a split with a different class balance is not mistaken for a different
distribution.

If patients are named, all images of a patient are in the same half, and the interval is
over patients: otherwise the probe would recognise the patient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.check.duplicates import reduce
from tuner.check.regression import fit
from tuner.statistics import Clusters, average_ranks, students
from tuner.train.objective import Split

Floats = NDArray[np.float64]

LOOKED_AT = 64
"""Approximate number of pixels per side that grey values and noise are taken from."""
POOLED = 8
"""Pixels per side of the coarse picture among the features."""
QUANTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
PENALTY = 30.0
"""Ridge penalty; features have unit standard deviation, images weigh 1 on average."""
FEWEST = 3
"""Fewest test images (or patients) of a class and split; with fewer there is no result."""


@dataclass(frozen=True)
class Probe:
    """How well two splits can be told apart, with a 95% interval."""

    first: str
    second: str
    auc: float
    low: float
    high: float
    images: tuple[int, int]
    patients: tuple[int, int] | None = None
    """How many patients these images are from, if patients are named."""

    @property
    def tells_apart(self) -> bool:
        """Whether the splits differ significantly."""
        return self.low > 0.5


def probe(first: tuple[str, Split], second: tuple[str, Split], *, most: int = 1000) -> Probe | None:
    """Probe two splits; None if they have too few images."""
    images, labels, patients = [], [], []
    for _, split in (first, second):
        count = len(split.labels)
        # At most this many images, evenly spread over the split.
        places = np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)
        places = np.unique(places)
        images.append(features(split.images[places]))
        labels.append(split.labels[places])
        patients.append([split.patients[at] if split.patients else "" for at in places])
    counts = (len(labels[0]), len(labels[1]))
    origin = np.repeat([0, 1], counts)
    clusters = Clusters.of([*patients[0], *patients[1]])
    cells = _cells(np.concatenate(images), np.concatenate(labels), origin, clusters)
    if not cells:
        return None
    weights = np.array([cell.weight for cell in cells])
    weights /= weights.sum()
    auc = float(sum(w * cell.auc for w, cell in zip(weights, cells, strict=True)))
    half = _half_width(weights, cells)
    named = first[1].patients or second[1].patients
    return Probe(
        first=first[0],
        second=second[0],
        auc=auc,
        low=max(0.0, auc - half),
        high=min(1.0, auc + half),
        images=counts,
        patients=(
            (Clusters.of(patients[0]).patients, Clusters.of(patients[1]).patients)
            if named
            else None
        ),
    )


def _half_width(weights: Floats, cells: Sequence["_Cell"]) -> float:
    """Return half the width of the weighted area's interval."""
    floor = sum(w**2 * cell.floor for w, cell in zip(weights, cells, strict=True))
    parts = [
        (w**2 * side.variance, side.freedom)
        for w, cell in zip(weights, cells, strict=True)
        for side in cell.sides
    ]
    if not any(freedom for _, freedom in parts):
        error = math.sqrt(sum(w**2 * c.variance for w, c in zip(weights, cells, strict=True)))
        return students(0.975, 0.0) * error
    # A patient may have images of several classes and in both splits; all of them are dependent.
    moved = np.zeros(max(len(side.by_patient) for cell in cells for side in cell.sides))
    for w, cell in zip(weights, cells, strict=True):
        for side in cell.sides:
            moved[: len(side.by_patient)] += w * side.by_patient
    variance = max(float((moved**2).sum()), floor)
    squares = sum(part**2 / freedom for part, freedom in parts if freedom)
    freedom = max(1.0, sum(part for part, _ in parts) ** 2 / squares) if squares else 0.0
    return students(0.975, freedom) * math.sqrt(variance)


def features(images: NDArray[np.generic]) -> Floats:
    """Return features by which scanners differ: coarse picture, grey values, noise, edges."""
    found = []
    for start in range(0, len(images), 256):
        some = images[start : start + 256].astype(np.float32)
        grey = some if some.ndim == 3 else some.mean(axis=1)
        found.append(_features(grey))
    return np.concatenate(found).astype(np.float64)


@dataclass(frozen=True)
class _Side:
    """How much the images of a class in one split contribute to the variance of an area."""

    variance: float
    freedom: float
    """Degrees of freedom of the variance over patients; 0 if images are independent."""
    by_patient: Floats
    """Influence of each patient on the area; the squares add up to the variance."""


@dataclass(frozen=True)
class _Cell:
    """One class: its area, the area's uncertainty, and its weight."""

    auc: float
    sides: tuple[_Side, _Side]
    floor: float
    """Lower bound of the variance."""
    weight: float

    @property
    def variance(self) -> float:
        """The variance of the area if no patient is in both splits."""
        return max(sum(side.variance for side in self.sides), self.floor)


def _features(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    coarse = reduce(grey).reshape(len(grey), POOLED, 4, POOLED, 4).mean(axis=(2, 4))
    # For a large image, a sample of evenly spread pixels estimates grey values and noise well
    # enough; each of them is compared with its direct neighbours.
    rows, columns = (slice(1, -1, max(1, length // LOOKED_AT)) for length in grey.shape[1:])
    pixels = grey[:, rows, columns]
    right, left = (grey[:, rows, _beside(columns, step)] for step in (1, -1))
    below, above = (grey[:, _beside(rows, step), columns] for step in (1, -1))
    flat = pixels.reshape(len(grey), -1)
    quantiles = np.percentile(flat, QUANTILES, axis=1).T
    spread = flat.std(axis=1, keepdims=True)
    second = 4 * pixels - right - left - below - above
    fine = [
        np.abs(part).reshape(len(grey), -1) for part in (right - pixels, below - pixels, second)
    ]
    rough = np.stack([part.mean(axis=1) for part in fine], axis=1)
    median = np.stack([np.median(part, axis=1) for part in fine], axis=1)
    values = [coarse.reshape(len(grey), -1), quantiles, spread, rough, median]
    return np.concatenate(values, axis=1).astype(np.float32)


def _beside(places: slice, step: int) -> slice:
    """Return the places beside those of `slice(1, -1, every)`."""
    return slice(1 + step, -1 + step or None, places.step)


def _cells(
    images: Floats, labels: NDArray[np.int64], origin: NDArray[np.int64], clusters: Clusters
) -> list[_Cell]:
    asked = _half(labels, origin, clusters)
    if len(np.unique(origin[~asked])) < 2:
        return []
    scores = _scores(images[~asked], labels[~asked], origin[~asked], images[asked])
    cells = []
    for label in np.unique(labels):
        of_class = labels[asked] == label
        mine = [of_class & (origin[asked] == side) for side in (0, 1)]
        of = clusters.of_image[asked]
        if min(len(np.unique(of[side])) for side in mine) >= FEWEST:
            ours, theirs = (scores[side] for side in mine)
            cells.append(_area(ours, theirs, (of[mine[0]], of[mine[1]])))
    return cells


def _half(
    labels: NDArray[np.int64], origin: NDArray[np.int64], clusters: Clusters
) -> NDArray[np.bool_]:
    """Choose every second patient of every class and split, in a meaningless order.

    A patient belongs to the class and split of its first image, and is chosen with all its images.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    _, first = np.unique(clusters.of_image[order], return_index=True)
    heads = order[np.sort(first)]
    chosen = np.zeros(clusters.patients, dtype=np.bool_)
    for label in np.unique(labels):
        for side in (0, 1):
            places = heads[(labels[heads] == label) & (origin[heads] == side)]
            chosen[clusters.of_image[places[::2]]] = True
    return np.asarray(chosen[clusters.of_image])


def _scores(
    images: Floats, labels: NDArray[np.int64], origin: NDArray[np.int64], asked: Floats
) -> Floats:
    """Fit a penalised logistic regression and return its scores for other images."""
    centre, spread = images.mean(axis=0), images.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1)
    fitted, shown = (images - centre) / scale, (asked - centre) / scale
    line = fit(fitted, 2.0 * origin - 1, _importance(labels, origin), PENALTY)
    return line.scores(shown)


def _importance(labels: NDArray[np.int64], origin: NDArray[np.int64]) -> Floats:
    """Weight images so that both splits count equally within each class; the mean weight is 1."""
    weights = np.zeros(len(labels))
    for label in np.unique(labels):
        for side in (0, 1):
            cell = (labels == label) & (origin == side)
            if cell.any():
                weights[cell] = (labels == label).sum() / (2 * cell.sum())
    return np.asarray(weights / weights.mean())


def _area(
    ours: Floats,
    theirs: Floats,
    patients: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> _Cell:
    """Return the area under the ROC curve of one class, with DeLong's variance, or by patient.

    `patients` are the patient numbers of our and their images; without them, images are
    independent.
    """
    m, n = len(theirs), len(ours)
    both = average_ranks(np.concatenate([theirs, ours]))
    of_theirs = (both[:m] - average_ranks(theirs)) / n
    of_ours = 1 - (both[m:] - average_ranks(ours)) / m
    mine, other = patients or (np.arange(n), np.arange(n, n + m))
    count = int(max(mine.max(), other.max())) + 1
    sides = _side(of_theirs, other, count), _side(of_ours, mine, count)
    # A perfect separation of a finite sample does not prove that the variance is zero.
    floor = 1 / (12 * m * n)
    return _Cell(float(of_theirs.mean()), sides, floor, m * n / (m + n))


def _side(placements: Floats, of: NDArray[np.int64], count: int) -> _Side:
    """Return the uncertainty of the mean placement of one split's images (DeLong)."""
    known, numbers = np.unique(of, return_inverse=True)
    clusters = Clusters(numbers.reshape(-1))
    values = clusters.linearise(placements)
    many = len(values)
    moved = np.zeros(count)
    moved[known] = (values - values.mean()) / math.sqrt(many * (many - 1))
    return _Side(float(values.var(ddof=1)) / many, clusters.freedom, moved)
