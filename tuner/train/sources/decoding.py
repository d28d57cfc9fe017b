"""Decodes many files in parallel, once: the pixels are cached and mapped from then on."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
from numpy.lib.format import open_memmap

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Progress
from tuner.train.sources import files
from tuner.train.sources.files import DONE, ImageHeader, Kind, UnreadableError
from tuner.train.sources.kept import CachedArray, keep
from tuner.train.sources.pool import Part, Pixels, listed
from tuner.train.sources.shaping import MIXED, Shape, common_depth, deepened, fitted

READER = 2
"""Increased when files are read differently, or with more notes, so that they are decoded again."""
AHEAD = 64
"""How many files are inspected or decoded between reports of progress."""


@dataclass(frozen=True)
class ImageFile:
    """One image file, and what its source says about it."""

    path: Path
    id: str
    name: str
    """The name of its class."""
    part: Part
    patient: str = ""


@dataclass(frozen=True)
class Decoded:
    """The pixels of the readable files, in order."""

    images: Pixels
    read: tuple[int, ...]
    """The indices of those files in the list."""
    notes: tuple[str, ...]
    kind: str
    """The common kind of the files; `mixed` if `depths` accepts files of any kind."""
    shape: Shape


def decode(
    found: Sequence[ImageFile], keys: Mapping[str, Value], cache: Path, progress: Progress
) -> Decoded:
    """Return the pixels of all files in one size; later calls read them from the cache."""
    shape = Shape.read(keys)
    skip = bool(keys["skip_unreadable"])

    def make(aside: Path) -> tuple[Pixels, dict[str, Any]]:
        with files.quiet():
            return _Decoder(found, shape, progress, skip=skip).make(aside)

    waiting = lambda: progress("waiting for images that another process decodes", 0, len(found))  # noqa: E731
    kept: CachedArray = keep(cache / "images" / _name(found, shape, skip=skip), make, waiting)
    unread = {int(place): str(why) for place, why in kept.facts["unread"].items()}
    notes = list(kept.facts["notes"])
    if unread:
        names = [f"{found[place].id} ({why})" for place, why in unread.items()]
        left = "image was" if len(unread) == 1 else "images were"
        notes.append(f"{len(unread)} unreadable {left} left out: {listed(names)}.")
    read = tuple(place for place in range(len(found)) if place not in unread)
    return Decoded(kept.array, read, tuple(notes), str(kept.facts["kind"]), shape)


class _Decoder:
    """Decodes one list of files."""

    def __init__(
        self, found: Sequence[ImageFile], shape: Shape, progress: Progress, *, skip: bool
    ) -> None:
        self._found = found
        self._shape = shape
        self._progress = progress
        self._skip = skip
        self._unread: dict[int, str] = {}

    def make(self, aside: Path) -> tuple[Pixels, dict[str, Any]]:
        """Decode every file into a new mapped array."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            looks = self._all(pool, "looking at images", range(len(self._found)), self._look)
            self._check_unread()
            if not looks:
                raise DataError("no image can be read; check the path and the files")
            kinds = {place: look.kind for place, look in looks.items()}
            if self._shape.depths == "same":
                _check_one_kind(kinds, self._found)
            depth = common_depth(kinds.values(), self._shape.depths).__name__
            sizes = {place: (look.height, look.width) for place, look in looks.items()}
            training = [size for at, size in sizes.items() if self._found[at].part == "train"]
            height, width = self._shape.target(training or list(sizes.values()))
            array = open_memmap(
                aside, mode="w+", dtype=depth, shape=(len(self._found), height, width)
            )

            def put(place: int) -> tuple[str, ...]:
                image = files.read_image(self._found[place].path)
                pixels = deepened(image, depth, self._shape.depths)
                array[place] = fitted(pixels, height, width, self._shape.fit)
                return image.done

            done = self._all(pool, "decoding images", sorted(looks), put)
            self._check_unread()
        notes = self._shape.words([sizes[place] for place in done], height, width)
        notes += [*_done_words(done, self._found), *self._depth_words(kinds, done)]
        kind = next(iter(kinds.values())) if self._shape.depths == "same" else MIXED
        facts = {"unread": self._unread, "notes": notes, "kind": kind}
        return self._without_unread(aside, array), facts

    def _depth_words(self, kinds: Mapping[int, Kind], read: Mapping[int, Any]) -> list[str]:
        """Return a note on which depths were joined, and how."""
        counts = Counter(kinds[place] for place in read)
        if len(counts) < 2:
            return []
        how = {
            "range": "each was scaled by the range of its own type",
            "window": "all values were used as they are, with the same window",
        }[self._shape.depths]
        counted = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        return [f"Images of different depths were joined ({counted}): {how}."]

    def _without_unread(self, aside: Path, array: Any) -> Pixels:
        """Close the gaps of unreadable files, image by image, because all may not fit in memory."""
        if not self._unread:
            return array  # type: ignore[no-any-return]
        kept = [place for place in range(len(self._found)) if place not in self._unread]
        if not kept:
            raise DataError("no image can be read; check the path and the files")
        # The unlinked file disappears when the array that maps it does.
        aside.unlink()
        closed = open_memmap(
            aside, mode="w+", dtype=array.dtype, shape=(len(kept), *array.shape[1:])
        )
        for at, place in enumerate(kept):
            closed[at] = array[place]
        return closed

    def _all(
        self,
        pool: ThreadPoolExecutor,
        what: str,
        places: Sequence[int],
        work: Callable[[int], Any],
    ) -> dict[int, Any]:
        """Do a piece of work for every index in parallel, and report progress."""

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

    def _look(self, place: int) -> ImageHeader:
        return files.look(self._found[place].path)

    def _check_unread(self) -> None:
        if self._unread and not self._skip:
            names = [f"{self._found[i].path} ({why})" for i, why in sorted(self._unread.items())]
            count = f"{len(names)} image{'s' if len(names) > 1 else ''}"
            raise DataError(
                f"{count} cannot be read: {listed(names)}; repair or remove them, or set "
                "data.skip_unreadable = true to go on without them"
            )


def _done_words(done: Mapping[int, Sequence[str]], found: Sequence[ImageFile]) -> list[str]:
    """Return notes on what was done to how many images, each with an example."""
    of: dict[str, list[int]] = {}
    for place, names in done.items():
        for name in names:
            of.setdefault(name, []).append(place)
    return [
        f"{len(of[name])} image{'s' if len(of[name]) > 1 else ''} {words} (such as "
        f"{found[of[name][0]].id})."
        for name, words in DONE.items()
        if name in of
    ]


def _check_one_kind(kinds: Mapping[int, Kind], found: Sequence[ImageFile]) -> None:
    examples = {kind: found[place].id for place, kind in kinds.items()}
    if len(examples) > 1:
        counts = Counter(kinds.values())
        seen = "; ".join(f"{counts[kind]} {kind} (such as {examples[kind]})" for kind in examples)
        raise DataError(
            f"images of different depths cannot be compared: {seen}; set data.depths = 'range' to "
            "scale each by the range of its own type, or 'window' to take all values as they are, "
            "or convert them to one depth"
        )


def _name(found: Sequence[ImageFile], shape: Shape, *, skip: bool) -> str:
    """Return a cache name that changes with any of the files and with how they are read."""
    digest = hashlib.sha256(f"{shape} {skip} reader {READER} pillow {PIL.__version__}".encode())
    for one in found:
        try:
            state = one.path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
        except OSError:
            stamp = []
        # The whole path: files with equal names, sizes and times in two folders may differ.
        digest.update(json.dumps([str(one.path), one.part, *stamp]).encode())
    return f"decoded-{digest.hexdigest()[:20]}.npy"
