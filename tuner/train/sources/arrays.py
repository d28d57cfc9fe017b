"""Arrays of images: a folder with one NPY file per class, or an NPZ archive like MedMNIST's."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.records import Value
from tuner.text import storable_name
from tuner.train.objective import Progress
from tuner.train.sources.files import Fit
from tuner.train.sources.pool import PARTS, Part, Pixels, Pool, number_classes
from tuner.train.sources.shaping import Shape, fitted, ranged

CHANNELS = (1, 3, 4)
PREFIXES: Mapping[Part, str] = {"test": "test_", "val": "val_"}


def read_npy(path: Path, keys: Mapping[str, Value], progress: Progress) -> Pool:
    """Return a folder's arrays: `CLASS.npy`, `test_CLASS.npy`, optionally `val_CLASS.npy`."""
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
    return _pool(arrays, labels, classes, Shape.read(keys), progress)


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
    return _pool(arrays, numbered, classes, Shape.read(keys), progress)


def _part_of(stem: str) -> tuple[Part, str]:
    for part, prefix in PREFIXES.items():
        if stem.startswith(prefix):
            return part, stem.removeprefix(prefix)
    return "train", stem


def load_array(path: Path) -> NDArray[Any]:
    """Return the array of an NPY file, mapped."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    # As in `files`: a truncated or malicious file may raise any error.
    except Exception as error:  # noqa: BLE001
        raise DataError(f"{path} cannot be read as an array of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive, not an array of numbers")
    return array


def load_archive(path: Path, called: str = "") -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file by name: only those whose names end so, if any does.

    A member's size is stated twice: the archive has its inflated bytes, and its own header has
    its type and shape. Both are checked before anything is inflated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
        with np.load(path, allow_pickle=False) as held:
            names = [name for name in held.files if name.endswith(called)] or held.files
            arrays = {name: held[name] for name in names}
    except FileNotFoundError:
        raise DataError(f"there is no file {path}; correct data.path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; data.path must name the NPZ file") from None
    except DataError:
        raise
    # As in `files`: a truncated or malicious archive may raise any error.
    except Exception as error:  # noqa: BLE001
        if isinstance(error, zipfile.BadZipFile) and _is_single(path):
            raise DataError(f"{path} is a single array, not an NPZ archive") from None
        raise DataError(f"{path} cannot be read as an NPZ archive of numbers: {error}") from None
    if others := [name for name, held in arrays.items() if not isinstance(held, np.ndarray)]:
        raise DataError(f"{others[0]} in {path} is not an array; write the archive again")
    return arrays


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Raise if members exceed the memory, or contradict their own headers."""
    free = psutil.virtual_memory().available
    total = sum(member.file_size for member in archive.infolist())
    if total > free:
        raise DataError(
            f"{path} inflates to {total / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are "
            "available; write its images as files, or as NPY arrays, which are mapped"
        )
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            continue
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
        # Arrays of objects are pickles, which NumPy refuses later.
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize > member.file_size:
            raise DataError(
                f"{member.filename} in {path} claims the shape {shape} of {dtype}, which is more "
                f"than its {member.file_size:,} bytes; write the archive again"
            )


def _is_single(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == np.lib.format.MAGIC_PREFIX


def images_of(array: NDArray[Any], name: str) -> Pixels:
    """Return an array as (n, height, width) or (n, 3, height, width), or raise a DataError."""
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
        raise DataError(f"{name} has no images")
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
            f"{name} has shape {array.shape} of {array.dtype}; expected one whole number per image"
        )
    if len(flat) != count:
        raise DataError(f"{name} has {len(flat)} labels for {count} images")
    return flat.astype(np.int64)


def _pool(
    arrays: list[tuple[str, Part, Pixels]],
    labels: list[NDArray[Any]],
    classes: tuple[str, ...],
    shape: Shape,
    progress: Progress,
) -> Pool:
    """Join arrays, bringing them to one size and one type."""
    notes = []
    types = {str(array.dtype) for _, _, array in arrays}
    if len({array.shape[1:-2] for _, _, array in arrays}) > 1:
        raise DataError(f"arrays with different channels cannot be joined: {_listed(arrays)}")
    if len(types) > 1 and shape.depths == "same":
        raise DataError(
            f"arrays of different types cannot be joined: {_listed(arrays)}; set data.depths = "
            "'range' to scale each by the range of its own type, or 'window' to take all values "
            "as they are, or convert them to one type"
        )
    depth = common_array_depth(types, shape.depths)
    if len(types) > 1:
        notes.append(f"Arrays of different types were joined (depths = {shape.depths!r}).")
    arrays = [(name, part, array_deepened(a, depth, shape.depths)) for name, part, a in arrays]
    sizes = [array.shape[-2:] for _, part, array in arrays for _ in array if part == "train"]
    height, width = shape.target(sizes)
    every = [array.shape[-2:] for _, _, array in arrays for _ in array]
    images = [sized(array, height, width, progress, shape.fit) for _, _, array in arrays]
    return Pool(
        images=images[0] if len(images) == 1 else np.concatenate(images),
        labels=np.concatenate(labels).astype(np.int64),
        ids=tuple(f"{name}/{i:06d}" for name, _, array in arrays for i in range(len(array))),
        parts=tuple(part for _, part, array in arrays for _ in range(len(array))),
        classes=classes,
        notes=(*shape.words(every, height, width), *notes),
        fit=shape.fit,
        depths=shape.depths,
    )


def _listed(arrays: list[tuple[str, Part, Pixels]]) -> str:
    return "; ".join(f"{name}: {array.dtype} {array.shape}" for name, _, array in arrays)


RANGES: Mapping[str, tuple[float, float]] = {"uint8": (0, 255), "uint16": (0, 65535)}
"""The lowest and highest value of each type; floats have none."""


def common_array_depth(types: set[str], depths: str) -> str:
    """Return the type that arrays of these types are converted to."""
    if depths == "window":
        return "float32"
    if depths == "range":
        return "uint8" if types == {"uint8"} else "uint16"
    (depth,) = types
    return depth


def array_deepened(array: Pixels, depth: str, depths: str) -> Pixels:
    """Return an array in the common type, as `depths` says."""
    if depths == "range":
        if str(array.dtype) not in RANGES:
            raise DataError(
                f"an array of {array.dtype} has no fixed range; depths = 'window' takes all "
                "values as they are"
            )
        return ranged(array, RANGES[str(array.dtype)], depth)
    return array.astype(depth) if depths == "window" else array


def sized(
    array: Pixels, height: int, width: int, progress: Progress, fit: Fit = "stretch"
) -> Pixels:
    """Return images in this size, stretched, padded or cropped."""
    if array.shape[-2:] == (height, width):
        return array
    found = np.empty((*array.shape[:-2], height, width), dtype=array.dtype)
    for place, image in enumerate(array):
        if image.ndim == 2:
            found[place] = fitted(np.ascontiguousarray(image), height, width, fit)
        else:
            for channel, plane in enumerate(image):
                found[place, channel] = fitted(np.ascontiguousarray(plane), height, width, fit)
        if (place + 1) % 256 == 0 or place + 1 == len(array):
            progress("resizing images", place + 1, len(array))
    return found
