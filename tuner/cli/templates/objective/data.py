"""The images of my_objective: files in a folder, or synthetic images until you have one.

The folder is data.path in the study file, with one folder per class:

    train/CLASS/*.png     training images (PNG, JPEG, TIFF, BMP, DICOM)
    val/CLASS/*.png       validation images; without this folder, a fraction of train/
    test/CLASS/*.png      test images; without this folder, test columns stay empty
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tuner.records import Value
from tuner.train.objective import Data, Progress
from tuner.train.sources.assemble import assemble
from tuner.train.sources.load import load as load_shared
from tuner.train.sources.pool import Part, Pool

CLASSES = ("large", "small")
DRAWN: Mapping[Part, int] = {"train": 400, "test": 100}
"""How many images are drawn if no path is given."""


def load(data: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
    """Return the training, validation and test images that the [data] keys ask for."""
    if data["path"]:
        # Instead of "folder": "npy", "npz" or "manifest" (a CSV with path, label and patient).
        return load_shared("folder", data, cache, progress)
    # Without a path: synthetic images, so that everything runs before yours are in place.
    # Your own loader looks the same: fill a Pool; `assemble` splits it into training and
    # validation, windows 16-bit and float images, and fingerprints it.
    progress("drawing images", 0, 1)
    pool = draw(int(data["image_size"]))
    progress("drawing images", 1, 1)
    return assemble(pool, data, cache)


def draw(size: int) -> Pool:
    """Draw large and small bright discs on noise, the same ones every time."""
    random = np.random.default_rng(0)
    parts = [part for part, count in DRAWN.items() for _ in range(count)]
    labels = np.arange(len(parts), dtype=np.int64) % len(CLASSES)
    images = random.normal(100, 40, (len(parts), size, size))
    rows, columns = np.mgrid[:size, :size]
    for image, label in zip(images, labels, strict=True):
        row, column = random.uniform(0.4 * size, 0.6 * size, 2)
        radius = random.normal((0.3, 0.2)[label], 0.03) * size
        image[np.hypot(rows - row, columns - column) < radius] += 60
    return Pool(
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels,
        ids=tuple(f"{part}-{number}" for number, part in enumerate(parts)),
        parts=tuple(parts),
        classes=CLASSES,
    )
