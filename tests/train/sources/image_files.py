"""Real files of small images that a test can put wherever a source looks for them."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuner.records import Value
from tuner.train.objective import Data, find

SIZE = 16
CLASSES = ("normal", "pneumonia")
COUNTS: Mapping[str, int] = {"train": 20, "test": 8}
"""Images of each class."""

Pixels = NDArray[Any]


def draw(part: str, label: int, number: int, size: int = SIZE) -> NDArray[np.uint8]:
    """Draw a unique image: noise, brighter on the right for class 1."""
    random = np.random.default_rng([len(part), label, number])
    image = random.integers(20, 120, (size, size))
    image[:, size // 2 :] += 80 * label
    return image.astype(np.uint8)


def series(part: str, label: int, count: int | None = None) -> NDArray[np.uint8]:
    """Draw all images of a class in a split."""
    return np.stack([draw(part, label, n) for n in range(count or COUNTS[part])])


def deepen(image: Pixels) -> NDArray[np.uint16]:
    """Return an image as a 12-bit detector would give it."""
    return (image.astype(np.uint16) * 16 + 7).astype(np.uint16)


def save(path: Path, image: Pixels) -> Path:
    """Write an image in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        return save_dicom(path, image)
    Image.fromarray(image).save(path, quality=95)  # which formats other than JPEG ignore
    return path


def save_dicom(path: Path, image: Pixels, **elements: Any) -> Path:
    """Write an image as a DICOM file, with more elements or others than the usual ones."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    held = Dataset()
    held.file_meta = meta
    held.SOPClassUID = meta.MediaStorageSOPClassUID
    held.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    bits = 8 * image.dtype.itemsize
    usual = {
        "Rows": image.shape[0],
        "Columns": image.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "PixelData": image.tobytes(),
    }
    for name, value in {**usual, **elements}.items():
        setattr(held, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    held.save_as(path, enforce_file_format=True)
    return path


@dataclass
class Steps:
    """The steps of progress that a source reported."""

    told: list[str] = field(default_factory=list)

    def __call__(self, what: str, _done: int, _total: int) -> None:
        """Record a step."""
        self.told.append(what)


def chest(
    cache: Path, steps: Callable[[str, int, int], None] | None = None, /, **keys: Value
) -> Data:
    """Load data by the chest X-ray objective, as a trainer would."""
    found = find("chest_xray", [])
    declared = found.objective.declarations().data
    filled = {name: one.default for name, one in declared.items()}
    return found.load_data({**filled, **keys}, cache, steps or Steps())


def write_npy(folder: Path, change: Callable[[Pixels], Pixels] = lambda image: image) -> Path:
    """Write the course's layout: one array per class."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, name in enumerate(CLASSES):
        np.save(folder / f"{name}.npy", change(series("train", label)))
        np.save(folder / f"test_{name}.npy", change(series("test", label)))
    return folder


def write_npz(path: Path, change: Callable[[Pixels], Pixels] = lambda image: image) -> Path:
    """Write MedMNIST's layout: an archive of arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Pixels] = {}
    for part in COUNTS:
        both = [change(series(part, label)) for label in (0, 1)]
        arrays[f"{part}_images"] = np.concatenate(both)
        arrays[f"{part}_labels"] = np.repeat([0, 1], COUNTS[part])[:, None]
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_folder(
    folder: Path, suffix: str = ".png", change: Callable[[Pixels], Pixels] = lambda image: image
) -> Path:
    """Write one folder per class and one file per image."""
    for part, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            for n in range(count):
                save(folder / part / name / f"{n:03d}{suffix}", change(draw(part, label, n)))
    return folder


def write_manifest(
    folder: Path, columns: Sequence[str] = ("path", "label", "split", "patient")
) -> Path:
    """Write files of three formats and a table of them, two images per patient."""
    rows = []
    for part, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            for n in range(count):
                suffix = (".png", ".jpg", ".bmp")[n % 3]
                path = save(
                    folder / "files" / f"{part}{label}{n:03d}{suffix}", draw(part, label, n)
                )
                patient = f"{part}-{label}-{n // 2}"
                split = "test" if part == "test" else ""
                cells = (path.relative_to(folder).as_posix(), name, split, patient)
                rows.append(dict(zip(("path", "label", "split", "patient"), cells, strict=True)))
    return write_table(folder / "images.csv", rows, columns)


def write_table(
    path: Path, rows: Sequence[Mapping[str, str]], columns: Sequence[str] = ("path", "label")
) -> Path:
    """Write rows as a CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path
