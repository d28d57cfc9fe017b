"""The 1,797 handwritten digits of scikit-learn, with a fixed test set."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.records import Value
from tuner.train.objective import Data, Progress
from tuner.train.sources.assemble import assemble
from tuner.train.sources.pool import Part, Pool
from tuner.train.sources.splitting import Division, divide

CLASSES = tuple("0123456789")
WHITE = 16
"""The brightest value in the file: each pixel counts the black dots among 4×4 of the scan."""

TEST = Division(fraction=0.2, folds=0, seed=1797)
"""The test set: constant, so that test accuracies of all studies are comparable."""


def load(data: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
    """Return three splits with equal shares of every digit; only the test set is fixed."""
    progress("reading digits", 0, 1)
    images, labels = _read()
    ids = tuple(f"digit-{number:04d}" for number in range(1, len(labels) + 1))
    tested = divide(labels.tolist(), ids, (), TEST, CLASSES)
    parts: tuple[Part, ...] = tuple("test" if test else "train" for test in tested)
    progress("reading digits", 1, 1)
    return assemble(Pool(images, labels, ids, parts, CLASSES), data, cache)


def _read() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "the digits come with scikit-learn, which is not installed; pip install 'tuner[digits]'"
        ) from None
    found = load_digits()
    images = np.rint(found.images * (255 / WHITE)).astype(np.uint8)
    return images, found.target.astype(np.int64)
