"""The data types that training produces and the store keeps.

`tuner.train` makes these and `tuner.store` keeps them; neither knows the other.
Everything here is frozen and can be written as JSON, except arrays.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    # For annotations only, so that commands without arrays need not load numpy.
    import numpy as np
    from numpy.typing import NDArray

Value = str | int | float | bool
DIVERGED = "diverged"
"""Prefix of a trial's reason if it ended because a loss was not finite."""
Moment = Literal["best", "last"]
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Unit:
    """The unit of a figure, and how it is formatted for people.

    Files for programs hold figures as they are stored, such as 0.872; people read 87.2%.
    """

    name: str
    """As in docs/columns.md."""
    digits: int
    """Decimals in texts for people."""
    scale: float = 1.0
    """The factor from a stored figure to the displayed one."""
    mark: str = ""
    """The suffix of a figure."""
    of_differences: str = ""
    """The unit of a difference in a sentence."""
    low: float = -math.inf
    high: float = math.inf
    """The largest possible value, as `low` is the smallest; intervals end there."""
    signed: bool = False
    """Whether a figure is itself a difference, shown with its sign."""
    significant: bool = False
    """Whether figures may have any magnitude, and so are shown with significant digits."""
    scientific: bool = False
    """Whether they are shown with an exponent."""

    @property
    def label(self) -> str:
        """The label in brackets of a column or an axis: %, points, nats, or nothing."""
        return self.mark.strip() or self.of_differences

    @property
    def difference(self) -> "Unit":
        """The unit of a difference of two such figures, such as the gap."""
        low, high = self.low - self.high, self.high - self.low
        return replace(self, mark="", low=low, high=high, signed=True)


SHARE = Unit("fraction", 1, 100.0, "%", "points", 0.0, 1.0)
FRACTION = Unit("fraction", 3, low=0.0, high=1.0)
"""Between 0 and 1, and shown that way: the area under the ROC curve, a probability."""
NATS = Unit("nats", 4, of_differences="nats", low=0.0)
SECONDS = Unit("s", 1, of_differences="s", low=0.0)
EPOCH_SECONDS = Unit("s", 3, of_differences="s", low=0.0)
"""Of an epoch, which takes milliseconds if the network is small."""
NUMBER = Unit("", 4, significant=True)


@dataclass(frozen=True)
class Metric:
    """A figure of one split of the data: its name, direction, meaning and unit.

    Built-in figures, ready-made ones that a study may name, and those that an objective declares
    are all described by it, and are treated alike by tables, exports and statistics.
    """

    name: str
    """As in the columns val_NAME and test_NAME."""
    better: Literal["higher", "lower"]
    meaning: str
    """One line."""
    unit: Literal["share", "fraction", "nats", "number"] = "share"
    """A share is between 0 and 1 and shown in per cent, its differences in points."""
    needs_every_class: bool = False
    """Whether it is undefined, and left empty, on images that lack a class."""

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """The direction in Optuna's words."""
        return "maximize" if self.better == "higher" else "minimize"

    @property
    def read_in(self) -> Unit:
        """The unit in which it is shown."""
        return {"share": SHARE, "fraction": FRACTION, "nats": NATS, "number": NUMBER}[self.unit]


BUILT_IN = (
    Metric("loss", "lower", "Negative log-likelihood of the true class.", "nats"),
    Metric("acc", "higher", "Accuracy."),
    Metric(
        "auc",
        "higher",
        "Area under the ROC curve; one-vs-rest mean if there are more than two classes.",
        "fraction",
        needs_every_class=True,
    ),
    Metric("balanced_acc", "higher", "Mean of the recalls of all classes."),
    Metric(
        "sensitivity",
        "higher",
        "True positive rate (recall of class 1); mean over classes if there are more than two.",
        needs_every_class=True,
    ),
    Metric(
        "specificity",
        "higher",
        "True negative rate (recall of class 0); mean over classes if there are more than two.",
        needs_every_class=True,
    ),
)
"""Figures that the trainer computes for every study; each has its own column."""

READY: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "f1",
            "higher",
            "F1 score (Dice coefficient) of class 1; mean over classes if there are more than two.",
        ),
        Metric(
            "sensitivity_at_95_specificity",
            "higher",
            "Sensitivity at the threshold with 95% specificity; one-vs-rest mean if there are more "
            "than two classes.",
            needs_every_class=True,
        ),
        Metric(
            "brier",
            "lower",
            "Brier score: squared error of the probabilities, summed over the classes.",
            "number",
        ),
    )
}
"""Ready-made figures that a study of any objective may name."""


@dataclass(frozen=True)
class Job:
    """One trial for the trainer: training is a function of this, the code and the data."""

    objective: str
    parameters: Mapping[str, Value]
    """Every parameter with its value, defaults filled in."""
    data: Mapping[str, Value]
    """Every key of [data] with its value; paths are absolute."""
    seed: int
    metric: str = "val_loss"
    """The figure by which the best epoch is chosen: val_ and the name of a metric."""
    metrics: tuple[Metric, ...] = ()
    """Metrics computed in addition to the built-in ones."""

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether a smaller or a larger metric is better."""
        return direction_of(self.metric, self.metrics)

    def plain(self) -> dict[str, Any]:
        """Return the job as JSON, for another process."""
        return {
            **vars(self),
            "parameters": dict(self.parameters),
            "data": dict(self.data),
            "metrics": [asdict(metric) for metric in self.metrics],
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Job":
        """Return a job from the JSON of `plain`."""
        metrics = tuple(Metric(**metric) for metric in plain.get("metrics", ()))
        return cls(**{**plain, "metrics": metrics})


def direction_of(metric: str, metrics: Sequence[Metric]) -> Literal["minimize", "maximize"]:
    """Return the direction of a validation figure: built in, or one of these metrics."""
    return metric_of(metric, metrics).direction


def metric_of(column: str, metrics: Sequence[Metric] = ()) -> Metric:
    """Return the metric of a validation figure: built in, or one of these."""
    return next(one for one in (*BUILT_IN, *metrics) if f"val_{one.name}" == column)


METRICS: Mapping[str, Literal["minimize", "maximize"]] = {
    f"val_{metric.name}": metric.direction for metric in BUILT_IN
}
"""The metrics that every study may use: validation figures only, with their direction."""


@dataclass(frozen=True)
class Epoch:
    """One epoch's figures. Losses are in nats, accuracies are fractions."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Running mean of the training loss."""
    train_nll: float
    """Running mean of the negative log-likelihood of the true class, for any training loss."""
    train_acc: float
    val_loss: float
    """Mean negative log-likelihood of the true class, for any training loss."""
    val_acc: float
    val_auc: float
    val_balanced_acc: float
    lr: float
    """The learning rate at the epoch's first step."""
    seconds: float
    """Duration of the whole epoch: training and validation."""
    reused: bool = False
    val_sensitivity: float = math.nan
    """Recall of class 1; with more than two classes the one-vs-rest mean. NaN if a class is
    missing."""
    val_specificity: float = math.nan
    """Recall of class 0; with more than two classes the one-vs-rest mean of specificities."""
    val_seconds: float = math.nan
    """The part of `seconds` that validation took."""
    own: Mapping[str, float] = field(default_factory=dict)
    """Validation figures of the study's further metrics, by column: val_NAME. NaN where one is
    undefined."""

    def figure(self, metric: str) -> float:
        """Return a validation figure by its column, built in or the study's own."""
        return float(self.own[metric] if metric in self.own else getattr(self, metric))

    def is_finite(self, metric: str) -> bool:
        """Return whether the losses and the study's metric are finite; if not, the trial diverged.

        Other figures may be undefined, for example the AUC if validation lacks a class.
        """
        judged = (self.train_loss, self.train_nll, self.val_loss, self.figure(metric))
        return all(math.isfinite(value) for value in judged)

    def has_figures_of(self, epoch: "Epoch") -> bool:
        """Return whether two records of an epoch agree bit for bit, except for time and reuse.

        A training is a function of its code, data and arithmetic. Trained again with the
        same ones, an epoch has the same figures; with others, some last digit differs.
        """
        if self.own.keys() != epoch.own.keys():
            return False
        pairs = [(getattr(self, name), getattr(epoch, name)) for name in TRAINED_FIGURES]
        pairs += [(value, epoch.own[name]) for name, value in self.own.items()]
        return all(
            mine == theirs or (math.isnan(mine) and math.isnan(theirs)) for mine, theirs in pairs
        )


OWN = "own"
"""The field of a record for the figures of further metrics, by column."""
EFFORT = frozenset({"seconds", "val_seconds", "reused"})
"""Fields of an epoch that describe its cost, not its result."""
TRAINED_FIGURES = tuple(one.name for one in fields(Epoch) if one.name not in EFFORT | {OWN})


@dataclass(frozen=True)
class Figures:
    """What one set of weights (the best epoch's or the last's) achieves."""

    epoch: int
    train_loss: float
    train_nll: float
    train_acc: float
    val_loss: float
    val_acc: float
    test_loss: float | None = None
    test_acc: float | None = None
    val_auc: float | None = None
    val_balanced_acc: float | None = None
    val_sensitivity: float | None = None
    val_specificity: float | None = None
    test_auc: float | None = None
    test_balanced_acc: float | None = None
    test_sensitivity: float | None = None
    test_specificity: float | None = None
    own: Mapping[str, float] = field(default_factory=dict)
    """Figures of the study's further metrics, by column: val_NAME and test_NAME."""

    @classmethod
    def of(cls, epoch: Epoch, test: Mapping[str, float] | None = None) -> "Figures":
        """Return an epoch's figures, with those of the test set if there is one."""
        names = {one.name for one in fields(cls)}
        shared = names & {one.name for one in fields(Epoch)}
        figures: dict[str, Any] = {name: getattr(epoch, name) for name in shared}
        tested, own = split_own(test or {}, names)
        return cls(**figures | tested | {OWN: {**epoch.own, **own}})

    @property
    def gap(self) -> float | None:
        """Validation accuracy minus test accuracy, if there is a test set."""
        return None if self.test_acc is None else self.val_acc - self.test_acc


def columns_of(record: Epoch | Figures) -> dict[str, Any]:
    """Return a record by column, with further metrics beside the built-in figures."""
    plain = {one.name: getattr(record, one.name) for one in fields(record) if one.name != OWN}
    return {**plain, **record.own}


def split_own(
    figures: Mapping[str, float], fields_of: Collection[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Split figures by column into those with their own field and those of `own`."""
    built_in = {name: value for name, value in figures.items() if name in fields_of}
    return built_in, {name: value for name, value in figures.items() if name not in built_in}


@dataclass(frozen=True)
class Predictions:
    """Log-probabilities of every class for every image of a split, in the split's order."""

    split: SplitName
    at: Moment
    log_probabilities: "NDArray[np.float32]"
    resampled: Mapping[str, "NDArray[np.float32]"] = field(default_factory=dict)
    """For metrics without a value per image: one value per resample of the images, or of the
    patients, scaled so that their mean is the metric and their variance that of one unit."""
    not_resampled: Mapping[str, str] = field(default_factory=dict)
    """Why other metrics were not computed on resamples. For the trainer's log, not stored."""


def most_probable(probabilities: "NDArray[np.floating]") -> "NDArray[np.int64]":
    """Return the predicted class of each image, given probabilities or their logarithms.

    Ties go to the higher class: of two, p >= 0.5 is class 1. This is the only definition, so
    that every table, answer and saved network agrees with the stored accuracy.
    """
    highest: NDArray[np.int64] = probabilities.shape[1] - 1 - probabilities[:, ::-1].argmax(axis=1)
    return highest


@dataclass(frozen=True)
class Labels:
    """The true classes of a split, with the ids of its examples."""

    split: SplitName
    ids: tuple[str, ...]
    labels: "NDArray[np.int64]"
    patients: tuple[str, ...] = ()
    """The patient of each example if the data name patients, else empty."""


@dataclass(frozen=True)
class Dataset:
    """The description of a trial's data that the store keeps for reading its predictions."""

    fingerprint: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    labels: tuple[Labels, ...] = ()


@dataclass(frozen=True)
class DataIdentity:
    """The identity of a trial's data: equal for equal data, wherever they are stored."""

    keys: str
    """The keys of [data], as JSON."""
    fingerprint: str
    """Hash of the content."""
    counts: Mapping[str, Mapping[str, int]]
    """The number of images of each class, by split."""
    images_keys: str = ""
    """The keys without those that only split or resize images, as JSON."""
    images: str = ""
    """Hash of the set of images under those keys, independent of splits; "" if unknown."""


@dataclass(frozen=True)
class Identity:
    """The identity of a trial's code and data: equal in all trials of a study."""

    files: Mapping[str, str]
    """SHA-256 of each source file of the objective and of its imports."""
    packages: Mapping[str, str]
    """Versions of the installed packages that these import."""
    data: DataIdentity
    tuner: str
    """Version of tuner. A different one is reported, but not refused."""
    trainer: str
    """Hash of tuner's own training code."""


@dataclass(frozen=True)
class Setup:
    """A trainer's description of a trial before its first epoch."""

    device: str
    parameter_count: int
    initial_weights: str
    """Fingerprint of the weights before training: equal for equal seeds."""
    data_fingerprint: str
    notes: Mapping[str, str] = field(default_factory=dict)
    """Choices the trainer made and why (precision, memory format, versions)."""


@dataclass(frozen=True)
class Result:
    """The result of a complete trial: figures and predictions at the best and last epochs."""

    best: Figures
    last: Figures
    predictions: tuple[Predictions, ...] = ()


def value_text(value: Value | None) -> str:
    """Return a parameter's value for people, spelt as in a study file; – for none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
