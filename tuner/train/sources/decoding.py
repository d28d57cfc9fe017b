"""Decodes many files at once, once: the pixels are kept, and mapped ever after."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.lib.format import open_memmap

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Progress
from tuner.train.sources import files
from tuner.train.sources.files import DEPTH, Kind, Look, UnreadableError
from tuner.train.sources.kept import Kept, keep
from tuner.train.sources.pool import Part, Pixels, listed

SMALLEST = 8
"""Pixels a side that an image may be resized to."""
AHEAD = 64
"""Files that are looked at or decoded before the next word on progress."""


@dataclass(frozen=True)
class File:
    """One image file, and what its source says of it."""

    path: Path
    id: str
    name: str
    """Of its class."""
    part: Part
    patient: str = ""


@dataclass(frozen=True)
class Decoded:
    """Pixels of the files that could be read, in their order."""

    images: Pixels
    read: tuple[int, ...]
    """The places of those files in the list."""
    notes: tuple[str, ...]
    kind: str
    """Of the files, all of one; empty in what a tuner kept that did not note it."""


def decode(
    found: Sequence[File], keys: Mapping[str, Value], cache: Path, progress: Progress
) -> Decoded:
    """Return the pixels of all files in one size; a second call reads what the first kept."""
    size = wanted_size(keys)
    skip = bool(keys["skip_unreadable"])

    def make(aside: Path) -> tuple[Pixels, dict[str, Any]]:
        return _Decoder(found, size, progress, skip=skip).make(aside)

    waiting = lambda: progress("waiting for images that another process decodes", 0, len(found))  # noqa: E731
    kept: Kept = keep(cache / "images" / _name(found, size, skip=skip), make, waiting)
    unread = {int(place): str(why) for place, why in kept.facts["unread"].items()}
    notes = list(kept.facts["notes"])
    if unread:
        names = [f"{found[place].id} ({why})" for place, why in unread.items()]
        notes.append(f"{len(unread)} unreadable images were left out: {listed(names)}.")
    read = tuple(place for place in range(len(found)) if place not in unread)
    return Decoded(kept.array, read, tuple(notes), str(kept.facts.get("kind", "")))


def wanted_size(keys: Mapping[str, Value]) -> int:
    """Return the side in pixels that images are to have; 0 as they are."""
    size = int(keys["image_size"])
    if 0 < size < SMALLEST:
        raise DataError(f"image_size = {size} is too small; use at least {SMALLEST}, or 0")
    return size


def commonest(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the height and width that most images have; of equally many, the larger."""
    counts = Counter(sizes)
    return max(counts, key=lambda size: (counts[size], size))


class _Decoder:
    """One decoding of a list of files."""

    def __init__(self, found: Sequence[File], size: int, progress: Progress, *, skip: bool) -> None:
        self._found = found
        self._size = size
        self._progress = progress
        self._skip = skip
        self._unread: dict[int, str] = {}

    def make(self, aside: Path) -> tuple[Pixels, dict[str, Any]]:
        """Decode every file into a new mapped array."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            looks = self._all(pool, "looking at images", range(len(self._found)), self._look)
            self._check_unread()
            kind = _one_kind({place: look.kind for place, look in looks.items()}, self._found)
            height, width, notes = self._target(looks)
            array = open_memmap(
                aside, mode="w+", dtype=DEPTH[kind], shape=(len(self._found), height, width)
            )

            def put(place: int) -> None:
                array[place] = files.resize(files.read(self._found[place].path), height, width)

            self._all(pool, "decoding images", sorted(looks), put)
            self._check_unread()
        facts = {"unread": self._unread, "notes": notes, "kind": kind}
        return self._without_unread(array), facts

    def _without_unread(self, array: Any) -> Pixels:
        """Close the gaps that unreadable files left."""
        if not self._unread:
            return array  # type: ignore[no-any-return]
        kept = [place for place in range(len(self._found)) if place not in self._unread]
        if not kept:
            raise DataError("no image at all can be read; see that path and files are right")
        return np.asarray(array[kept])

    def _all(
        self,
        pool: ThreadPoolExecutor,
        what: str,
        places: Sequence[int],
        work: Callable[[int], Any],
    ) -> dict[int, Any]:
        """Do a piece of work for every place, a few ahead, telling how far it is."""

        def attempt(place: int) -> Any:
            try:
                return work(place)
            except UnreadableError as error:
                return error

        done: dict[int, Any] = {}
        for start in range(0, len(places), AHEAD):
            some = places[start : start + AHEAD]
            for place, result in zip(some, pool.map(attempt, some), strict=True):
                if isinstance(result, UnreadableError):
                    self._unread[place] = str(result)
                else:
                    done[place] = result
            self._progress(what, start + len(some), len(places))
        return done

    def _look(self, place: int) -> Look:
        return files.look(self._found[place].path)

    def _check_unread(self) -> None:
        if self._unread and not self._skip:
            names = [f"{self._found[i].path} ({why})" for i, why in sorted(self._unread.items())]
            count = f"{len(names)} image{'s' if len(names) > 1 else ''}"
            raise DataError(
                f"{count} cannot be read: {listed(names)}; repair or remove them, or set "
                "data.skip_unreadable = true to go on without them"
            )

    def _target(self, looks: Mapping[int, Look]) -> tuple[int, int, list[str]]:
        sizes = {place: (look.height, look.width) for place, look in looks.items()}
        if not sizes:
            raise DataError("no image at all can be read; see that path and files are right")
        training = [size for place, size in sizes.items() if self._found[place].part == "train"]
        height, width = commonest(training or sizes.values())
        if self._size:
            return self._size, self._size, []
        others = sum(size != (height, width) for size in sizes.values())
        words = (
            f"{others} of {len(sizes)} images have another size; all were stretched to "
            f"{height}×{width}, the commonest of the training images (height × width)."
        )
        return height, width, [words] if others else []


def _one_kind(kinds: Mapping[int, Kind], found: Sequence[File]) -> Kind:
    examples = {kind: found[place].id for place, kind in kinds.items()}
    if len(examples) > 1:
        counts = Counter(kinds.values())
        told = "; ".join(f"{counts[kind]} {kind} (such as {examples[kind]})" for kind in examples)
        raise DataError(
            f"images of different depths cannot be compared: {told}; convert them to one"
        )
    return next(iter(examples))


def _name(found: Sequence[File], size: int, *, skip: bool) -> str:
    """Return a file name that changes with any file, and with what is made of them."""
    digest = hashlib.sha256(f"{size} {skip} pillow {PIL.__version__}".encode())
    for one in found:
        try:
            state = one.path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
        except OSError:
            stamp = []
        # The whole path: two folders of equal names, sizes and times may differ in pixels.
        digest.update(json.dumps([str(one.path), one.part, *stamp]).encode())
    return f"decoded-{digest.hexdigest()[:20]}.npy"
