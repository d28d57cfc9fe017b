"""Arrays of images: a folder with one NPY file a class, or an NPZ archive as MedMNIST's."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.records import Value
from tuner.text import storable_name
from tuner.train.objective import Progress
from tuner.train.sources import files
from tuner.train.sources.decoding import commonest, wanted_size
from tuner.train.sources.pool import PARTS, Part, Pixels, Pool, number_classes

CHANNELS = (1, 3, 4)
PREFIXES: Mapping[Part, str] = {"test": "test_", "val": "val_"}


def read_npy(path: Path, keys: Mapping[str, Value], progress: Progress) -> Pool:
    """Return a folder's arrays: `CLASS.npy`, `test_CLASS.npy`, perhaps `val_CLASS.npy`."""
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; correct data.path")
    found: dict[tuple[Part, str], Pixels] = {}
    for file in sorted(path.glob("*.npy")):
        part, name = _part_of(storable_name(file.stem))
        found[part, name] = images_of(load_array(file), file.name)
    names = {part: {name for held, name in found if held == part} for part in PARTS}
    classes = number_classes(names, path)
    number = {name: label for label, name in enumerate(classes)}
    arrays = [
        (f"{PREFIXES.get(part, '')}{name}", part, array) for (part, name), array in found.items()
    ]
    labels = [np.full(len(array), number[name]) for (_, name), array in found.items()]
    return _pool(arrays, labels, classes, wanted_size(keys), progress)


def read_npz(path: Path, keys: Mapping[str, Value], progress: Progress) -> Pool:
    """Return an archive's arrays: `train_images`, `train_labels`, and those of val and test."""
    held = load_archive(path)
    arrays: list[tuple[str, Part, Pixels]] = []
    labels: list[NDArray[Any]] = []
    for part in PARTS:
        names = (f"{part}_images", f"{part}_labels")
        there = [name in held for name in names]
        if all(there):
            arrays.append((part, part, images_of(held[names[0]], f"{names[0]} in {path.name}")))
            labels.append(_labels(held[names[1]], len(arrays[-1][2]), f"{names[1]} in {path.name}"))
        elif any(there) or part == "train":
            missing = names[there.index(False)]
            raise DataError(f"{path} has no array {missing}; it has {', '.join(held) or 'none'}")
    values = {part: set(found.tolist()) for (_, part, _), found in zip(arrays, labels, strict=True)}
    order = sorted(values["train"])
    width = len(str(max(order, default=0)))
    named = {part: {str(value).zfill(width) for value in found} for part, found in values.items()}
    number_classes(named, path)
    number = {value: label for label, value in enumerate(order)}
    numbered = [np.array([number[value] for value in found.tolist()]) for found in labels]
    classes = tuple(str(value) for value in order)
    return _pool(arrays, numbered, classes, wanted_size(keys), progress)


def _part_of(stem: str) -> tuple[Part, str]:
    for part, prefix in PREFIXES.items():
        if stem.startswith(prefix):
            return part, stem.removeprefix(prefix)
    return "train", stem


def load_array(path: Path) -> NDArray[Any]:
    """Return the array of an NPY file, mapped."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array of numbers: {error}") from None
    return array


def load_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file by their names."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an NPZ archive")
            return {name: held[name] for name in held.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data.path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; data.path must name the NPZ file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an NPZ archive of numbers: {error}") from None


def images_of(array: NDArray[Any], name: str) -> Pixels:
    """Return an array as (n, height, width) or (n, 3, height, width), or say what is wrong."""
    if array.ndim == 4 and array.shape[3] in CHANNELS:
        array = array[..., :3] if array.shape[3] == 4 else array
        array = np.moveaxis(array, 3, 1)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[1] != 3):
        raise DataError(
            f"{name} has shape {array.shape}; expected (images, height, width), or with 1 or 3 "
            "channels after the images or at the end"
        )
    if not array.size:
        raise DataError(f"{name} has no image in it")
    return _typed(array, name)


def _typed(array: NDArray[Any], name: str) -> Pixels:
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} holds {array.dtype}, not numbers of pixels")
    found = array.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{name} has pixels that are NaN or infinite")
    return found


def _labels(array: NDArray[Any], count: int, name: str) -> NDArray[np.int64]:
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        raise DataError(
            f"{name} has shape {array.shape} of {array.dtype}; expected one whole number an image"
        )
    if len(flat) != count:
        raise DataError(f"{name} has {len(flat)} labels for {count} images")
    return flat.astype(np.int64)


def _pool(
    arrays: list[tuple[str, Part, Pixels]],
    labels: list[NDArray[Any]],
    classes: tuple[str, ...],
    size: int,
    progress: Progress,
) -> Pool:
    """Join arrays in one size and one type."""
    shapes = {array.shape[1:-2] for _, _, array in arrays}
    types = {str(array.dtype) for _, _, array in arrays}
    if len(shapes) > 1 or len(types) > 1:
        told = "; ".join(f"{name}: {array.dtype} {array.shape}" for name, _, array in arrays)
        raise DataError(f"arrays of different channels or types cannot be joined: {told}")
    sizes = [array.shape[-2:] for _, part, array in arrays for _ in array if part == "train"]
    height, width = (size, size) if size else commonest(sizes)
    others = sum(len(a) for _, _, a in arrays if a.shape[-2:] != (height, width))
    words = f"{others} images had another size; all were stretched to {height}×{width}."
    images = [sized(array, height, width, progress) for _, _, array in arrays]
    return Pool(
        images=images[0] if len(images) == 1 else np.concatenate(images),
        labels=np.concatenate(labels).astype(np.int64),
        ids=tuple(f"{name}/{i:06d}" for name, _, array in arrays for i in range(len(array))),
        parts=tuple(part for _, part, array in arrays for _ in range(len(array))),
        classes=classes,
        notes=(words,) if others and not size else (),
    )


def sized(array: Pixels, height: int, width: int, progress: Progress) -> Pixels:
    """Return images stretched to a size."""
    if array.shape[-2:] == (height, width):
        return array
    found = np.empty((*array.shape[:-2], height, width), dtype=array.dtype)
    for place, image in enumerate(array):
        if image.ndim == 2:
            found[place] = files.resize(np.ascontiguousarray(image), height, width)
        else:
            for channel, plane in enumerate(image):
                found[place, channel] = files.resize(np.ascontiguousarray(plane), height, width)
        if (place + 1) % 256 == 0 or place + 1 == len(array):
            progress("resizing images", place + 1, len(array))
    return found
