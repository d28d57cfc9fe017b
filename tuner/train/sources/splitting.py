"""Splits training images into training and validation: by class, by patient, by seed.

The shuffle sorts by hashes of the seed and each image's (or patient's) name. So it
does not depend on a library's random numbers or on the order in which files are
listed, and adding an image hardly moves any other.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.records import Value

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Division:
    """How to divide: by a share or a number of folds, and a seed."""

    fraction: float
    folds: int
    seed: int

    @classmethod
    def read(cls, keys: Mapping[str, Value]) -> "Division":
        """Read the keys of [data]; a single fold would leave nothing to train on."""
        folds = int(keys["folds"])
        if folds == 1:
            raise DataError("folds = 1 leaves no image to train on; use 0 or at least 2")
        return cls(float(keys["val_fraction"]), folds, int(keys["split_seed"]))

    @property
    def as_found(self) -> bool:
        """Whether a validation split of the source is used unchanged."""
        return self.seed == 0 and self.folds == 0

    @property
    def shuffle(self) -> int:
        """Which shuffle is divided; the folds of one shuffle together are all images."""
        return self.seed // self.folds if self.folds else self.seed

    def words(self) -> str:
        """Describe the division in words."""
        if self.folds:
            return f"fold {self.seed % self.folds + 1} of {self.folds} (split_seed {self.seed})"
        return f"{self.fraction:.3g} of the training images (split_seed {self.seed})"


def divide(
    labels: Sequence[int],
    ids: Sequence[str],
    patients: Sequence[str],
    division: Division,
    classes: Sequence[str],
) -> Mask:
    """Return a mask of validation images; a patient's images are never on both sides."""
    units = _units(labels, patients or ids)
    chosen: set[str] = set()
    offset = 0
    for label in sorted(set(labels)):
        names = sorted(
            (name for name, unit in units.items() if unit.label == label),
            key=lambda name: _place(division.shuffle, name),
        )
        _check_enough(classes[label], len(names), division, by_patient=bool(patients))
        sizes = [units[name].size for name in names]
        chosen |= {names[i] for i in _validating(sizes, division, offset)}
        offset += len(names)
    mask = np.array([name in chosen for name in (patients or ids)], dtype=np.bool_)
    _check_both_sides(np.asarray(labels), mask, classes)
    return mask


@dataclass
class _Unit:
    """What is never split: an image, or all images of a patient."""

    label: int
    size: int


def _units(labels: Sequence[int], names: Sequence[str]) -> dict[str, _Unit]:
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for label, name in zip(labels, names, strict=True):
        counts[name][int(label)] += 1
    # A patient with images of several classes belongs to the most frequent one.
    return {
        name: _Unit(max(held, key=lambda label: (held[label], -label)), sum(held.values()))
        for name, held in counts.items()
    }


def _validating(sizes: Sequence[int], division: Division, offset: int) -> list[int]:
    """Return which units of one class are for validation, by their indices in the shuffle."""
    if division.folds:
        # Classes start at different folds, so that remainders do not all go to the first.
        fold = division.seed % division.folds
        return [i for i in range(len(sizes)) if (i + offset) % division.folds == fold]
    wanted, taken, found = max(1.0, division.fraction * sum(sizes)), 0, []
    for place, size in enumerate(sizes[:-1]):
        if taken + size / 2 >= wanted + 0.5:
            break
        taken += size
        found.append(place)
        if taken >= wanted:
            break
    return found


def _place(shuffle: int, name: str) -> bytes:
    return hashlib.sha256(f"{shuffle}/{name}".encode()).digest()


def _check_enough(name: str, count: int, division: Division, *, by_patient: bool) -> None:
    what = "patient" if by_patient else "image"
    if count < 2:
        raise DataError(
            f"class {name!r} has only {count} {what}; at least 2 are needed to split it into "
            "training and validation"
        )
    if division.folds > count:
        raise DataError(
            f"folds = {division.folds} is more than class {name} has {what}s ({count}); "
            "use fewer folds"
        )


def _check_both_sides(labels: NDArray[np.int64], mask: Mask, classes: Sequence[str]) -> None:
    for side, what in ((mask, "validation"), (~mask, "training")):
        missing = set(labels.tolist()) - set(labels[side].tolist())
        if missing:
            raise DataError(
                f"the split leaves no image of class {classes[min(missing)]!r} for {what}; "
                "choose another split_seed or val_fraction"
            )
