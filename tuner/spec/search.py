"""The samplers, pruners and allocators that a study may use, and their options.

Declared once: the checks of a study file, its schema and its reference are derived
from them. `tuner.store` maps them to Optuna's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.records import Value
from tuner.spec.faults import Faults, KeyPath
from tuner.spec.parameters import Parameter, by_name, normalised


@dataclass(frozen=True)
class Method:
    """A sampler, pruner or allocator: what it does, and its options."""

    name: str
    meaning: str
    options: Mapping[str, Parameter] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    """Options that must be written; their declared default is not used."""
    optional: tuple[str, ...] = ()
    """Options that are absent unless written; their declared default is not used."""
    learns: bool = False
    """Whether a sampler looks at finished trials; others are functions of (seed, configuration)."""
    compares: bool = False
    """Whether a pruner compares a trial with others."""

    def default(self, option: str) -> Value | None:
        """Return the default of an option, or None if it has none."""
        if option in self.required or option in self.optional:
            return None
        return self.options[option].default


def _methods(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


def _whole(name: str, default: int, meaning: str, low: int = 0) -> Parameter:
    return Parameter(name, "int", default, meaning, low=low)


_STARTUP_TRIALS = _whole("n_startup_trials", 10, "random trials before the model is used")
_WARMUP = _whole("warmup", 0, "epochs at the start of a trial in which it is never pruned")
_INTERVAL = _whole("interval", 1, "epochs between pruning decisions", low=1)
_STARTUP = _whole("startup", 5, "completed trials needed before any trial is pruned")
_BOOTSTRAP = _whole("bootstrap_count", 0, "trials that must complete a rung before any is promoted")
_MIN_RESOURCE = _whole("min_resource", 1, "epochs that every trial gets", low=1)

SAMPLERS: Mapping[str, Method] = _methods(
    Method("grid", "every combination, once each"),
    Method("random", "independent random draws"),
    Method(
        "tpe",
        "tree-structured Parzen estimator: samples more often near good settings",
        by_name(
            [
                _STARTUP_TRIALS,
                _whole(
                    "n_ei_candidates",
                    24,
                    "candidates per proposal; the best is used",
                    low=1,
                ),
                Parameter("multivariate", "bool", True, "model the parameters jointly"),
                Parameter(
                    "group", "bool", False, "a separate model for each set of active parameters"
                ),
                Parameter(
                    "constant_liar", "bool", True, "avoid settings near those of running trials"
                ),
            ]
        ),
        learns=True,
    ),
    Method(
        "qmc",
        "quasi-random sequence, which covers the space more evenly than random draws",
        by_name(
            [
                Parameter("scramble", "bool", True, "randomise the sequence by the seed"),
                Parameter(
                    "qmc_type", "choice", "sobol", "kind of sequence", choices=("sobol", "halton")
                ),
            ]
        ),
    ),
    Method(
        "gp",
        "Gaussian process, for few and expensive trials",
        by_name(
            [
                _STARTUP_TRIALS,
                Parameter("deterministic", "bool", False, "assume that the metric has no noise"),
            ]
        ),
        learns=True,
    ),
)

PRUNERS: Mapping[str, Method] = _methods(
    Method("none", "every trial is trained to completion"),
    Method(
        "median",
        "stop a trial that is worse than the median of completed trials at the same epoch",
        by_name([_WARMUP, _STARTUP, _INTERVAL]),
        compares=True,
    ),
    Method(
        "percentile",
        "stop a trial that is not in the best percentile at the same epoch",
        by_name(
            [
                Parameter(
                    "percentile", "float", 25.0, "percentage of trials to keep", low=0, high=100
                ),
                _WARMUP,
                _STARTUP,
                _INTERVAL,
            ]
        ),
        compares=True,
    ),
    Method(
        "asha",
        "asynchronous successive halving: only the best of each rung continue",
        by_name(
            [
                _MIN_RESOURCE,
                _whole("reduction_factor", 4, "one in this many continues", low=2),
                Parameter(
                    "min_early_stopping_rate",
                    "int",
                    0,
                    "rungs to skip at the start",
                    low=0,
                    high=30,
                ),
                _BOOTSTRAP,
            ]
        ),
        required=("min_resource",),
        compares=True,
    ),
    Method(
        "hyperband",
        "several runs of successive halving that start at different rungs",
        by_name(
            [
                _MIN_RESOURCE,
                _whole("max_resource", 30, "epochs of the longest trials", low=1),
                _whole("reduction_factor", 3, "one in this many continues", low=2),
                _BOOTSTRAP,
            ]
        ),
        required=("min_resource", "max_resource"),
        compares=True,
    ),
    Method(
        "patient",
        "stop a trial that has not improved for some epochs",
        by_name(
            [
                _whole("patience", 10, "epochs without improvement"),
                Parameter(
                    "min_delta",
                    "float",
                    0.0,
                    "smallest change that counts as an improvement",
                    low=0.0,
                ),
            ]
        ),
        required=("patience",),
    ),
    Method(
        "threshold",
        "stop a trial whose metric leaves these bounds (in the unit of the metric)",
        by_name(
            [
                Parameter("lower", "float", 0.0, "stop below this value"),
                Parameter("upper", "float", 0.0, "stop above this value"),
                _WARMUP,
                _INTERVAL,
            ]
        ),
        optional=("lower", "upper"),
    ),
)

ALLOCATORS: Mapping[str, Method] = _methods(
    Method("none", "every trial is trained to completion, unless a pruner stops it"),
    Method(
        "promote",
        "successive halving that pauses: each trial gets a few epochs, the best go on, "
        "and the others can go on later",
        by_name(
            [
                Parameter(
                    "first",
                    "float",
                    0.05,
                    "epochs until the first pause: below 1 a share of the longest training, "
                    "otherwise a number of epochs",
                    above=0.0,
                ),
                _whole("eta", 3, "one in this many goes on, for this many times the epochs", low=2),
                _whole(
                    "finish",
                    1,
                    "trials to complete at least; by default `top`, or a sixth of the settings "
                    "if that is more",
                    low=1,
                ),
            ]
        ),
        optional=("finish",),
    ),
)


def read_options(
    method: Method, written: Mapping[str, Any], path: KeyPath, faults: Faults
) -> dict[str, Value] | None:
    """Return all options of a method with their values; add faults and return None if invalid."""
    sound = True
    for name, value in written.items():
        if name not in method.options:
            faults.unknown((*path, name), f"option of {method.name}", method.options)
            sound = False
        elif (fault := method.options[name].fault(value)) is not None:
            faults.add((*path, name), fault)
            sound = False
    for name in method.required:
        if name not in written:
            option = method.options[name]
            words = f"missing; {method.name} needs it: {option.expected()} ({option.meaning})"
            faults.add((*path, name), words)
            sound = False
    return _complete(method, written, path, faults) if sound else None


def _complete(
    method: Method, written: Mapping[str, Any], path: KeyPath, faults: Faults
) -> dict[str, Value] | None:
    given = {name: written.get(name, method.default(name)) for name in method.options}
    options = {
        name: normalised(method.options[name], value)
        for name, value in given.items()
        if value is not None
    }
    fault = _conflict(method, options)
    if fault:
        faults.add(path, fault)
        return None
    return options


def _conflict(method: Method, options: Mapping[str, Value]) -> str | None:
    """Return what is wrong with options that are valid individually but not together."""
    if method.name == "threshold":
        return _bounds_conflict(options.get("lower"), options.get("upper"))
    if method.name == "hyperband" and options["max_resource"] < options["min_resource"]:  # type: ignore[operator]
        return "max_resource must be at least min_resource"
    if method.name == "promote" and not _is_rung(options["first"]):
        return f"first must be below 1 or a whole number of epochs, got {options['first']:g}"
    if method.name == "tpe" and options["group"] and not options["multivariate"]:
        return "group = true needs multivariate = true"
    return None


def _is_rung(first: Value) -> bool:
    assert isinstance(first, float)
    return first < 1 or first.is_integer()


def _bounds_conflict(lower: Value | None, upper: Value | None) -> str | None:
    if lower is None and upper is None:
        return "the threshold pruner needs lower, upper, or both"
    if isinstance(lower, int | float) and isinstance(upper, int | float) and lower >= upper:
        return f"lower ({lower:g}) must be below upper ({upper:g})"
    return None
