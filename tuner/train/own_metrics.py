"""Metrics beyond the built-in figures: ready ones, and those that an objective declares.

A metric is a function of a split's labels and predicted probabilities. Nothing here loads torch.
"""

import math
import numbers
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError, ObjectiveError
from tuner.records import READY, Metric, SplitName, metric_of
from tuner.train.objective import FoundObjective, MetricFunction
from tuner.train.ready_metrics import BY_IMAGE, FUNCTIONS

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]

ROUNDING = 1e-9
"""By how much a share may lie outside of 0 and 1."""
RESAMPLED_MOST = 2000
"""Images, or patients, of a split that is resampled: as many resamples are drawn, each of them
costs a call of the metric, and a call costs more the more images there are."""


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

    @cached_property
    def units(self) -> list[NDArray[np.int64]]:
        """The images of each patient, or each image alone where no patient is named."""
        if not self.patients:
            return [np.array([image]) for image in range(len(self.labels))]
        images: dict[object, list[int]] = {}
        for image, name in enumerate(self.patients):
            images.setdefault(name or image, []).append(image)
        return [np.array(members) for members in images.values()]

    def resamples(self) -> "Iterator[tuple[Truth, NDArray[np.int64]]]":
        """Yield bootstrap resamples, as many as there are units, with the images in each.

        They are the same for equal images, under every setting and seed and on every machine: so
        differences of settings lose what all settings have in common. Those that lack a class of
        the split are drawn again.
        """
        many, classes = len(self.units), len(np.unique(self.labels))
        bits = np.random.Philox(0)
        for _ in range(many):
            drawn = self._draw(bits, many)
            while len(np.unique(self.labels[np.concatenate(drawn)])) < classes:
                drawn = self._draw(bits, many)
            images = np.concatenate(drawn)
            yield replace(self, labels=self.labels[images], patients=self._named(drawn)), images

    def _draw(self, bits: np.random.Philox, many: int) -> list[NDArray[np.int64]]:
        return [self.units[unit] for unit in (bits.random_raw(many) % np.uint64(many)).tolist()]

    def _named(self, drawn: Sequence[NDArray[np.int64]]) -> tuple[str, ...]:
        """Return the patient of each drawn image; one who is drawn twice counts as two."""
        if not self.patients:
            return ()
        copies: Counter[str] = Counter()
        names: list[str] = []
        for images in drawn:
            name = self.patients[images[0]]
            copies[name] += 1
            again = f" ({copies[name]})" if name and copies[name] > 1 else ""
            names += [name + again] * len(images)
        return tuple(names)


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

    def resampled(
        self, truth: Truth, log_probabilities: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the metrics that have no value for each image, on resamples of the split.

        None are returned of a metric that is undefined on some resample, nor where there are too
        few or too many images: its intervals are then over seeds alone.
        """
        many = len(truth.units)
        shares = np.exp(log_probabilities.astype(np.float64))
        wanted = [one for one in self._functions if one[0].name not in BY_IMAGE]
        if not wanted or not 2 <= many <= RESAMPLED_MOST or not np.isfinite(shares).all():
            return {}
        found: dict[str, NDArray[np.float32]] = {}
        for metric, function in wanted:
            if truth.missing and metric.needs_every_class:
                continue
            try:
                figure = self._value(metric, function, truth, shares)
                drawn = np.array(
                    [
                        self._value(metric, function, resample, shares[images])
                        for resample, images in truth.resamples()
                    ]
                )
            except ObjectiveError:
                continue
            # Scaled so that the statistics may take them for values of the units: the variance
            # of a mean of so many is the bootstrap's variance of the metric.
            values = figure + many / math.sqrt(many - 1) * (drawn - drawn.mean())
            if np.isfinite(values).all():
                found[metric.name] = values.astype(np.float32)
        return found

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
