"""Metrics beyond the built-in figures: ready ones, and those that an objective declares.

A metric is a function of a split's labels and predicted probabilities. Nothing here loads torch.
"""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError, ObjectiveError
from tuner.records import READY, Metric, SplitName, metric_of
from tuner.train.objective import FoundObjective, MetricFunction
from tuner.train.ready_metrics import FUNCTIONS

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

ROUNDING = 1e-9
"""By how much a share may lie outside of 0 and 1."""


@dataclass(frozen=True)
class Truth:
    """What is known of a split's images: their classes and, if the data name them, patients."""

    split: SplitName
    labels: Labels
    patients: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The classes of which the split has no image."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return [name for name, count in zip(self.classes, counts, strict=True) if not count]


class OwnMetrics:
    """The metrics of one job, ready to be computed."""

    def __init__(self, found: FoundObjective, metrics: Sequence[Metric]) -> None:
        self._functions: list[tuple[Metric, MetricFunction | None]] = [
            (metric, None if metric.name in READY else found.metric_function(metric.name))
            for metric in metrics
        ]

    def figures(self, truth: Truth, log_probabilities: NDArray[np.float32]) -> dict[str, float]:
        """Return each metric of a split by its column: val_NAME or test_NAME.

        NaN where it is undefined: a prediction is not a number, since training diverged, or the
        metric needs every class and one is missing.
        """
        if not self._functions:
            return {}
        known = not np.isnan(log_probabilities).any()
        shares = np.exp(log_probabilities.astype(np.float64))
        missing = truth.missing
        return {
            f"{truth.split}_{metric.name}": self._value(metric, function, truth, shares)
            if known and not (missing and metric.needs_every_class)
            else math.nan
            for metric, function in self._functions
        }

    def try_out(self, truth: Truth) -> None:
        """Compute every metric on random predictions, so that a fault costs no training."""
        random = np.random.default_rng(0)
        shares = random.dirichlet(np.ones(len(truth.classes)), len(truth.labels))
        self.figures(truth, np.log(shares).astype(np.float32))

    def _value(
        self, metric: Metric, function: MetricFunction | None, truth: Truth, shares: Probabilities
    ) -> float:
        if function is None:
            return FUNCTIONS[metric.name](truth.labels, shares)
        # Copies, so that no function can change what the next one gets.
        value = function(truth.labels.copy(), shares.copy(), truth.patients)
        on = f"for the {SPLIT_WORDS[truth.split]} images"
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
        if not isinstance(value, numbers.Real):
            raise ObjectiveError(
                f"{function.place} returned {type(value).__name__} {on}; a metric must return a "
                "number"
            )
        number = float(value)
        if not math.isfinite(number):
            raise ObjectiveError(f"{function.place} returned {number} {on}{_cause(truth)}")
        if metric.unit == "share" and not -ROUNDING <= number <= 1 + ROUNDING:
            raise ObjectiveError(
                f"{function.place} returned {number:g} {on}, but a share is between 0 and 1; "
                'return a fraction, or declare the metric with unit="number"'
            )
        return number


SPLIT_WORDS = {"val": "validation", "test": "test", "train": "training"}


def _cause(truth: Truth) -> str:
    if truth.missing:
        return (
            f", which lack class {', '.join(truth.missing)}; return a number there too, or declare "
            "the metric with needs_every_class=True"
        )
    return "; a metric must return a finite number"


def check_metric(column: str, metrics: Sequence[Metric], validation: Truth | None) -> None:
    """Raise if the study's metric is undefined on these validation images."""
    assert validation is not None
    metric = metric_of(column, metrics)
    if metric.needs_every_class and validation.missing:
        raise DataError(
            f"{column} cannot be the metric: the validation split has no image of class "
            f"{', '.join(validation.missing)}; choose another metric or another split"
        )
