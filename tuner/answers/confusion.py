"""The confusion matrix of a trial: counts of images by true and predicted class."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tuner.answers import words
from tuner.answers.table import Table
from tuner.records import SHARE, most_probable
from tuner.results import Predicted

__all__ = ["Confusion", "confusion", "table"]

ROOM = 50
"""If the class names have more characters in total, columns are headed by class numbers."""


@dataclass(frozen=True)
class Confusion:
    """Counts of one split's images by true and predicted class, in the order of the classes."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """One row per true class, one column per predicted class."""
    undecided: tuple[int, ...]
    """Images of each true class whose prediction is NaN; they count as wrong."""

    JSON: ClassVar = (
        "classes",
        "counts",
        "undecided",
        "images",
        "recall",
        "precision",
        "accuracy",
    )

    @property
    def images(self) -> tuple[int, ...]:
        """The number of images of each class."""
        return tuple(sum(row) + lost for row, lost in zip(self.counts, self.undecided, strict=True))

    @property
    def right(self) -> int:
        """The number of correct predictions."""
        return sum(row[place] for place, row in enumerate(self.counts))

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return self.right / sum(self.images)

    @property
    def recall(self) -> tuple[float | None, ...]:
        """The recall of each class; None for a class without images."""
        diagonal = (row[place] for place, row in enumerate(self.counts))
        return tuple(_share(hit, all_) for hit, all_ in zip(diagonal, self.images, strict=True))

    @property
    def precision(self) -> tuple[float | None, ...]:
        """The precision of each class; None for a class that is never predicted."""
        taken = [sum(column) for column in zip(*self.counts, strict=True)]
        diagonal = (row[place] for place, row in enumerate(self.counts))
        return tuple(_share(hit, all_) for hit, all_ in zip(diagonal, taken, strict=True))


def confusion(predicted: Predicted) -> Confusion:
    """Count a trial's predictions by true and predicted class.

    The most probable class is the predicted one; ties go to the highest class number,
    so that the counts agree with the stored accuracy.
    """
    size = len(predicted.classes)
    logs = predicted.log_probabilities
    valid = ~np.isnan(logs).any(axis=1)
    taken = most_probable(logs)
    pairs = predicted.labels[valid] * size + taken[valid]
    counts = np.bincount(pairs, minlength=size * size).reshape(size, size)
    undecided = np.bincount(predicted.labels[~valid], minlength=size)
    return Confusion(
        classes=predicted.classes,
        counts=tuple(tuple(int(count) for count in row) for row in counts),
        undecided=tuple(int(count) for count in undecided),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def table(confusion: Confusion) -> Table:
    """Return the counts with each class's recall and precision."""
    names = confusion.classes
    numbered = sum(map(len, names)) > ROOM
    heads = [str(place) if numbered else name for place, name in enumerate(names)]
    rows = []
    for place, (name, counts) in enumerate(zip(names, confusion.counts, strict=True)):
        cells = [
            str(count) if count or place == column else "·" for column, count in enumerate(counts)
        ]
        label = f"{place} {name}" if numbered else name
        recall = words.figure(SHARE, confusion.recall[place])
        rows.append((label, *cells, str(confusion.images[place]), recall))
    # In whole per cent: a column of counts may be narrow.
    whole = replace(SHARE, digits=0)
    precision = (words.figure(whole, share) for share in confusion.precision)
    rows.append(("precision", *precision, "", ""))
    return Table(("", *heads, "images", "recall"), tuple(rows), left=(0,), wrapped=(0,))
