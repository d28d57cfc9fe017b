"""How well a trial's scores separate the classes: ROC curves with their areas."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.table import Table
from tuner.records import FRACTION
from tuner.results import Predicted
from tuner.statistics import Interval, delong, roc

__all__ = ["Roc", "roc_curves"]

Array = NDArray[np.float64]
POINTS_MOST = 200
"""Limit on the points of a curve sent to a browser; a screen cannot show more."""


@dataclass(frozen=True)
class RocCurve:
    """The curve of one class against all others."""

    label: int
    """The class number."""
    name: str
    area: Interval
    false_rates: Array
    """From the highest threshold to the lowest."""
    true_rates: Array

    JSON: ClassVar = ("class=name", "auc=area", "points")

    @property
    def said(self) -> str:
        """The class with its area: "pneumonia: AUC 0.946 (0.875 to 0.978)"."""
        return f"{self.name}: AUC {words.with_ends(FRACTION, self.area)}"

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """False and true positive rates, thinned to what a screen can show."""
        last = len(self.false_rates) - 1
        kept = np.unique(np.linspace(0, last, min(last + 1, POINTS_MOST)).round().astype(int))
        return tuple(
            (float(false), float(true))
            for false, true in zip(self.false_rates[kept], self.true_rates[kept], strict=True)
        )


@dataclass(frozen=True)
class Roc:
    """The curves of a trial on one split."""

    curves: tuple[RocCurve, ...]
    """With two classes that of class 1, with more one per class against the rest."""
    classes: int
    measured: int
    """How many classes have an AUC; if not all are here, those with the smallest are."""

    JSON: ClassVar = ("curves", "classes")

    @property
    def table(self) -> Table:
        """Each class with its area."""
        rows = tuple((curve.name, words.with_ends(FRACTION, curve.area)) for curve in self.curves)
        return Table(("class", "AUC"), rows, left=(0,))

    @property
    def remark(self) -> str:
        """What the curves show, and which are missing."""
        if self.classes == 2:
            return "Interval by DeLong."
        said = "Each class against the rest; intervals by DeLong."
        if len(self.curves) < self.measured:
            shown = f"the {len(self.curves)} with the lowest AUC are shown."
            said += f" Of {words.count(self.measured, 'class', 'classes')} {shown}"
        if self.measured < self.classes:
            missing = self.classes - self.measured
            said += (
                f" {missing} of {self.classes} classes {'has' if missing == 1 else 'have'} no AUC: "
                "too few images of the class, or of all others."
            )
        return said


def roc_curves(predicted: Predicted, most: int | None = None) -> Roc | None:
    """Return a trial's ROC curves; None if no class has an AUC, or a prediction is NaN.

    With `most`, at most that many curves: those with the smallest AUC.
    """
    logs = predicted.log_probabilities.astype(np.float64)
    if np.isnan(logs).any():
        return None
    size = logs.shape[1]
    curves = []
    for label in [1] if size == 2 else range(size):
        # With two classes, log odds: probabilities near 1 would round to ties.
        scores = logs[:, 1] - logs[:, 0] if size == 2 else logs[:, label]
        truth = predicted.labels == label
        area = delong(scores, truth, predicted.clusters)
        if area is not None:
            false, true = roc(scores, truth)
            curves.append(RocCurve(label, predicted.classes[label], area, false, true))
    measured = len(curves)
    if most is not None and measured > most:
        lowest = sorted(curves, key=lambda curve: curve.area.value)[:most]
        labels = {curve.label for curve in lowest}
        curves = [curve for curve in curves if curve.label in labels]
    return Roc(tuple(curves), size, measured) if curves else None
