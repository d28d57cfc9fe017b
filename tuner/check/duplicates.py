"""Images that come twice: the same pixels, or the same picture stored again.

A picture's perceptual hash is its coarse form: reduced, without brightness and
contrast, and without what all pictures of the data have in common, because all
radiographs look alike. Pictures whose hashes agree are then compared in more
detail, also shifted against each other by half a reduced pixel. Both thresholds
were set on the phantom; docs/check.md has the figures.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""With fewer images than this, no common part is estimated."""
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
    for places in _equal(digests):
        for place in places[1:]:
            linked.join(places[0], place)
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


def _equal(digests: Sequence[bytes]) -> Iterator[list[int]]:
    places: Mapping[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return (some for some in places.values() if len(some) > 1)


def _near(pictures: Reduced) -> Iterator[tuple[int, int]]:
    """Yield pairs of pictures whose hashes agree and that also agree in detail."""
    common = _common(pictures)
    own = _own(pictures, common)
    flat, hashes = _unit(own), _unit(_coarse(own))
    moves = list(product(MOVES, MOVES)) if len(pictures) <= MOVED_AT_MOST else [(0.0, 0.0)]
    for move in moves:
        moved = own if move == (0.0, 0.0) else _own(_moved(pictures, *move), common)
        moved_flat, moved_hashes = _unit(moved), _unit(_coarse(moved))
        for start in range(0, len(pictures), ROWS):
            alike = moved_hashes[start : start + ROWS] @ hashes.T >= LEAST_HASH
            ones, others = np.nonzero(alike)
            ones += start
            # A picture without a form of its own, such as a blank one, matches no other.
            later = others != ones
            ones, others = ones[later], others[later]
            agreed = np.einsum("ij,ij->i", moved_flat[ones], flat[others]) >= LEAST_AGREEMENT
            yield from zip(ones[agreed].tolist(), others[agreed].tolist(), strict=True)


def _plain(pictures: Reduced) -> Reduced:
    """Remove brightness and contrast."""
    level = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    spread = level.std(axis=(1, 2), keepdims=True)
    return np.asarray(level / np.where(spread > 1e-3, spread, np.inf), dtype=np.float32)


def _common(pictures: Reduced) -> Reduced:
    """Return the part that all pictures have in common."""
    plain = _plain(pictures)
    return np.asarray(plain.mean(axis=0) if len(plain) >= FEW else 0 * plain[0])


def _own(pictures: Reduced, common: Reduced) -> Reduced:
    """Return each picture without the common part."""
    plain = _plain(pictures)
    blank = ~plain.any(axis=(1, 2))
    own = plain - common
    own[blank] = 0
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
