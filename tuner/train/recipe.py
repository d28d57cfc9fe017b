"""The shared trainer's parameters, typed: losses, optimizers, schedules and epochs of a job."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tuner.records import Value
from tuner.spec.parameters import SHARED


@dataclass(frozen=True)
class Recipe:
    """How one trial is trained; names and meanings are those of `spec.parameters.SHARED`."""

    loss: str
    focal_gamma: float
    label_smoothing: float
    class_weights: str
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    nesterov: bool
    scheduler: str
    step_size: int
    decay: float
    warmup_epochs: int
    plateau_patience: int
    batch_size: int
    epochs: int
    patience: int
    augment: float
    precision: str


def read_recipe(parameters: Mapping[str, Value]) -> Recipe:
    """Pick the trainer's parameters out of a job's; missing ones have their defaults."""
    values = {item.name: _value(item.name, parameters) for item in fields(Recipe)}
    return Recipe(**values)  # type: ignore[arg-type]  # kinds are checked by the declarations


def _value(name: str, parameters: Mapping[str, Value]) -> Value:
    declared = SHARED[name]
    value = parameters.get(name, declared.default)
    # TOML's `lr = 1` is an integer; the arithmetic must not depend on how it was written.
    return float(value) if declared.kind == "float" else value
