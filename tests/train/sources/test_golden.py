"""Golden content: the pixels and fingerprints of studies stored by earlier versions.

A study is extended and compared, and its winner used, by the fingerprint of its data. A new option
of [data] must leave them all unchanged if it is not set.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.sources.image_files import (
    Pixels,
    chest,
    deepen,
    draw,
    save,
    write_folder,
    write_npy,
    write_npz,
)
from tuner.records import Value

Keys = dict[str, Value]


def odd_folder(folder: Path) -> Path:
    """Write a folder of colours, palettes, transparency, one bit, and other sizes; no JPEG."""
    place = write_folder(folder) / "train" / "pneumonia"
    grey = draw("train", 1, 90)
    save(place / "rgb.png", np.stack([grey, grey // 2, grey // 3], axis=2))
    save(place / "rgba.png", np.stack([grey, grey // 2, grey, np.tril(grey)], axis=2))
    Image.fromarray(grey).convert("P").save(place / "palette.png")
    Image.fromarray(grey > 100).save(place / "bit.png")
    Image.fromarray(grey).convert("CMYK").save(place / "cmyk.tif")
    Image.fromarray(np.stack([grey, np.tril(grey)], axis=2), "LA").save(place / "la.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey[:12]).save(place / "turned.png", exif=exif)
    save(place / "large.bmp", draw("train", 1, 91, size=40))
    return folder


def source(
    kind: str, write: Callable[..., Path], *change: Callable[[Pixels], Pixels], name: str = "data"
) -> Callable[[Path], Keys]:
    """Return a maker of a source's files and the keys of [data] for them."""
    more: tuple[object, ...] = (".tif", *change) if change and kind == "folder" else change
    return lambda place: {"source": kind, "path": str(write(place / name, *more))}


MAKERS: Mapping[str, Callable[[Path], Keys]] = {
    "npy": source("npy", write_npy),
    "npy deep": source("npy", write_npy, deepen),
    "npz": source("npz", write_npz, name="data.npz"),
    "folder": source("folder", write_folder),
    "folder deep": source("folder", write_folder, deepen),
    "folder float": source("folder", write_folder, lambda image: image.astype(np.float32) / 7),
    "odd": source("folder", odd_folder),
    "odd 24": lambda place: {**source("folder", odd_folder)(place), "image_size": 24},
    "dicom": lambda place: {
        "source": "folder",
        "path": str(write_folder(place / "data", ".dcm", deepen)),
    },
}
GOLDEN: Mapping[str, tuple[str, str]] = {
    "npy": ("5669862a838e3cfb", "52819c760f9fe6e8"),
    "npy deep": ("1a00d2ece235c7ed", "0d4573df13798e57"),
    "npz": ("eaaf196ad64950f0", "b91118abb9b1ef82"),
    "folder": ("0ab79461390aa1f7", "127f56d43b63e77c"),
    "folder deep": ("f5339600d4da9a87", "f0c8b6a9c3633763"),
    "folder float": ("f5339600d4da9a87", "f0c8b6a9c3633763"),
    "odd": ("b67c3dcbcec250c6", "d92c9cab700e9340"),
    "odd 24": ("d7df869b12f7dc18", "f71e307c37f4b403"),
    "dicom": ("79aa9565e2c62ada", "6b6f41eecf96ac77"),
}
"""The beginning of each source's fingerprint and of a hash of its training pixels."""


@pytest.mark.parametrize("case", MAKERS)
def test_content_is_what_it_always_was(case: str, tmp_path: Path) -> None:
    """Fingerprint and pixels are those from before the options `fit` and `depths`."""
    data = chest(tmp_path / "cache", **MAKERS[case](tmp_path))
    pixels = hashlib.sha256(np.ascontiguousarray(data.train.images).tobytes()).hexdigest()
    assert (data.fingerprint[:16], pixels[:16]) == GOLDEN[case]
