"""The vocabulary of trainable parameters: declared once, with type, range and meaning.

Nothing here needs torch. An objective adds its own declarations; the study file is
checked against both, and the reference table in docs/ is generated from them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.records import Metric, Value

Kind = Literal["float", "int", "bool", "choice", "text"]


@dataclass(frozen=True)
class Parameter:
    """One declared parameter: its values, its default and its meaning."""

    name: str
    kind: Kind
    default: Value
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    """An exclusive lower bound, for rates that must not be zero."""
    choices: tuple[str, ...] = ()

    def fault(self, value: object) -> str | None:
        """Return what is wrong with a value, or None if it is valid."""
        if self.kind in ("choice", "text"):
            valid = isinstance(value, str) and (self.kind == "text" or value in self.choices)
        elif self.kind == "bool":
            valid = isinstance(value, bool)
        else:
            valid = self._takes_number(value)
        return None if valid else f"expected {self.expected()}, got {value!r}"

    def expected(self) -> str:
        """Describe the valid values in words."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "text":
            return "text"
        if self.kind == "bool":
            return "true or false"
        noun = "a whole number" if self.kind == "int" else "a number"
        return noun + self._bounds()

    def _bounds(self) -> str:
        if self.low is not None and self.high is not None:
            return f" from {self.low:,g} to {self.high:,g}"
        parts = []
        if self.above is not None:
            parts.append(f"above {self.above:,g}")
        if self.low is not None:
            parts.append(f"of at least {self.low:,g}")
        if self.high is not None:
            parts.append(f"of at most {self.high:,g}" if not parts else f"at most {self.high:,g}")
        return " " + " and ".join(parts) if parts else ""

    def _takes_number(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (
            (self.kind == "float" or isinstance(value, int))
            and math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )


def normalised(parameter: Parameter | None, value: Any) -> Value:
    """Return the value in its parameter's type, so that 1 and 1.0 are the same learning rate."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if parameter is not None and parameter.kind == "float" and is_whole:
        return float(value)
    assert isinstance(value, str | int | float | bool)
    return value


@dataclass(frozen=True)
class Declarations:
    """The training parameters and [data] keys that a study of one objective may set."""

    parameters: Mapping[str, Parameter]
    data: Mapping[str, Parameter]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """The objective's own metrics, computed for every study of it."""
    whole: bool = True
    """Whether they are complete; if the objective is not found, only the shared ones are known."""


def by_name(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """Index declarations by name; declaring a name twice is a bug of the objective."""
    index: dict[str, Parameter] = {}
    for parameter in parameters:
        assert parameter.name not in index, f"{parameter.name} is declared twice"
        index[parameter.name] = parameter
    return index


SHARED: Mapping[str, Parameter] = by_name(
    [
        Parameter(
            "loss",
            "choice",
            "ce",
            "training loss: bce (one output, two classes), ce, or focal",
            choices=("bce", "ce", "focal"),
        ),
        Parameter(
            "focal_gamma",
            "float",
            2.0,
            "how strongly focal loss discounts images classified with confidence",
            low=0.0,
            high=20.0,
        ),
        Parameter(
            "label_smoothing",
            "float",
            0.0,
            "fraction of each label that is spread evenly over all classes",
            low=0.0,
            high=0.99,
        ),
        Parameter(
            "class_weights",
            "choice",
            "none",
            "balanced: weight each image by the inverse frequency of its class in the training set",
            choices=("none", "balanced"),
        ),
        Parameter(
            "optimizer",
            "choice",
            "adam",
            "adam (weight decay as L2), adamw (decoupled weight decay), or sgd",
            choices=("adam", "adamw", "sgd"),
        ),
        Parameter("lr", "float", 1e-3, "initial learning rate", above=0.0, high=100.0),
        Parameter("weight_decay", "float", 0.0, "weight decay of the optimizer", low=0.0),
        Parameter("momentum", "float", 0.9, "momentum of sgd", low=0.0, high=0.9999),
        Parameter("nesterov", "bool", False, "use Nesterov momentum; only for sgd with momentum"),
        Parameter(
            "scheduler",
            "choice",
            "constant",
            "how the learning rate changes over the epochs",
            choices=("constant", "step", "cosine", "exponential", "onecycle", "plateau"),
        ),
        Parameter("step_size", "int", 10, "epochs between drops of the step schedule", low=1),
        Parameter(
            "decay",
            "float",
            0.0,
            "factor applied to the rate at each drop (step, plateau) or epoch (exponential); "
            "0 means the default, 0.1 for step and plateau and 0.95 for exponential",
            low=0.0,
            high=1.0,
        ),
        Parameter(
            "warmup_epochs",
            "int",
            0,
            "epochs at the start over which the rate rises, step by step, to that of the schedule",
            low=0,
        ),
        Parameter(
            "plateau_patience",
            "int",
            5,
            "epochs without a lower validation loss after which plateau lowers the rate",
            low=1,
        ),
        Parameter("batch_size", "int", 32, "images per step", low=1, high=65536),
        Parameter("epochs", "int", 30, "passes over the training images", low=1, high=100_000),
        Parameter(
            "patience",
            "int",
            0,
            "stop after this many epochs without a better validation metric; 0 never stops early",
            low=0,
        ),
        Parameter(
            "augment",
            "float",
            0.0,
            "strength of the augmentation of training images, from 0 (none) to 1",
            low=0.0,
            high=1.0,
        ),
        Parameter(
            "precision",
            "choice",
            "auto",
            "arithmetic of the network: fp32, bf16, or auto, which depends on device and network",
            choices=("auto", "fp32", "bf16"),
        ),
    ]
)
"""The shared trainer's parameters; models belong to the objectives."""

UNFOUND = Declarations(SHARED, {}, whole=False)
"""Declarations for an objective that is not found: only the shared parameters."""
