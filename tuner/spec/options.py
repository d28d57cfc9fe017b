"""Reads the options of a sampler or pruner, complete with their defaults."""

from collections.abc import Mapping
from typing import Any

from tuner.records import Value
from tuner.spec.dimensions import normalised
from tuner.spec.faults import Faults, KeyPath
from tuner.spec.search import Method, conflict


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
    fault = conflict(method, options)
    if fault:
        faults.add(path, fault)
        return None
    return options
