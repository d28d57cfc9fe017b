"""Checks a setting given by a person against a study's space, reporting all faults at once."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from tuner.errors import UserError
from tuner.names import meant
from tuner.records import Value, value_text
from tuner.spec.overrides import parse_value
from tuner.spec.space import Choice, Dimension
from tuner.spec.study import DATA, Spec


def check_setting(spec: Spec, given: Mapping[str, Any]) -> dict[str, Value]:
    """Return the setting in the space's types and the order of the file.

    Every varied parameter must have a value, unless a condition deactivates it. A fixed parameter
    may be given with its fixed value.
    """
    faults: list[str] = []
    chosen: dict[str, Value] = {}
    for dimension in spec.space.ordered():
        name = dimension.name
        if not spec.space.is_active(dimension, chosen):
            if name in given:
                needed = " and ".join(
                    f"{parent} is {_either(values)}" for parent, values in dimension.when.items()
                )
                faults.append(f"{name}: it has a value only where {needed}; leave it out")
        elif name not in given:
            faults.append(f"{name}: missing; give {_expected(dimension)}")
        elif (value := _fitting(dimension, given[name])) is None:
            faults.append(f"{name}: {value_text(given[name])} is not {_expected(dimension)}")
        else:
            chosen[name] = value
    fixed = {**spec.fixed, **{DATA + name: value for name, value in spec.data.items()}}
    for name, value in given.items():
        if name in spec.space.names or (name in fixed and fixed[name] == value):
            continue
        if name in fixed:
            faults.append(f"{name}: this study fixes it at {value_text(fixed[name])}")
        else:
            varied = ", ".join(spec.space.names) or "nothing"
            hint = meant(name, spec.space.names) or f" This study varies {varied}."
            faults.append(f"{name}: unknown parameter.{hint}")
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise UserError(f"This setting does not fit {spec.name}; nothing was queued.\n{lines}")
    return {name: chosen[name] for name in spec.space.names if name in chosen}


def read_setting(spec: Spec, words: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE words, as `tuner enqueue` takes them; `check_setting` checks the values."""
    given: dict[str, Any] = {}
    listed = {d.name: d.values for d in spec.space.dimensions if isinstance(d, Choice)}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UserError(f"{word!r} is not NAME=VALUE, such as lr=0.001 or model=cnn.")
        if name in given:
            raise UserError(f"{name} is given twice; give each parameter once.")
        # A text that looks like a number stays a text if the space lists it as one.
        given[name] = text if text in listed.get(name, ()) else parse_value(text)
    return given


def _fitting(dimension: Dimension, value: Any) -> Value | None:
    """Return the value in the dimension's type, or None if it is not one of its values."""
    if isinstance(dimension, Choice) or dimension.count is not None:
        # In Python 1 == True; in a study file they are different values.
        same = (v for v in dimension.values if v == value and _kind(v) == _kind(value))
        return next(same, None)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and (dimension.integer or not isinstance(value, float)):
        return None
    if not dimension.low <= value <= dimension.high:  # NaN is in no range
        return None
    return int(value) if dimension.integer else float(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _expected(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return _either(dimension.values)
    what = "a whole number" if dimension.integer else "a number"
    step = "" if dimension.step is None else f" in steps of {value_text(dimension.step)}"
    return f"{what} from {value_text(dimension.low)} to {value_text(dimension.high)}{step}"


def _either(values: tuple[Value, ...]) -> str:
    *some, last = (value_text(value) for value in values)
    return f"{', '.join(some)} or {last}" if some else last


def plain(value: Any) -> Any:
    """Convert a Python value to lists, tables and plain numbers, as in a study file."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(inner) for inner in value]
    if isinstance(value, PathLike):
        return fspath(value)
    # A number of numpy, pandas or torch, which is not a Python int or float.
    item = getattr(value, "item", None)
    if callable(item) and not isinstance(value, str | int | float | bool):
        return item() if getattr(value, "size", 1) == 1 else plain(value.tolist())
    return value
