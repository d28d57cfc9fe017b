"""Measures: figures by which settings are compared, with the contribution of each image to them.

A measure that is a mean over images, or can be linearised to one, has a value for each image, so
its intervals generalise to similar images, or patients. For any other own metric of a study,
the trainer stores its values on resampled images (`records.Predictions.resampled`), which serve the
same purpose. If it could not, intervals cover only the variation between seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.records import (
    BUILT_IN,
    NATS,
    SECONDS,
    SHARE,
    Metric,
    SplitName,
    Unit,
    most_probable,
)
from tuner.statistics import shares_of_area

Logs = NDArray[np.float32]
Labels = NDArray[np.int64]
Array = NDArray[np.float64]
PerImage = Callable[[Logs, Labels], Array | None]


@dataclass(frozen=True)
class Measure:
    """A figure of a trial: the sum over blocks of signed means over a split's images."""

    name: str
    larger: bool
    """Whether larger values are better."""
    unit: Unit
    blocks: tuple[tuple[SplitName, float], ...] = ()
    """The splits with their signs; empty for a figure that is not a mean over images."""
    per_image: PerImage | None = None
    """Returns one value per image, whose mean is the figure; None if a class is missing."""
    resampled: str = ""
    """If there are no values per image: the metric whose values on resampled images are stored."""
    counts_images: bool = False
    """Whether the figure is a share of the images."""
    splits: tuple[SplitName, ...] = ()
    """The splits it is measured on; empty for a figure of the whole trial."""


def right(logs: Logs, labels: Labels) -> Array:
    """Return 1 for each correct prediction, else 0; ties go to the higher class."""
    valid = ~np.isnan(logs).any(axis=1)
    return np.asarray((most_probable(logs) == labels) & valid, dtype=np.float64)


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


def f1_parts(logs: Logs, labels: Labels) -> Array | None:
    """Return each image's contribution to F1: of class 1, or the mean over classes.

    F1 is a ratio of sums, 2 TP / (2 TP + FP + FN), linearised as ratio estimators are (delta
    method): the mean of these values is F1, and their variance that of F1.
    """
    if np.isnan(logs).any():
        return None
    classes, predicted = logs.shape[1], most_probable(logs)
    parts = []
    for k in [1] if classes == 2 else range(classes):
        hits = 2.0 * ((predicted == k) & (labels == k))
        weight = (predicted == k).astype(np.float64) + (labels == k)
        if not weight.any():
            parts.append(np.zeros(len(labels)))
            continue
        score = hits.sum() / weight.sum()
        parts.append(score + (hits - score * weight) / weight.mean())
    return np.asarray(np.mean(parts, axis=0))


def brier_parts(logs: Logs, labels: Labels) -> Array | None:
    """Return each image's squared error, summed over the classes."""
    if np.isnan(logs).any():
        return None
    truth = np.eye(logs.shape[1])[labels]
    return np.asarray(((np.exp(logs.astype(np.float64)) - truth) ** 2).sum(axis=1))


_PER_IMAGE: Mapping[str, PerImage] = {
    "loss": nll,
    "acc": right,
    "auc": auc_parts,
    "balanced_acc": balanced_parts,
    "sensitivity": sensitivity_parts,
    "specificity": specificity_parts,
    "f1": f1_parts,
    "brier": brier_parts,
}
"""The metrics with values per image, whose mean is the figure; others are resampled."""
_WHOLE = (
    Measure("train_acc", larger=True, unit=SHARE),
    Measure("train_nll", larger=False, unit=NATS),
    Measure("seconds", larger=False, unit=SECONDS),
)
_SPLITS: tuple[SplitName, ...] = ("val", "test")


def measures_of(metrics: Sequence[Metric] = ()) -> dict[str, Measure]:
    """Return the measures of a study with these metrics in addition to the built-in ones."""
    of_splits = [
        _measure(metric, f"{split}_{metric.name}", ((split, 1.0),))
        for split in _SPLITS
        for metric in BUILT_IN
    ]
    # By how much test is worse: validation minus test if higher is better.
    gaps = [_gap(next(metric for metric in BUILT_IN if metric.name == "acc"), "gap")]
    for metric in metrics:
        of_splits += [
            _measure(metric, f"{split}_{metric.name}", ((split, 1.0),)) for split in _SPLITS
        ]
        gaps.append(_gap(metric, f"gap_{metric.name}"))
    return {measure.name: measure for measure in (*of_splits, *gaps, *_WHOLE)}


def _measure(
    metric: Metric, name: str, blocks: tuple[tuple[SplitName, float], ...], *, gap: bool = False
) -> Measure:
    per_image = _PER_IMAGE.get(metric.name)
    return Measure(
        name,
        larger=metric.better == "higher" and not gap,
        unit=metric.read_in.difference if gap else metric.read_in,
        blocks=blocks,
        per_image=per_image,
        resampled="" if per_image is not None else metric.name,
        counts_images=metric.name == "acc",
        splits=tuple(split for split, _ in blocks),
    )


def _gap(metric: Metric, name: str) -> Measure:
    sign = 1.0 if metric.better == "higher" else -1.0
    return _measure(metric, name, (("val", sign), ("test", -sign)), gap=True)


MEASURES: Mapping[str, Measure] = measures_of()
"""The measures that every study has, by their names in tables and exports."""
