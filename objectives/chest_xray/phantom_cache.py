"""A cache of generated images on disk, so that they are generated only once.

A file contains the images' bytes followed by their SHA-256; a truncated or damaged file is detected
and generated again. Its name contains a hash of everything that determines the images, including
the generator's source, so that a changed generator never reads an older one's images.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.home import make_folder, open_private
from tuner.train.sources.kept import disk_errors, exclusive, sweep

DIGEST_BYTES = 32


@dataclass(frozen=True)
class DrawnImages:
    """Images and the SHA-256 of their bytes."""

    images: NDArray[np.uint8]
    digest: str


def keep(
    path: Path,
    shape: tuple[int, int, int],
    make: Callable[[], NDArray[np.uint8]],
    waiting: Callable[[], None],
) -> DrawnImages:
    """Return the images stored at a path; generate and store them if they are missing or damaged.

    Of several simultaneous processes, one generates the images and the others wait, calling
    `waiting` repeatedly.
    """
    with disk_errors(path):
        make_folder(path.parent)
        found = _read(path, shape)
        if found is not None:
            return found
        with exclusive(path, waiting):
            sweep(path)
            found = _read(path, shape)
            return found if found is not None else _write(path, make())


def name_of(stem: str, shaped_by: Mapping[str, object], sources: Path) -> str:
    """Return a file name that changes with anything that determines the images."""
    digest = hashlib.sha256(json.dumps(dict(shaped_by), sort_keys=True).encode())
    for pattern in ("anatomy*.py", "phantom*.py"):
        for source in sorted(sources.glob(pattern)):
            digest.update(hashlib.sha256(source.read_bytes()).digest())
    return f"{stem}-{digest.hexdigest()[:20]}.u8"


def _read(path: Path, shape: tuple[int, int, int]) -> DrawnImages | None:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        return None
    if content.size != shape[0] * shape[1] * shape[2] + DIGEST_BYTES:
        return None
    images, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if _digest(images) != digest.tobytes():
        return None
    return DrawnImages(images=images.reshape(shape), digest=digest.tobytes().hex())


def _write(path: Path, images: NDArray[np.uint8]) -> DrawnImages:
    digest = _digest(images)
    # Written to a temporary file and renamed: a reader sees a complete file or none, even if the
    # file system has no locks and two processes write at once.
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        # A dead process with our pid may have left one.
        aside.unlink(missing_ok=True)
        with os.fdopen(open_private(aside, os.O_WRONLY | os.O_EXCL), "wb") as file:
            images.tofile(file)
            file.write(digest)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return DrawnImages(images=images, digest=digest.hex())


def _digest(images: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(images).data).digest()
