"""Measures: figures that are means over images, with the contribution of each image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tuner.records import SplitName, most_probable
from tuner.statistics import shares_of_area

Logs = NDArray[np.float32]
Labels = NDArray[np.int64]
Array = NDArray[np.float64]
PerImage = Callable[[Logs, Labels], Array | None]


@dataclass(frozen=True)
class Measure:
    """A figure of a trial: the sum, over blocks, of means over a split's images."""

    name: str
    larger: bool
    """Whether more of it is better."""
    unit: Literal["points", "nats", "s", ""]
    blocks: tuple[tuple[SplitName, float], ...] = ()
    """The splits with their signs; none for a figure that is of the whole trial."""
    per_image: PerImage | None = None
    """One value for each image, whose mean is the figure; None where a class is missing."""
    counts_images: bool = False
    """Whether the figure is a share of images."""

    @property
    def scale(self) -> float:
        """The factor from a difference to its unit: 100 for points."""
        return 100.0 if self.unit == "points" else 1.0

    @property
    def digits(self) -> int:
        """How many decimals a difference is shown with."""
        return 1 if self.unit in ("points", "s") else 4


def right(logs: Logs, labels: Labels) -> Array:
    """Return 1 for each correct prediction, else 0; ties go to the higher class."""
    return _is_right(logs, labels).astype(np.float64)


def nll(logs: Logs, labels: Labels) -> Array:
    """Return the negative log-likelihood of each image's true class, in nats."""
    return -logs[np.arange(len(labels)), labels].astype(np.float64)


def balanced_parts(logs: Logs, labels: Labels) -> Array:
    """Return each image's contribution to balanced accuracy, over the classes that occur."""
    counts = np.bincount(labels, minlength=logs.shape[1])
    weight = len(labels) / (np.count_nonzero(counts) * counts[labels])
    return np.asarray(right(logs, labels) * weight)


def sensitivity_parts(logs: Logs, labels: Labels) -> Array | None:
    """Return each image's contribution to sensitivity: of class 1, or the mean over classes."""
    counts = np.bincount(labels, minlength=logs.shape[1])
    if not counts.all():
        return None
    if logs.shape[1] == 2:
        return np.asarray(right(logs, labels) * (labels == 1) * len(labels) / counts[1])
    return balanced_parts(logs, labels)


def specificity_parts(logs: Logs, labels: Labels) -> Array | None:
    """Return each image's contribution to specificity: of class 0, or the mean over classes."""
    classes = logs.shape[1]
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        return None
    images = len(labels)
    predicted, valid = most_probable(logs), ~np.isnan(logs).any(axis=1)
    parts = np.zeros(images)
    positives = [1] if classes == 2 else range(classes)
    for positive in positives:
        others = labels != positive
        parts += (
            ((predicted != positive) & valid & others) * images / (len(positives) * others.sum())
        )
    return parts


def auc_parts(logs: Logs, labels: Labels) -> Array | None:
    """Return each image's contribution to the area under the ROC curve."""
    if np.isnan(logs).any():
        return None
    classes = logs.shape[1]
    if classes == 2:
        odds = logs[:, 1].astype(np.float64) - logs[:, 0]
        return shares_of_area(odds, labels == 1)
    parts = [shares_of_area(logs[:, k].astype(np.float64), labels == k) for k in range(classes)]
    defined = [part for part in parts if part is not None]
    return np.mean(defined, axis=0) if len(defined) == classes else None


def _is_right(logs: Logs, labels: Labels) -> NDArray[np.bool_]:
    valid = ~np.isnan(logs).any(axis=1)
    correct: NDArray[np.bool_] = (most_probable(logs) == labels) & valid
    return correct


_OF_A_SPLIT: Mapping[str, tuple[PerImage, bool]] = {
    "loss": (nll, False),
    "acc": (right, True),
    "auc": (auc_parts, False),
    "balanced_acc": (balanced_parts, False),
    "sensitivity": (sensitivity_parts, False),
    "specificity": (specificity_parts, False),
}
_SPLITS: tuple[SplitName, ...] = ("val", "test")


def _measures() -> dict[str, Measure]:
    measures = [
        Measure(
            f"{split}_{name}",
            larger=name != "loss",
            unit="nats" if name == "loss" else "points",
            blocks=((split, 1.0),),
            per_image=per_image,
            counts_images=counts,
        )
        for split in _SPLITS
        for name, (per_image, counts) in _OF_A_SPLIT.items()
    ]
    gap = Measure(
        "gap",
        larger=False,
        unit="points",
        blocks=(("val", 1.0), ("test", -1.0)),
        per_image=right,
        counts_images=True,
    )
    whole = [
        Measure("train_acc", larger=True, unit="points"),
        Measure("train_nll", larger=False, unit="nats"),
        Measure("seconds", larger=False, unit="s"),
    ]
    return {measure.name: measure for measure in (*measures, gap, *whole)}


MEASURES: Mapping[str, Measure] = _measures()
"""Every figure that settings can be compared by, by its name in tables and exports."""
