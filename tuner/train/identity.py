"""The identity of training data: their content, the images per class, and the set of images.

Nothing here loads torch, because a launch uses it too.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tuner.records import DataIdentity, Identity, Value
from tuner.train.code import Code, trainer_fingerprint
from tuner.train.objective import Data, Split
from tuner.version import version

DIVIDING = frozenset({"val_fraction", "folds", "split_seed", "image_size"})
"""Keys of [data] that only divide or resize the same images."""
CHUNK = 256


def identity(code: Code, data: DataIdentity) -> Identity:
    """Return the identity of a trial's code and data, for the store to compare."""
    return Identity(
        files=dict(code.files),
        packages=dict(code.packages),
        data=data,
        tuner=version(),
        trainer=trainer_fingerprint(),
    )


def data_identity(data: Data, keys: Mapping[str, Value], fingerprint: str) -> DataIdentity:
    """Return the identity of data loaded for these [data] keys, given their content hash."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    there = {name: split for name, split in splits.items() if split is not None}
    counts = {name: _counts(split.labels, data.classes) for name, split in there.items()}
    same_images = {name: keys[name] for name in sorted(keys) if name not in DIVIDING}
    return DataIdentity(
        keys=json.dumps(dict(keys), sort_keys=True),
        fingerprint=fingerprint,
        counts=counts,
        # Only the shared sources are known to give the same images for every division.
        images_keys=json.dumps(same_images) if data.reading is not None else "",
        images=_images(data, there) if data.reading is not None else "",
    )


def content(data: Data) -> str:
    """Hash the data that a trial is trained and evaluated on.

    The shared sources have hashed them already. An objective's own fingerprint cannot be
    verified, so its pixels and labels are hashed as well.
    """
    if data.reading is not None:
        return data.fingerprint
    digest = hashlib.sha256(json.dumps([data.fingerprint, list(data.classes)]).encode())
    for split in (data.train, data.val, data.test):
        if split is None:
            continue
        digest.update(f"{split.images.dtype.str} {split.images.shape}".encode())
        for start in range(0, len(split.images), CHUNK):
            digest.update(np.ascontiguousarray(split.images[start : start + CHUNK]).data)
        digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _counts(labels: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, int]:
    found = np.bincount(labels, minlength=len(classes)).tolist()
    return dict(zip(classes, found, strict=False))


def _images(data: Data, splits: Mapping[str, Split]) -> str:
    """Hash the set of images by class and patient, independently of their division."""
    names = sorted(
        json.dumps([name, data.classes[label], patient])
        for split in splits.values()
        for name, label, patient in zip(
            split.ids, split.labels, split.patients or [""] * len(split.ids), strict=False
        )
    )
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
