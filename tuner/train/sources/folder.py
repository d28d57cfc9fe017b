"""A folder of images: `train/CLASS/*`, and optionally `val/CLASS/*` and `test/CLASS/*`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tuner.errors import DataError
from tuner.records import Value
from tuner.text import storable_name
from tuner.train.objective import Progress
from tuner.train.sources.decoding import Decoded, ImageFile, decode
from tuner.train.sources.files import SUFFIXES
from tuner.train.sources.pool import PARTS, Pool, number_classes


def read_folder(path: Path, keys: Mapping[str, Value], cache: Path, progress: Progress) -> Pool:
    """Return all images below a folder."""
    if not path.is_dir():
        raise DataError(f"there is no folder {path}; correct data.path")
    if not (path / "train").is_dir():
        raise DataError(
            f"{path} has no folder `train`; expected {path}/train/CLASS/IMAGE.png, and optionally "
            "val/CLASS/… and test/CLASS/…"
        )
    found, others = _files(path)
    names = {part: {one.name for one in found if one.part == part} for part in PARTS}
    classes = number_classes(names, path)
    decoded = decode(found, keys, cache, progress)
    notes = [f"{others} files that are not images were ignored."] if others else []
    return pooled(found, decoded, classes, notes)


def pooled(
    found: list[ImageFile], decoded: Decoded, classes: tuple[str, ...], notes: list[str]
) -> Pool:
    """Return a pool of the readable files."""
    read = [found[place] for place in decoded.read]
    lost = set(classes) - {one.name for one in read if one.part != "test"}
    if lost:
        raise DataError(f"no training image of class {min(lost)} can be read")
    number = {name: label for label, name in enumerate(classes)}
    known = any(one.patient for one in read)
    return Pool(
        images=decoded.images,
        labels=np.array([number[one.name] for one in read], dtype=np.int64),
        ids=tuple(one.id for one in read),
        parts=tuple(one.part for one in read),
        classes=classes,
        # An image without a patient counts as a patient of its own.
        patients=tuple(one.patient or f"image {one.id}" for one in read) if known else (),
        notes=(*notes, *decoded.notes),
        kind=decoded.kind,
        fit=decoded.shape.fit,
        depths=decoded.shape.depths,
    )


def _files(path: Path) -> tuple[list[ImageFile], int]:
    found: list[ImageFile] = []
    others = 0
    for part in PARTS:
        root = path / part
        folders = [item for item in root.iterdir() if item.is_dir()] if root.is_dir() else []
        for folder in sorted(item for item in folders if not item.name.startswith(".")):
            images = []
            for file in sorted(folder.rglob("*")):
                relative = file.relative_to(path)
                if file.is_dir() or any(piece.startswith(".") for piece in relative.parts):
                    continue
                if file.suffix.lower() not in SUFFIXES:
                    others += 1
                    continue
                name = storable_name(relative.as_posix())
                images.append(ImageFile(file, name, storable_name(folder.name), part))
            if not images and part == "train":
                kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
                raise DataError(
                    f"the class folder {folder} has no images ({kinds}); fill or remove it"
                )
            found += images
    return sorted(found, key=lambda one: one.id), others
