"""Metrics beyond the built-in figures: ready ones, and those that an objective declares.

A metric is a function of a split's labels and predicted probabilities. Nothing here loads torch.
"""

import math
import numbers
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.errors import DataError, ObjectiveError
from tuner.records import READY, Metric, SplitName, metric_of
from tuner.train.objective import FoundObjective, MetricFunction
from tuner.train.ready_metrics import BY_IMAGE, FUNCTIONS

Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]
Array = NDArray[np.float64]

ROUNDING = 1e-9
"""Tolerance by which a share may be outside of 0 and 1."""
RESAMPLED_MOST = 2000
"""Splits with more images (or patients) are not resampled: the number of resamples, each a call of
the metric, grows with their number, and so does the cost of a call."""
RESAMPLING_SECONDS = 60.0
"""Time limit for all calls of a metric on the resamples of one split."""
TRIAL_SHARE = 1 / 30
"""After this share of the limit, the time of all calls is extrapolated."""


@dataclass(frozen=True)
class Truth:
    """The classes of a split's images and, if the data name them, their patients."""

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

    @cached_property
    def obstacle(self) -> str:
        """Why metrics cannot be computed on resamples of these images; "" if they can.

        The variance of a class cannot be estimated from a single unit, which would be the same in
        every resample. And if most resamples lack a class, the few that have all of them do not
        represent other samples of images.
        """
        unit, many = "patient" if self.patients else "image", len(self.units)
        if not 2 <= many <= RESAMPLED_MOST:
            return f"there are {many:,} {unit}s, and 2 to {RESAMPLED_MOST:,} can be resampled"
        units_of = np.zeros(len(self.classes), np.int64)
        for images in self.units:
            units_of[np.unique(self.labels[images])] += 1
        lonely = [name for name, has in zip(self.classes, units_of, strict=True) if has == 1]
        if lonely:
            return f"a single {unit} has class {', '.join(lonely)}"
        return "most resamples lack a class" if self._draws is None else ""

    @cached_property
    def _draws(self) -> NDArray[np.uint16] | None:
        """The units in each resample, a row for each; None if most draws lack a class.

        Draws that lack a class of the split are repeated, so a bound is needed: with 100 classes of
        2 images each, one draw in two million has all of them.
        """
        many, present = len(self.units), np.bincount(self.labels) > 0
        bits = np.random.Philox(0)
        draws = np.empty((many, many), np.uint16)
        done = 0
        for _ in range(2 * many):
            draws[done] = bits.random_raw(many) % np.uint64(many)
            drawn = np.bincount(self.labels[self._images(draws[done])], minlength=len(present))
            done += bool((drawn[present] > 0).all())
            if done == many:
                return draws
        return None

    def resamples(self, *, named: bool) -> "Iterator[tuple[Truth, NDArray[np.int64]]]":
        """Yield bootstrap resamples, as many as there are units, with the images in each.

        They are the same for equal images, under every setting and seed and on every machine, so
        that variation common to all settings cancels in their differences. They are drawn once per
        split. Patients are named only if needed, because that takes longer than drawing.
        """
        assert self._draws is not None, self.obstacle
        for draw in self._draws:
            images = self._images(draw)
            patients = self._named(draw) if named else ()
            yield replace(self, labels=self.labels[images], patients=patients), images

    def _images(self, draw: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Return the images of the drawn units."""
        if not self.patients:
            return draw.astype(np.int64)
        return np.concatenate([self.units[unit] for unit in draw.tolist()])

    def _named(self, draw: NDArray[np.uint16]) -> tuple[str, ...]:
        """Return the patient of each drawn image; one drawn twice counts as two patients."""
        if not self.patients:
            return ()
        copies: Counter[str] = Counter()
        names: list[str] = []
        for unit in draw.tolist():
            images = self.units[unit]
            name = self.patients[images[0]]
            copies[name] += 1
            again = f" ({copies[name]})" if name and copies[name] > 1 else ""
            names += [name + again] * len(images)
        return tuple(names)


@dataclass(frozen=True)
class Resampled:
    """The metrics of one split on resamples of its images, or of its patients."""

    values: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By metric: see `records.Predictions.resampled`."""
    obstacles: dict[str, str] = field(default_factory=dict)
    """Why each of the other metrics has no such values."""


class OwnMetrics:
    """The metrics of one job, ready to be computed."""

    def __init__(self, found: FoundObjective, metrics: Sequence[Metric]) -> None:
        self._functions: list[tuple[Metric, MetricFunction | None]] = [
            (metric, None if metric.name in READY else found.metric_function(metric.name))
            for metric in metrics
        ]

    def figures(self, truth: Truth, log_probabilities: NDArray[np.float32]) -> dict[str, float]:
        """Return each metric of a split by its column: val_NAME or test_NAME.

        NaN where it is undefined: a prediction is NaN because training diverged, or a class that
        the metric needs is missing.
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
        self,
        truth: Truth,
        log_probabilities: NDArray[np.float32],
        alive: Callable[[], None],
        seconds: float = RESAMPLING_SECONDS,
    ) -> Resampled:
        """Return the metrics that have no value for each image, on resamples of the split.

        A metric that fails or is undefined on a resample, or is too slow, has a reason instead of
        values; its intervals then cover only seeds. `alive` is called at every resample.
        """
        shares = np.exp(log_probabilities.astype(np.float64))
        wanted = [
            (metric, function)
            for metric, function in self._functions
            if metric.name not in BY_IMAGE and not (truth.missing and metric.needs_every_class)
        ]
        if not wanted or not np.isfinite(shares).all():
            return Resampled()
        if truth.obstacle:
            return Resampled(obstacles={metric.name: truth.obstacle for metric, _ in wanted})
        drawn: dict[str, list[float]] = {metric.name: [] for metric, _ in wanted}
        spent = dict.fromkeys(drawn, 0.0)
        obstacles: dict[str, str] = {}
        named = any(function is not None and function.takes_patients for _, function in wanted)
        for resample, images in truth.resamples(named=named):
            predicted = shares[images]
            for metric, function in wanted:
                alive()
                if metric.name in obstacles:
                    continue
                begun = time.perf_counter()
                try:
                    value = self._value(metric, function, resample, predicted)
                except ObjectiveError as error:
                    obstacles[metric.name] = f"on a resample, {error}"
                    continue
                drawn[metric.name].append(value)
                spent[metric.name] += time.perf_counter() - begun
                took = spent[metric.name] / len(drawn[metric.name]) * len(truth.units)
                if spent[metric.name] > seconds * TRIAL_SHARE and took > seconds:
                    obstacles[metric.name] = (
                        f"{len(truth.units):,} calls would take {took:,.0f} s, "
                        f"and at most {seconds:g} s are spent on them"
                    )
            if len(obstacles) == len(wanted):
                break
        values = {
            metric.name: _scaled(
                self._value(metric, function, truth, shares), np.array(drawn[metric.name])
            )
            for metric, function in wanted
            if metric.name not in obstacles
        }
        return Resampled(values, obstacles)

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
        # Copies, so that no function can change the arguments of the next one.
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


def _scaled(figure: float, drawn: Array) -> NDArray[np.float32]:
    """Scale a metric on resamples so that the statistics can treat it as one value per unit.

    The variance of the mean of these values is then the bootstrap variance of the metric.
    """
    many = len(drawn)
    scale = many / math.sqrt(many - 1)
    return np.asarray(figure + scale * (drawn - drawn.mean()), np.float32)


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
