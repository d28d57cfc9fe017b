"""Images as a source gives them, before they are divided and windowed."""

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
"""uint8, uint16 or float32; perhaps mapped from a file."""


@dataclass(frozen=True)
class Pool:
    """All images of a source with what is known of each, in the order of their ids."""

    images: Pixels
    """(n, height, width) or (n, channels, height, width)."""
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    parts: tuple[Part, ...]
    """Where the source itself puts each image."""
    classes: tuple[str, ...]
    patients: tuple[str, ...] = ()
    """Whom each image is of; empty where the source does not know."""
    notes: tuple[str, ...] = ()
    kind: str = ""
    """What the files were, in the words of `files`; empty where the images were arrays."""
    fit: str = "stretch"
    """How images of other proportions came to the size."""
    depths: str = "same"
    """How images of different depths were joined."""

    def where(self, *parts: Part) -> NDArray[np.int64]:
        """Return the places of the images of these parts."""
        return np.array([i for i, part in enumerate(self.parts) if part in parts], dtype=np.int64)


def number_classes(names: Mapping[Part, set[str]], place: object) -> tuple[str, ...]:
    """Return the training images' classes in their order, or say what does not fit."""
    classes = tuple(sorted(names["train"]))
    for one, other in alike({name for part in names.values() for name in part}):
        raise DataError(
            f"{place} has the classes {one!r} and {other!r}, which differ only in case or blanks; "
            "write one of them the same way everywhere"
        )
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise DataError(f"{place} has {found} for classes of the training images; two are needed")
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
    """Return pairs of names that a person would take for one: only case or blanks differ."""
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names):
        known = first.setdefault(essence(name), name)
        if known != name:
            pairs.append((known, name))
    return pairs


def essence(name: str) -> str:
    """Return a name without its case, its blanks and characters that cannot be seen."""
    shown = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in shown if not c.isspace() and unicodedata.category(c) != "Cf")


def listed(names: list[str], most: int = 5) -> str:
    """Return up to a few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
