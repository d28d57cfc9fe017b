"""A trainer's data: checked, resident on the device, standardised batch by batch.

Images keep their type (uint8 takes a quarter of float32). On a CPU, converting each
batch costs 0.4 ms more per epoch of 1,600 64×64 images than gathering from a float32
copy, which is 1% of an epoch, so there is no copy. Images that are mapped from a file
stay mapped; images that do not fit on a GPU stay in main memory, and their batches are
transferred.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.errors import DataError
from tuner.records import Dataset, Labels, SplitName
from tuner.text import storable, storable_names
from tuner.train.identity import content
from tuner.train.objective import Data, Images, Reading, Split
from tuner.train.own_metrics import Truth

Wide = NDArray[np.float64]
Counts = NDArray[np.int64]
LEVELS = 256
"""The values of a uint8."""

DEVICE_SHARE = 0.5
"""Share of a GPU's free memory for images; the rest is for the model and its batches."""

CACHED = 1 << 17
"""Pixels that a CPU standardises at a time: 512 KB as float32, which fits in its cache."""

CHUNK = 64
"""How many images are read at a time to compute moments."""


@dataclass(frozen=True)
class Resident:
    """One split: its images where they fit, its labels on the device and in main memory."""

    images: Tensor
    """(n, channels, height, width), uint8 or float32, read-only."""
    labels: Tensor
    """On the device, even if the images are not."""
    true: NDArray[np.int64]
    ids: tuple[str, ...]
    patients: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.true)


@dataclass(frozen=True)
class Prepared:
    """An objective's data, ready to train on, with the training split's moments."""

    train: Resident
    val: Resident
    test: Resident | None
    classes: tuple[str, ...]
    fingerprint: str
    content: str
    """Hash of pixels and labels, independent of the objective's own fingerprint."""
    mean: Tensor
    """Mean of all training pixels by channel, (channels, 1, 1); used for every split."""
    scale: Tensor
    """Inverse standard deviation of all training pixels by channel, (channels, 1, 1)."""
    notes: Mapping[str, str]
    """How the data were read and where they are stored, for the record."""
    reading: Reading | None = None

    @property
    def inputs(self) -> tuple[int, int, int]:
        """The shape of one image: channels, height, width."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def truth(self, split: SplitName) -> Truth | None:
        """Return the labels and patients of a split for metrics; None without a test split."""
        return self._truths.get(split)

    @cached_property
    def _truths(self) -> dict[SplitName, Truth]:
        """The same object for every trial, since a truth keeps its resamples."""
        splits: dict[SplitName, Resident | None] = {
            "train": self.train,
            "val": self.val,
            "test": self.test,
        }
        return {
            name: Truth(name, split.true, split.patients, self.classes)
            for name, split in splits.items()
            if split is not None
        }

    def describe(self) -> Dataset:
        """Return the description of these data that the store keeps."""
        judged: dict[SplitName, Resident] = {"val": self.val}
        if self.test is not None:
            judged["test"] = self.test
        labels = tuple(
            Labels(name, split.ids, split.true, split.patients) for name, split in judged.items()
        )
        sizes: dict[str, int] = {"train": len(self.train)}
        sizes.update((name, len(split)) for name, split in judged.items())
        return Dataset(self.fingerprint, self.classes, sizes, labels)


class Feed:
    """Standardised batches of one split, gathered into one buffer that every batch reuses.

    `images` is the number of images of the split, `size` the largest batch. A batch
    is valid until the next one is requested. Allocating batches of tens of megabytes
    would cost more in page faults than the gathering itself.
    """

    def __init__(self, data: Prepared, split: Resident, size: int) -> None:
        self._data = data
        self._split = split
        self._images = split.images
        self.images = len(split)
        self.size = size
        shape = (size, *data.inputs)
        self._batch = torch.empty(shape, dtype=torch.float32, device=data.mean.device)
        self._raw = torch.empty(
            shape,
            dtype=split.images.dtype,
            device=split.images.device,
            # Pinned memory spares a second copy on the way to the GPU.
            pin_memory=self.place.type == "cpu" and self._batch.is_cuda,
        )
        few = max(1, CACHED // math.prod(data.inputs))
        self._together = size if self._batch.is_cuda else few

    def wider(self, size: int) -> "Feed":
        """Return a feed of the same split for batches of another size."""
        return Feed(self._data, self._split, size)

    @property
    def place(self) -> torch.device:
        """The device of the images, where indices must be too."""
        return self._images.device

    def gather(self, indices: Tensor) -> Tensor:
        """Return the images at the indices, standardised."""
        raw = self._raw[: len(indices)]
        torch.index_select(self._images, 0, indices, out=raw)
        return self._standardise(raw)

    def between(self, start: int, stop: int) -> Tensor:
        """Return the images from start to stop, in the split's order, standardised."""
        return self._standardise(self._images[start:stop])

    def _standardise(self, raw: Tensor) -> Tensor:
        batch = self._batch[: len(raw)]
        # In chunks that fit in the cache, because this makes three passes over them.
        for start in range(0, len(raw), self._together):
            some = batch[start : start + self._together]
            some.copy_(raw[start : start + self._together])
            some.sub_(self._data.mean).mul_(self._data.scale)
        return batch


def prepare(data: Data, device: torch.device) -> Prepared:
    """Check an objective's data and put them on the device, or in main memory if too large."""
    _check(data)
    splits = (data.train, data.val, data.test)
    size = sum(split.images.nbytes for split in splits if split is not None)
    home, reason = choose_home(size, device, free_bytes(device))
    mean, deviation = moments(_with_channels(data.train.images))
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    return Prepared(
        train=_resident(data.train, home, device),
        val=_resident(data.val, home, device),
        test=None if data.test is None else _resident(data.test, home, device),
        classes=storable_names([str(name) for name in data.classes]),
        fingerprint=storable(str(data.fingerprint)),
        content=content(data),
        mean=_by_channel(mean, device),
        scale=_by_channel(scale, device),
        notes={
            "residency": reason,
            **({"data": storable(" ".join(data.notes))} if data.notes else {}),
        },
        reading=data.reading,
    )


def choose_home(needed: int, device: torch.device, free: int | None) -> tuple[torch.device, str]:
    """Return where to keep images of this many bytes, and the reason."""
    size = f"{needed / 1e6:,.0f} MB of images"
    if device.type == "cpu" or free is None:
        return device, f"{size} where they were loaded"
    if needed <= DEVICE_SHARE * free:
        return device, f"{size} on {device}, which has {free / 1e6:,.0f} MB free"
    return torch.device("cpu"), (
        f"{size} in main memory: {device} has {free / 1e6:,.0f} MB free, and models need room too"
    )


def free_bytes(device: torch.device) -> int | None:
    """Return the free bytes of a GPU; None for a device without its own memory."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0])


def moments(images: Images) -> tuple[Wide, Wide]:
    """Return mean and standard deviation of all pixels by channel, of (n, channels, h, w)."""
    if images.dtype == np.uint8:
        counts = np.array([_histogram(images[:, channel]) for channel in range(images.shape[1])])
        return _moments_of(counts)
    count = images.size // images.shape[1]
    mean = _sum(images, lambda chunk: chunk) / count
    centre = mean[:, None, None]
    return mean, np.sqrt(_sum(images, lambda chunk: np.square(chunk - centre)) / count)


def _moments_of(counts: Counts) -> tuple[Wide, Wide]:
    """Return the same from each channel's number of pixels by value."""
    values = np.arange(counts.shape[1])
    number = counts[0].sum()
    mean = (counts @ values) / number
    centred = np.square(values - mean[:, None])
    return mean, np.sqrt((counts * centred).sum(axis=1) / number)


def _histogram(images: Images) -> Counts:
    """Count the pixels of each value, in one pass over the bytes."""
    total = np.zeros(LEVELS * LEVELS, dtype=np.int64)
    rest = np.zeros(LEVELS, dtype=np.int64)
    for start in range(0, len(images), CHUNK):
        flat = np.ascontiguousarray(images[start : start + CHUNK]).reshape(-1)
        even = flat.size - flat.size % 2
        # Two pixels at a time are one number of 16 bits, which takes half as long to count.
        total += np.bincount(flat[:even].view(np.uint16), minlength=LEVELS * LEVELS)
        rest += np.bincount(flat[even:], minlength=LEVELS)
    pairs = total.reshape(LEVELS, LEVELS)
    counted: Counts = pairs.sum(axis=0) + pairs.sum(axis=1) + rest
    return counted


def _sum(images: Images, value: Callable[[Wide], Wide]) -> Wide:
    """Sum a value of every pixel by channel, in a fixed order."""
    total = np.zeros(images.shape[1])
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK].astype(np.float64)
        total += value(chunk).sum(axis=(0, 2, 3))
    return total


def _by_channel(values: Wide, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]


def _with_channels(images: Images) -> Images:
    return images[:, None] if images.ndim == 3 else images


def _resident(split: Split, home: torch.device, device: torch.device) -> Resident:
    images = np.ascontiguousarray(_with_channels(split.images))
    labels = np.ascontiguousarray(split.labels, dtype=np.int64)
    with warnings.catch_warnings():
        # Arrays mapped read-only from a cache are fine: resident images are never written.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        held = torch.from_numpy(images).to(home), torch.from_numpy(labels).to(device)
    ids = storable_names([str(name) for name in split.ids])
    patients = storable_names([str(name) for name in split.patients])
    return Resident(*held, true=labels, ids=ids, patients=patients)


def _check(data: Data) -> None:
    splits = {"training": data.train, "validation": data.val, "test": data.test}
    if len(data.classes) < 2:
        raise DataError(f"the data have {len(data.classes)} class(es); two or more are needed")
    for name, split in splits.items():
        if split is not None:
            fault = _fault(split, len(data.classes), _with_channels(data.train.images).shape[1:])
            if fault:
                raise DataError(f"the {name} split cannot be used: {fault}")


def _fault(split: Split, classes: int, shape: tuple[int, ...]) -> str | None:
    images, labels = split.images, split.labels
    if images.ndim not in (3, 4) or len(images) == 0:
        layouts = "(n, height, width) or (n, channels, height, width)"
        return f"expected images {layouts}, got shape {images.shape}"
    if _with_channels(images).shape[1:] != shape:
        return f"its images are {images.shape[1:]}, the training split's are {shape}"
    if labels.shape != (len(images),) or len(split.ids) != len(images):
        return f"{len(images)} images, {labels.shape} labels and {len(split.ids)} ids do not match"
    if len(split.patients) not in (0, len(images)):
        return f"{len(images)} images and {len(split.patients)} patients do not match"
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels must be 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
    return _pixel_fault(images)


def _pixel_fault(images: Images) -> str | None:
    if images.dtype not in (np.uint8, np.float32):
        return f"expected uint8 or float32 images, got {images.dtype}"
    starts = range(0, len(images), CHUNK) if images.dtype == np.float32 else ()
    if not all(np.isfinite(images[start : start + CHUNK]).all() for start in starts):
        return "some pixels are NaN or infinite"
    return None
