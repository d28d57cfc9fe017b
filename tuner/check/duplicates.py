"""Images that come twice: the same pixels, or the same picture stored again.

A picture's perceptual hash is its own coarse form: reduced, brightness and
contrast taken away, and what all pictures of the data have in common, because
radiographs all look alike. Pictures whose hashes agree are compared on a closer
look, also moved against each other by half a reduced pixel. Both limits were
set on the phantom; docs/check.md has the figures.
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
"""Pixels a side of a reduced picture."""
COARSE = 8
"""Pixels a side of the hash."""
LEAST_HASH = 0.85
"""Correlation of two hashes from which on their pictures are looked at."""
LEAST_AGREEMENT = 0.96
"""Correlation of two reduced pictures that makes them one."""
MOVES = (-0.5, 0.0, 0.5)
"""Reduced pixels, down and to the right, by which a picture may be moved against another."""
MOVED_AT_MOST = 20_000
"""Images beyond which pictures are compared where they are: moving costs nine times as much."""
FEW = 50
"""Images below which nothing is known of what all have in common."""
ROWS = 512
"""Pictures that are compared with all others at a time."""

Pictures = NDArray[np.float32]


@dataclass(frozen=True)
class Group:
    """Images that are one picture: (split, id) of each, in the order of the splits."""

    images: tuple[tuple[str, str], ...]
    exact: bool
    """Whether all pixels of all of them are equal."""

    @property
    def across(self) -> int:
        """How many of them have a copy in an earlier split, train before val before test."""
        first = self.images[0][0]
        return sum(split != first for split, _ in self.images)

    @property
    def within(self) -> int:
        """How many of them repeat another one of their own split."""
        return len(self.images) - len({split for split, _ in self.images})


@dataclass(frozen=True)
class Duplicates:
    """All groups of duplicates, largest first."""

    groups: tuple[Group, ...]

    def count(self, *, exact: bool, across: bool) -> int:
        """Count images that repeat one of an earlier split, or one of their own."""
        return sum(
            group.across if across else group.within
            for group in self.groups
            if group.exact == exact
        )


def find_duplicates(data: Data) -> Duplicates:
    """Return all groups of equal or almost equal images."""
    splits = named_splits(data)
    where = [(name, one) for name, split in splits.items() for one in split.ids]
    pictures = np.concatenate([reduce(split.images) for split in splits.values()])
    digests = [digest for split in splits.values() for digest in _digests(split)]
    linked = _Links(len(where))
    for places in _equal(digests):
        for place in places[1:]:
            linked.join(places[0], place)
    for one, other in _near(pictures):
        linked.join(one, other)
    groups = [
        Group(tuple(where[i] for i in places), len({digests[i] for i in places}) == 1)
        for places in linked.groups()
    ]
    return Duplicates(tuple(sorted(groups, key=lambda group: -len(group.images))))


def named_splits(data: Data) -> dict[str, Split]:
    """Return the splits that there are, by name, in their order."""
    splits = {"train": data.train, "val": data.val}
    return splits if data.test is None else {**splits, "test": data.test}


def reduce(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return small grey pictures, (n, SIDE, SIDE), each pixel the mean of what it covers."""
    reduced: Pictures = np.empty((len(images), SIDE, SIDE), dtype=np.float32)
    rows, columns = (_pooling(length) for length in images.shape[-2:])
    for start in range(0, len(images), 512):
        some = images[start : start + 512].astype(np.float32)
        grey = some if some.ndim == 3 else some.mean(axis=1)
        reduced[start : start + 512] = rows @ grey @ columns.T
    return reduced


def _pooling(length: int) -> NDArray[np.float32]:
    """Return the matrix that takes means over SIDE equal stretches of a length."""
    edges = np.linspace(0, length, SIDE + 1)
    cells = np.arange(length)
    covered = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(covered, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, dtype=np.float32)


def _digests(split: Split) -> Iterator[bytes]:
    for image in split.images:
        yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _equal(digests: Sequence[bytes]) -> Iterator[list[int]]:
    places: Mapping[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return (some for some in places.values() if len(some) > 1)


def _near(pictures: Pictures) -> Iterator[tuple[int, int]]:
    """Yield pairs of pictures whose hashes agree, and that agree on a closer look."""
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
            # A picture with no form of its own, such as a blank one, is like no other.
            later = others != ones
            ones, others = ones[later], others[later]
            agreed = np.einsum("ij,ij->i", moved_flat[ones], flat[others]) >= LEAST_AGREEMENT
            yield from zip(ones[agreed].tolist(), others[agreed].tolist(), strict=True)


def _plain(pictures: Pictures) -> Pictures:
    """Take brightness and contrast away."""
    level = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    spread = level.std(axis=(1, 2), keepdims=True)
    return np.asarray(level / np.where(spread > 1e-3, spread, np.inf), dtype=np.float32)


def _common(pictures: Pictures) -> Pictures:
    """Return what all pictures have in common."""
    plain = _plain(pictures)
    return np.asarray(plain.mean(axis=0) if len(plain) >= FEW else 0 * plain[0])


def _own(pictures: Pictures, common: Pictures) -> Pictures:
    """Return what each picture has beside what all have in common."""
    plain = _plain(pictures)
    blank = ~plain.any(axis=(1, 2))
    own = plain - common
    own[blank] = 0
    return np.asarray(own, dtype=np.float32)


def _coarse(own: Pictures) -> Pictures:
    step = SIDE // COARSE
    cells = own.reshape(len(own), COARSE, step, COARSE, step)
    return np.asarray(cells.mean(axis=(2, 4)))


def _unit(pictures: Pictures) -> Pictures:
    """Return each picture as a row of mean 0 and length 1: products are correlations."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 1e-6, length, np.inf), dtype=np.float32)


def _moved(pictures: Pictures, down: float, right: float) -> Pictures:
    """Return pictures moved by half a pixel each way; the border is repeated."""
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
    """Which places belong together, by union and find."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, one: int, other: int) -> None:
        """Put two places, and all that belongs to them, together."""
        first, second = sorted((self._root(one), self._root(other)))
        self._parent[second] = first

    def groups(self) -> Iterable[list[int]]:
        """Return all groups of more than one place, each in order."""
        found: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self._parent)):
            found[self._root(place)].append(place)
        return [places for places in found.values() if len(places) > 1]

    def _root(self, place: int) -> int:
        while self._parent[place] != place:
            self._parent[place] = self._parent[self._parent[place]]
            place = self._parent[place]
        return place
