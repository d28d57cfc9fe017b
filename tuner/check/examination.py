"""What to know about a study's data before training on it, found without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.check.duplicates import Duplicates, find_duplicates, named_splits
from tuner.check.probe import Probe, probe
from tuner.records import Value
from tuner.statistics import Clusters
from tuner.train.objective import Data, Split

CLIPPED = 0.5
"""An image is reported if more than this share of its pixels has the darkest or brightest value."""
CHUNK = 64
"""How many images are examined at a time."""
QUICK_PROBE = 400
"""How many images of each split a quick probe uses."""
PROBED = (("train", "val"), ("train", "test"))
"""Pairs of splits to compare: the first reveals an unlucky split, the second another source."""


Pixels = NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """The contents of one split."""

    images: int
    patients: int
    """Number of patients; 0 if the source names none."""
    classes: Mapping[str, int]
    constant: tuple[str, ...]
    """Ids of images whose pixels all have the same value."""
    clipped: tuple[str, ...]
    """Ids of images whose pixels mostly have the darkest or the brightest value."""


@dataclass(frozen=True)
class Contradiction:
    """A picture with more than one label: split, id and class of each of its images."""

    images: tuple[tuple[str, str, str], ...]
    exact: bool
    """Whether all of them are equal in every pixel."""


@dataclass(frozen=True)
class Examination:
    """All findings about one configuration of [data]."""

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
    """The source's notes on how it read the data."""
    quick: bool

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, with duplicates counted."""
        duplicates = self.duplicates
        return {
            **asdict(self),
            "patients": [{"patient": name, "splits": splits} for name, splits in self.patients],
            "duplicates": {
                "exact_across_splits": duplicates.count(exact=True, across=True),
                "near_across_splits": duplicates.count(exact=False, across=True),
                "exact_within_splits": duplicates.count(exact=True, across=False),
                "near_within_splits": duplicates.count(exact=False, across=False),
                "groups": [
                    {
                        "exact": group.exact,
                        "images": [{"split": split, "id": image} for split, image in group.images],
                    }
                    for group in duplicates.groups
                ],
            },
        }


def contents_of(data: Data) -> dict[str, Contents]:
    """Summarise each split, by its name."""
    splits = named_splits(data)
    return {name: _contents(split, data.classes) for name, split in splits.items()}


def examine(
    data: Data,
    keys: Mapping[str, Value],
    *,
    quick: bool,
    contents: Mapping[str, Contents] | None = None,
) -> Examination:
    """Examine the data loaded for these keys; their contents may have been counted before."""
    splits = named_splits(data)
    duplicates = find_duplicates(data)
    return Examination(
        data=dict(keys),
        fingerprint=data.fingerprint,
        contents=contents_of(data) if contents is None else contents,
        duplicates=duplicates,
        contradictions=_contradictions(duplicates, splits, data.classes),
        patients=_shared_patients(splits),
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
        darkest, brightest = low[:, None], high[:, None]
        if pixels.dtype == np.uint8:
            darkest, brightest = np.zeros_like(darkest), np.full_like(brightest, 255)
        share = ((pixels == darkest) | (pixels == brightest)).mean(axis=1)
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


def _shared_patients(splits: Mapping[str, Split]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    where: dict[str, list[str]] = {}
    for name, split in splits.items():
        for patient in sorted(set(split.patients)):
            where.setdefault(patient, []).append(name)
    return tuple((p, tuple(names)) for p, names in sorted(where.items()) if len(names) > 1)


def _probes(splits: Mapping[str, Split], *, quick: bool) -> tuple[Probe, ...]:
    most = {"most": QUICK_PROBE} if quick else {}
    probes = [
        probe((first, splits[first]), (second, splits[second]), **most)
        for first, second in PROBED
        if first in splits and second in splits
    ]
    return tuple(result for result in probes if result is not None)
