"""Images as a source provides them, before they are divided and windowed."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError
from tuner.names import meant

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

Pixels = NDArray[Any]
"""uint8, uint16 or float32; possibly mapped from a file."""


@dataclass(frozen=True)
class Pool:
    """All images of a source with their metadata, in the order of their ids."""

    images: Pixels
    """(n, height, width) or (n, channels, height, width)."""
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    parts: tuple[Part, ...]
    """The split that the source assigns to each image."""
    classes: tuple[str, ...]
    patients: tuple[str, ...] = ()
    """The patient of each image; empty if the source does not say."""
    notes: tuple[str, ...] = ()
    kind: str = ""
    """The kind of files, as `files` names it; empty for arrays."""
    fit: str = "stretch"
    """How images with other proportions were brought to the size."""
    depths: str = "same"
    """How images of different depths were joined."""

    def where(self, *parts: Part) -> NDArray[np.int64]:
        """Return the indices of the images of these parts."""
        return np.array([i for i, part in enumerate(self.parts) if part in parts], dtype=np.int64)


def number_classes(names: Mapping[Part, set[str]], place: object) -> tuple[str, ...]:
    """Return the sorted classes of the training images, or raise if other parts do not fit."""
    classes = tuple(sorted(names["train"]))
    for one, other in alike({name for part in names.values() for name in part}):
        raise DataError(
            f"{place} has the classes {one!r} and {other!r}, which differ only in case or blanks; "
            "write one of them the same way everywhere"
        )
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise DataError(f"{place} has training images of {found}; at least two classes are needed")
    for part in ("val", "test"):
        strange = sorted(names.get(part, set()) - set(classes))
        if strange:
            raise DataError(
                f"{place} has {part} images of class {', '.join(map(repr, strange[:5]))}, which no "
                f"training image has; the training images' classes are {', '.join(classes)}."
                f"{meant(strange[0], classes)}"
            )
    return classes


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that differ only in case or blanks."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names):
        known = first.setdefault(essence(name), name)
        if known != name:
            pairs.append((known, name))
    return pairs


def essence(name: str) -> str:
    """Return a name without case, blanks and invisible characters."""
    shown = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in shown if not c.isspace() and unicodedata.category(c) != "Cf")


def listed(names: list[str], most: int = 5) -> str:
    """Return the first few names and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
