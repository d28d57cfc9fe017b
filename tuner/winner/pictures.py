"""Reads files and arrays as input for a saved network, in the same way as the study's images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError, ObjectiveError, UserError
from tuner.train.objective import FoundObjective
from tuner.train.sources import files
from tuner.train.sources.arrays import (
    array_deepened,
    images_of,
    load_archive,
    load_array,
    sized,
)
from tuner.train.sources.files import DEPTH, SUFFIXES, UnreadableError
from tuner.train.sources.shaping import deepened, fitted
from tuner.train.sources.window import Window
from tuner.winner.document import Model

ARRAYS = (".npy", ".npz")
AHEAD = 64
"""Files decoded in parallel before they are yielded."""

Pixels = NDArray[Any]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReadImage:
    """One image in the network's shape, or why there is none."""

    name: str
    """The file, with the index in an array: `scans.npy#3`."""
    pixels: Pixels | None
    fault: str = ""


def image_files(given: Sequence[str]) -> list[Path]:
    """Return the given files, and all images below the given folders."""
    found: dict[Path, None] = {}
    for name in given:
        path = Path(name)
        if not path.is_dir():
            found[path] = None
            continue
        below = [file for file in sorted(path.rglob("*")) if _is_image(file, path)]
        if not below:
            kinds = ", ".join(suffix.removeprefix(".") for suffix in (*SUFFIXES, *ARRAYS))
            raise UserError(f"The folder {path} has no image in it ({kinds}).")
        found.update(dict.fromkeys(below))
    return list(found)


def pictures(
    names: Sequence[str], model: Model, found: FoundObjective, progress: Progress
) -> Iterator[ReadImage]:
    """Read files in order; an unreadable one is yielded with its fault."""
    reader = ImageReader(model, found)
    with files.quiet(), ThreadPoolExecutor(cpu_count() or 1) as pool:
        for start in range(0, len(names), AHEAD):
            some = names[start : start + AHEAD]
            for pictures in pool.map(reader.read, some):
                yield from pictures
            progress("reading images", start + len(some), len(names))


class ImageReader:
    """Reads a file in the same way as the network's training images."""

    def __init__(self, model: Model, found: FoundObjective) -> None:
        self._model = model
        self._found = found
        reading = model.reading
        # Looked up before threads start: of two that import the objective's module at once, one
        # would find it half initialised, without its `read`.
        if reading.files == "own" and not found.reads_files:
            raise ObjectiveError(
                f"objective {found.name!r} in {found.folder} no longer has the function "
                "read(path, data) that read this network's images"
            )
        self._window = Window(*reading.window) if reading.window is not None else None

    def read(self, name: str) -> list[ReadImage]:
        """Return a file's image or images, or its fault."""
        path = Path(name)
        try:
            # An objective that reads files itself also reads arrays itself.
            if path.suffix.lower() in ARRAYS and self._model.reading.files != "own":
                return self._arrays(path)
            return [ReadImage(name, self._file(path))]
        except (UnreadableError, DataError, ObjectiveError, OSError, ValueError) as error:
            return [ReadImage(name, None, str(error) or type(error).__name__)]

    def _file(self, path: Path) -> Pixels:
        if self._model.reading.files == "own":
            if not path.is_file():
                raise UnreadableError("there is no such file")
            return self._fitted(self._found.read_file(path, self._model.data))
        if self._model.reading.files == "unlike":
            raise UnreadableError(
                f"objective {self._model.objective!r} reads files in its own way; give its data.py "
                "a function read(path, data) and save the model again"
            )
        image = files.read_image(path)
        reading = self._model.reading
        if reading.depths == "same":
            self._check_kind(image.kind)
        _, height, width = self._model.inputs
        pixels = deepened(image, reading.depth, reading.depths)
        return self._fitted(fitted(pixels, height, width, reading.fit))

    def _check_kind(self, kind: files.Kind) -> None:
        wanted = self._model.reading.kind
        if kind != wanted and (wanted or DEPTH[kind].__name__ != self._model.reading.depth):
            raise UnreadableError(
                f"it is {kind}, and the study's images are {wanted or self._model.reading.depth}; "
                "convert it as the study's images were"
            )

    def _arrays(self, path: Path) -> list[ReadImage]:
        return [
            ReadImage(f"{name}#{number}", pixels)
            for name, array in _held(path).items()
            for number, pixels in enumerate(self.images(array, name))
        ]

    def images(self, array: Pixels, name: str) -> list[Pixels]:
        """Return an array's images as input for the network."""
        _, height, width = self._model.inputs
        stack = _stacked(array, in_colour=self._model.inputs[0] == 3)
        reading = self._model.reading
        images = array_deepened(images_of(stack, name), reading.depth, reading.depths)
        images = sized(images, height, width, lambda *_: None, reading.fit)
        if str(images.dtype) != self._model.reading.depth:
            raise UnreadableError(
                f"{name} holds {images.dtype}, and the study's images are "
                f"{self._model.reading.depth}; convert it as those were"
            )
        return [self._fitted(image) for image in images]

    def _fitted(self, pixels: Pixels) -> Pixels:
        """Return pixels in the network's shape and type; raise an error if they do not fit."""
        image = pixels[None] if pixels.ndim == 2 else pixels
        if image.shape != self._model.shape:
            raise UnreadableError(
                f"it has shape {image.shape} (channels, height, width), but the network takes "
                f"{self._model.shape}"
            )
        if self._window is not None and image.dtype != np.uint8:
            image = self._window.apply(image)
        if str(image.dtype) != self._model.reading.pixels:
            raise UnreadableError(
                f"its pixels are {image.dtype}, and the network was trained on "
                f"{self._model.reading.pixels}"
            )
        if image.dtype == np.float32 and not np.isfinite(image).all():
            raise UnreadableError("some of its pixels are NaN or infinite")
        return np.ascontiguousarray(image)


def compare_files(reader: ImageReader, places: Mapping[Path, Pixels]) -> bool | None:
    """Return whether tuner's decoder gives the study's pixels; None without files."""
    looked = [(path, pixels) for path, pixels in places.items() if path.is_file()]
    if not looked:
        return None
    with files.quiet():
        pictureses = [reader.read(str(path)) for path, _ in looked]
    return all(
        len(pictures) == 1
        and pictures[0].pixels is not None
        and np.array_equal(pictures[0].pixels, pixels)
        for pictures, (_, pixels) in zip(pictureses, looked, strict=True)
    )


def _is_image(file: Path, below: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(below).parts)
    return not hidden and file.suffix.lower() in (*SUFFIXES, *ARRAYS) and file.is_file()


def _held(path: Path) -> dict[str, Pixels]:
    """Return a file's arrays by name; of an archive, those called images, if there are any."""
    if path.suffix.lower() == ".npy":
        return {str(path): load_array(path)}
    return {f"{path}#{name}": array for name, array in load_archive(path, "images").items()}


def _stacked(array: Pixels, *, in_colour: bool) -> Pixels:
    """Return a single image as an array of one image."""
    single = array.ndim == 2 or (in_colour and array.ndim == 3 and array.shape[2] in (3, 4))
    return array[None] if single else array
