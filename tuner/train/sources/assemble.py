"""Turns a pool of images into the three splits for a trainer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from tuner.records import Value
from tuner.text import storable_names
from tuner.train.objective import Data, Reading, Split
from tuner.train.sources.kept import new_array
from tuner.train.sources.pool import Part, Pool
from tuner.train.sources.splitting import Division, divide
from tuner.train.sources.window import Window, find_window

MEMORY_SHARE = 0.25
"""Share of the available memory; splits that take more are mapped from a file."""
CHUNK = 256
"""How many images are windowed at a time."""

Places = NDArray[np.int64]
TRAINED: tuple[Part, Part] = ("train", "val")


def assemble(pool: Pool, keys: Mapping[str, Value], cache: Path) -> Data:
    """Divide and window a pool; images that do not fit in memory are mapped from the cache."""
    division = Division.read(keys)
    train, val, words = divided(pool, division)
    test = pool.where("test")
    window = find_window(pool.images, train)
    free = psutil.virtual_memory().available
    mapped = _bytes(pool) > MEMORY_SHARE * free
    folder = cache / "splits" if mapped else None
    splits = {
        name: _split(pool, places, window, folder)
        for name, places in (("train", train), ("val", val), ("test", test))
    }
    notes = [*pool.notes, *words]
    notes += [window.words()] if window else []
    notes += [_mapped_words(pool, free)] if mapped else []
    notes += [] if len(test) else [NO_TEST]
    return Data(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"] if len(test) else None,
        classes=pool.classes,
        fingerprint=_fingerprint(pool, splits),
        notes=tuple(notes),
        reading=Reading(
            depth=str(pool.images.dtype),
            kind=pool.kind,
            fit=pool.fit,
            depths=pool.depths,
            window=(window.low, window.high) if window else None,
        ),
    )


NO_TEST = "There is no test set: its columns stay empty, and the gap cannot be measured."


def redivided(data: Data, keys: Mapping[str, Value]) -> Data:
    """Return the data with training and validation divided again by these keys."""
    if Division.read(keys).as_found:
        return data
    both = (data.train, data.val)
    pool = Pool(
        images=np.concatenate([split.images for split in both]),
        labels=np.concatenate([split.labels for split in both]),
        ids=storable_names([str(name) for split in both for name in split.ids]),
        parts=tuple(name for name, split in zip(TRAINED, both, strict=True) for _ in split.ids),
        classes=data.classes,
        patients=storable_names(_patients_of(both)),
    )
    train, val, words = divided(pool, Division.read(keys))
    splits = {"train": _split(pool, train, None, None), "val": _split(pool, val, None, None)}
    digest = hashlib.sha256(f"{data.fingerprint} {_fingerprint(pool, splits)}".encode())
    return replace(
        data,
        train=splits["train"],
        val=splits["val"],
        fingerprint=digest.hexdigest(),
        notes=(*data.notes, *words),
    )


def _patients_of(splits: Sequence[Split]) -> tuple[str, ...]:
    """Return the patients of all images; an image without one counts as a patient of its own."""
    if not any(split.patients for split in splits):
        return ()
    return tuple(
        patient
        for split in splits
        for patient in (split.patients or [f"image {one}" for one in split.ids])
    )


def divided(pool: Pool, division: Division) -> tuple[Places, Places, tuple[str, ...]]:
    """Return the indices of training and validation images, and a note on the division."""
    given = pool.where("val")
    if len(given) and division.as_found:
        return pool.where("train"), given, ()
    both = pool.where("train", "val")
    if len(given):
        # After redividing, validation keeps its share in the source.
        division = Division(len(given) / len(both), division.folds, division.seed)
    mask = divide(
        [int(pool.labels[i]) for i in both],
        [pool.ids[i] for i in both],
        [pool.patients[i] for i in both] if pool.patients else (),
        division,
        pool.classes,
    )
    by = "by patient and class" if pool.patients else "by class"
    words = f"Validation is {division.words()}, divided {by}: {int(mask.sum())} of {len(both)}."
    return both[~mask], both[mask], (words,)


def _split(pool: Pool, places: Places, window: Window | None, folder: Path | None) -> Split:
    shape = (len(places), *pool.images.shape[1:])
    images: NDArray[np.uint8] = new_array(folder, shape)
    for start in range(0, len(places), CHUNK):
        taken = pool.images[places[start : start + CHUNK]]
        images[start : start + CHUNK] = window.apply(taken) if window else taken
    return Split(
        images=images,
        labels=pool.labels[places],
        ids=tuple(pool.ids[i] for i in places),
        patients=tuple(pool.patients[i] for i in places) if pool.patients else (),
    )


def _bytes(pool: Pool) -> int:
    return int(np.prod(pool.images.shape))


def _mapped_words(pool: Pool, free: int) -> str:
    return (
        f"{_bytes(pool) / 1e6:,.0f} MB of images are mapped from a file: "
        f"{free / 1e6:,.0f} MB of memory are available."
    )


def _fingerprint(pool: Pool, splits: Mapping[str, Split]) -> str:
    """Hash the content that is trained and evaluated on, without file names and locations."""
    digest = hashlib.sha256("\0".join(pool.classes).encode())
    for name, split in splits.items():
        digest.update(f"{name} {split.images.shape}".encode())
        for start in range(0, len(split.images), CHUNK):
            digest.update(np.ascontiguousarray(split.images[start : start + CHUNK]).data)
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()
