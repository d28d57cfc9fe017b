"""What is to be known of a study's data before it is trained on, found without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.check.duplicates import Duplicates, find_duplicates, named_splits
from tuner.check.probe import Probe, probe
from tuner.records import Value
from tuner.statistics.clusters import Clusters
from tuner.train.objective import Data, Split

CLIPPED = 0.5
"""The share of an image's pixels that are the darkest or the brightest value, to be told."""
CHUNK = 64
"""Images that are looked at in one go."""
QUICK_PROBE = 400
"""Images of each split that a quick probe looks at."""
PROBED = (("train", "val"), ("train", "test"))
"""Which splits are compared with each other: the first shows luck, the second another source."""


Pixels = NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """What is in one split."""

    images: int
    patients: int
    """How many patients the images are of; 0 where the source names none."""
    classes: Mapping[str, int]
    constant: tuple[str, ...]
    """Ids of images of one value."""
    clipped: tuple[str, ...]
    """Ids of images most of which is the darkest or the brightest value."""


@dataclass(frozen=True)
class Contradiction:
    """One picture under more than one label: split, id and class of each image of it."""

    images: tuple[tuple[str, str, str], ...]
    exact: bool
    """Whether all pixels of all of them are equal."""


@dataclass(frozen=True)
class Examination:
    """Everything that was found of one configuration of [data]."""

    data: Mapping[str, Value]
    """The keys of [data] that were examined."""
    fingerprint: str
    contents: Mapping[str, Contents]
    duplicates: Duplicates
    contradictions: tuple[Contradiction, ...]
    patients: tuple[tuple[str, tuple[str, ...]], ...]
    """Each patient in more than one split, with the splits."""
    patients_known: bool
    probes: tuple[Probe, ...]
    notes: tuple[str, ...]
    """What the source told of how it read the data."""
    quick: bool

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, duplicates counted."""
        found = self.duplicates
        return {
            **asdict(self),
            "patients": [{"patient": name, "splits": splits} for name, splits in self.patients],
            "duplicates": {
                "exact_across_splits": found.count(exact=True, across=True),
                "near_across_splits": found.count(exact=False, across=True),
                "exact_within_splits": found.count(exact=True, across=False),
                "near_within_splits": found.count(exact=False, across=False),
                "groups": [
                    {
                        "exact": group.exact,
                        "images": [{"split": split, "id": one} for split, one in group.images],
                    }
                    for group in found.groups
                ],
            },
        }


def examine(data: Data, keys: Mapping[str, Value], *, quick: bool) -> Examination:
    """Examine data that were loaded for these keys."""
    splits = named_splits(data)
    duplicates = find_duplicates(data)
    return Examination(
        data=dict(keys),
        fingerprint=data.fingerprint,
        contents={name: _contents(split, data.classes) for name, split in splits.items()},
        duplicates=duplicates,
        contradictions=_contradictions(duplicates, splits, data.classes),
        patients=_torn_patients(splits),
        patients_known=any(split.patients for split in splits.values()),
        probes=_probes(splits, quick=quick),
        notes=data.notes,
        quick=quick,
    )


def _contents(split: Split, classes: tuple[str, ...]) -> Contents:
    counts = np.bincount(split.labels, minlength=len(classes))
    constant: list[str] = []
    clipped: list[str] = []
    for start in range(0, len(split.images), CHUNK):
        some = split.images[start : start + CHUNK]
        pixels = some.reshape(len(some), -1)
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        share = _clipped_share(pixels, low, high)
        for place, name in enumerate(split.ids[start : start + CHUNK]):
            if low[place] == high[place]:
                constant.append(name)
            elif share[place] > CLIPPED:
                clipped.append(name)
    return Contents(
        images=len(split.labels),
        patients=Clusters.of(split.patients).patients if split.patients else 0,
        classes={name: int(count) for name, count in zip(classes, counts, strict=True)},
        constant=tuple(constant),
        clipped=tuple(clipped),
    )


def _contradictions(
    duplicates: Duplicates, splits: Mapping[str, Split], classes: tuple[str, ...]
) -> tuple[Contradiction, ...]:
    label = {
        (name, one): classes[number]
        for name, split in splits.items()
        for one, number in zip(split.ids, split.labels, strict=True)
    }
    return tuple(
        Contradiction(tuple((*image, label[image]) for image in group.images), group.exact)
        for group in duplicates.groups
        if len({label[image] for image in group.images}) > 1
    )


def _clipped_share(pixels: Pixels, low: Pixels, high: Pixels) -> NDArray[np.float64]:
    """Return which share of each image's pixels is the least or the most that there can be."""
    if pixels.dtype == np.uint8:
        low, high = np.zeros_like(low), np.full_like(high, 255)
    clipped = (pixels == low[:, None]) | (pixels == high[:, None])
    return np.asarray(clipped.mean(axis=1))


def _torn_patients(splits: Mapping[str, Split]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    where: dict[str, list[str]] = {}
    for name, split in splits.items():
        for patient in sorted(set(split.patients)):
            where.setdefault(patient, []).append(name)
    return tuple((p, tuple(names)) for p, names in sorted(where.items()) if len(names) > 1)


def _probes(splits: Mapping[str, Split], *, quick: bool) -> tuple[Probe, ...]:
    most = {"most": QUICK_PROBE} if quick else {}
    found = [
        probe((one, splits[one]), (other, splits[other]), **most)
        for one, other in PROBED
        if one in splits and other in splits
    ]
    return tuple(one for one in found if one is not None)
