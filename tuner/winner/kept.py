"""`predictions.safetensors`: the study's predictions, and hashes of the images' pixels.

With it, predictions can be compared with the study's without its database, and images are
recognised by their pixels, whatever their files are called.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tuner.errors import UserError
from tuner.records import SplitName
from tuner.text import storable_name

DIGEST_BYTES = 16
JUDGED: tuple[SplitName, ...] = ("test", "val")


class SeenAt(NamedTuple):
    """Where the study predicted an image: the split, and the index in it."""

    split: SplitName
    number: int


@dataclass(frozen=True)
class PredictedSplit:
    """The predictions of one split."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    log_probabilities: NDArray[np.float32]
    """(images, classes), in the order of `ids`."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class StoredPredictions:
    """The predicted splits, and all images by a hash of their pixels."""

    splits: Mapping[SplitName, PredictedSplit]
    pixels: Mapping[SplitName, NDArray[np.uint8]] = field(default_factory=dict)
    """(images, DIGEST_BYTES) for every split, including training."""

    def known(self) -> "KnownImages":
        """Return an index of the images by their pixels."""
        places: dict[bytes, list[SeenAt]] = defaultdict(list)
        for split in (*JUDGED, "train"):
            for number, row in enumerate(self.pixels.get(split, ())):
                places[row.tobytes()].append(SeenAt(split, number))
        return KnownImages(dict(places), self.splits)

    def content(self) -> bytes:
        """Return the file's content."""
        arrays: dict[str, NDArray[Any]] = {f"{name}.pixels": a for name, a in self.pixels.items()}
        for name, split in self.splits.items():
            arrays[f"{name}.labels"] = split.labels
            arrays[f"{name}.log_probabilities"] = split.log_probabilities
        ids = {name: json.dumps(split.ids) for name, split in self.splits.items()}
        return save(arrays, metadata={f"{name}.ids": text for name, text in ids.items()})


@dataclass(frozen=True)
class KnownImages:
    """An index of the study's images by their pixels."""

    places: Mapping[bytes, Sequence[SeenAt]]
    splits: Mapping[SplitName, PredictedSplit]

    def of(self, digest: bytes, name: str) -> tuple[SeenAt, ...]:
        """Return where the study predicted an image; a place with the same name comes first."""
        places = self.places.get(digest, ())
        return tuple(sorted(places, key=lambda place: not self._is_called(place, name)))

    def _is_called(self, place: SeenAt, name: str) -> bool:
        if place.split not in self.splits:
            return False
        known = self.splits[place.split].ids[place.number]
        stored = storable_name(name)
        return stored == known or stored.endswith(f"/{known}")


def digests(images: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a hash of each image's pixels, shape and type."""
    rows = [np.frombuffer(digest(image), np.uint8) for image in images]
    return np.stack(rows) if rows else np.empty((0, DIGEST_BYTES), np.uint8)


def digest(image: NDArray[Any]) -> bytes:
    """Return a hash of an image (channels, height, width)."""
    found = hashlib.sha256(f"{image.dtype.str} {image.shape}".encode())
    found.update(np.ascontiguousarray(image).data)
    return found.digest()[:DIGEST_BYTES]


def read(content: bytes, where: object, classes: int, *, pixels: bool = True) -> StoredPredictions:
    """Parse the file's untrusted content; with `pixels`, hashes are required."""
    try:
        arrays = load(content)
        ids = _ids(content)
        names: list[SplitName] = [name for name in JUDGED if f"{name}.labels" in arrays]
        splits = {name: _split(arrays, ids, name, classes) for name in names}
        every: list[SplitName] = [*names, "train"]
        hashed = {name: _pixels(arrays, splits, name) for name in every} if pixels else {}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{where} is damaged, or not what `tuner best --save` writes ({error}); "
            "save the model again."
        ) from None
    return StoredPredictions(splits, hashed)


def _ids(content: bytes) -> Mapping[str, Any]:
    # The safetensors format: eight bytes with the length of the JSON header that follows.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {name: json.loads(text) for name, text in header["__metadata__"].items()}


def _split(
    arrays: Mapping[str, NDArray[Any]], ids: Mapping[str, Any], name: str, classes: int
) -> PredictedSplit:
    names, labels = ids[f"{name}.ids"], arrays[f"{name}.labels"]
    logs = arrays[f"{name}.log_probabilities"]
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise ValueError(f"{name}.ids is not a list of texts")
    if labels.shape != (len(names),) or labels.dtype != np.int64:
        raise ValueError(f"{name}.labels do not fit {len(names)} ids")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"{name}.labels has unknown classes")
    if logs.shape != (len(names), classes) or logs.dtype != np.float32:
        raise ValueError(f"{name}.log_probabilities do not fit {len(names)} ids")
    return PredictedSplit(tuple(names), labels, logs)


def _pixels(
    arrays: Mapping[str, NDArray[Any]], splits: Mapping[SplitName, PredictedSplit], name: SplitName
) -> NDArray[np.uint8]:
    found = arrays[f"{name}.pixels"]
    wanted = len(splits[name]) if name in splits else len(found)
    if found.shape != (wanted, DIGEST_BYTES) or found.dtype != np.uint8:
        raise ValueError(f"{name}.pixels do not fit {wanted} images")
    return found
