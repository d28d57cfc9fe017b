"""Duplicate images: equal pixels, or the same picture stored in another way.

A picture's perceptual hash is its coarse form: reduced, with normalised brightness and contrast,
and without the mean picture of the data, because all radiographs look alike. Pictures whose hashes
correlate are compared in more detail, also shifted by half a reduced pixel. Both thresholds were
set on the phantom; docs/check.md has the figures.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tuner.train.objective import Data, Split

SIDE = 32
"""Pixels per side of a reduced picture."""
COARSE = 8
"""Pixels per side of the hash."""
LEAST_HASH = 0.85
"""Correlation of two hashes above which their pictures are compared."""
LEAST_AGREEMENT = 0.96
"""Correlation of two reduced pictures above which they are duplicates."""
MOVES = (-0.5, 0.0, 0.5)
"""Shifts, in reduced pixels down and to the right, at which two pictures are compared."""
MOVED_AT_MOST = 20_000
"""With more images than this, pictures are compared unshifted: shifts cost nine times as much."""
FEW = 50
"""With fewer images than this, no mean picture is subtracted."""
ROWS = 512
"""How many pictures are compared with all others at a time."""

Reduced = NDArray[np.float32]


@dataclass(frozen=True)
class DuplicateGroup:
    """Duplicates of one picture: (split, id) of each, in the order of the splits."""

    images: tuple[tuple[str, str], ...]
    exact: bool
    """Whether all of them are equal in every pixel."""

    @property
    def across(self) -> int:
        """How many of them have a copy in an earlier split (train, val, test)."""
        first = self.images[0][0]
        return sum(split != first for split, _ in self.images)

    @property
    def within(self) -> int:
        """How many of them repeat another image of the same split."""
        return len(self.images) - len({split for split, _ in self.images})


@dataclass(frozen=True)
class Duplicates:
    """All groups of duplicates, largest first."""

    groups: tuple[DuplicateGroup, ...]

    def count(self, *, exact: bool, across: bool) -> int:
        """Count images that repeat one of an earlier split (`across`) or of the same split."""
        return sum(
            group.across if across else group.within
            for group in self.groups
            if group.exact == exact
        )


def find_duplicates(data: Data) -> Duplicates:
    """Return all groups of equal or almost equal images."""
    splits = named_splits(data)
    where = [(name, image) for name, split in splits.items() for image in split.ids]
    pictures = np.concatenate([reduce(split.images) for split in splits.values()])
    digests = [
        hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        for split in splits.values()
        for image in split.images
    ]
    linked = _Links(len(where))
    first: dict[bytes, int] = {}
    for place, digest in enumerate(digests):
        linked.join(first.setdefault(digest, place), place)
    for place, other in _near(pictures):
        linked.join(place, other)
    groups = [
        DuplicateGroup(tuple(where[i] for i in places), len({digests[i] for i in places}) == 1)
        for places in linked.groups()
    ]
    return Duplicates(tuple(sorted(groups, key=lambda group: -len(group.images))))


def named_splits(data: Data) -> dict[str, Split]:
    """Return the existing splits by name, in order."""
    splits = {"train": data.train, "val": data.val}
    return splits if data.test is None else {**splits, "test": data.test}


def reduce(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return small grey pictures, (n, SIDE, SIDE), by mean pooling."""
    reduced: Reduced = np.empty((len(images), SIDE, SIDE), dtype=np.float32)
    rows, columns = (_pooling(length) for length in images.shape[-2:])
    for start in range(0, len(images), 512):
        some = images[start : start + 512].astype(np.float32)
        grey = some if some.ndim == 3 else some.mean(axis=1)
        reduced[start : start + 512] = rows @ grey @ columns.T
    return reduced


def _pooling(length: int) -> NDArray[np.float32]:
    """Return the matrix that averages over SIDE equal parts of a length."""
    edges = np.linspace(0, length, SIDE + 1)
    cells = np.arange(length)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(covered, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, dtype=np.float32)


def _near(pictures: Reduced) -> Iterator[tuple[int, int]]:
    """Yield pairs of pictures whose hashes agree and that also agree in detail."""
    normal = _normalised(pictures)
    mean = np.asarray(normal.mean(axis=0) if len(normal) >= FEW else 0 * normal[0])
    own = _without_mean(normal, mean)
    flat, hashes = _unit(own), _unit(_coarse(own))
    moves = list(product(MOVES, MOVES)) if len(pictures) <= MOVED_AT_MOST else [(0.0, 0.0)]
    for move in moves:
        moved = own
        if move != (0.0, 0.0):
            moved = _without_mean(_normalised(_moved(pictures, *move)), mean)
        moved_flat, moved_hashes = _unit(moved), _unit(_coarse(moved))
        for start in range(0, len(pictures), ROWS):
            alike = moved_hashes[start : start + ROWS] @ hashes.T >= LEAST_HASH
            ones, others = np.nonzero(alike)
            ones += start
            different = others != ones
            ones, others = ones[different], others[different]
            agreed = np.einsum("ij,ij->i", moved_flat[ones], flat[others]) >= LEAST_AGREEMENT
            yield from zip(ones[agreed].tolist(), others[agreed].tolist(), strict=True)


def _normalised(pictures: Reduced) -> Reduced:
    """Normalise brightness and contrast; a blank picture becomes zeros."""
    level = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    spread = level.std(axis=(1, 2), keepdims=True)
    return np.asarray(level / np.where(spread > 1e-3, spread, np.inf), dtype=np.float32)


def _without_mean(normal: Reduced, mean: Reduced) -> Reduced:
    """Subtract the mean picture; a blank picture stays zero, so that it matches no other."""
    own = normal - mean
    own[~normal.any(axis=(1, 2))] = 0
    return np.asarray(own, dtype=np.float32)


def _coarse(own: Reduced) -> Reduced:
    step = SIDE // COARSE
    cells = own.reshape(len(own), COARSE, step, COARSE, step)
    return np.asarray(cells.mean(axis=(2, 4)))


def _unit(pictures: Reduced) -> Reduced:
    """Return each picture as a row of mean 0 and length 1, so that products are correlations."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 1e-6, length, np.inf), dtype=np.float32)


def _moved(pictures: Reduced, down: float, right: float) -> Reduced:
    """Return the pictures shifted by this much; the border is repeated."""
    for axis, move in ((1, down), (2, right)):
        if move:
            last = np.roll(pictures, 1 if move > 0 else -1, axis=axis)
            edge = (0 if move > 0 else SIDE - 1,)
            index: list[slice | tuple[int, ...]] = [slice(None)] * 3
            index[axis] = edge
            last[tuple(index)] = pictures[tuple(index)]
            pictures = np.asarray((pictures + last) / 2, dtype=np.float32)
    return pictures


class _Links:
    """Union-find over places."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, one: int, other: int) -> None:
        """Merge the groups of two places."""
        first, second = sorted((self._root(one), self._root(other)))
        self._parent[second] = first

    def groups(self) -> Iterable[list[int]]:
        """Return all groups of more than one place, each sorted."""
        members: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self._parent)):
            members[self._root(place)].append(place)
        return [places for places in members.values() if len(places) > 1]

    def _root(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place
