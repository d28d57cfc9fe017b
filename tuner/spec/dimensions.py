"""Reads [space]: checks its dimensions by the objective's declarations, and their conditions."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tuner.names import suggest
from tuner.records import Value
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.keys import read_keys
from tuner.spec.parameters import Declarations, Parameter, normalised
from tuner.spec.space import LARGEST_GRID, Choice, Dimension, Range, Space
from tuner.spec.study import DATA

_FORMS = (
    "expected a list of values, a range { low = …, high = … }, "
    "or a choice with a condition { values = […], when = {…} }"
)


def find_parameter(
    path: KeyPath, name: str, declared: Declarations, faults: Faults
) -> Parameter | None:
    """Return the declaration of a name in [space]; an undeclared name is a fault."""
    data = {f"{DATA}{key}": parameter for key, parameter in declared.data.items()}
    known = {**declared.parameters, **data}
    if name in known:
        return known[name]
    if name in declared.data:
        faults.add(path, f'{name} is a key of [data]; to vary it, write "{DATA}{name}" in quotes')
    else:
        faults.unknown(path, "parameter", known)
    return None


class SpaceReader:
    """Reads the dimensions of one file; faults of one do not hide faults of others."""

    def __init__(self, declared: Declarations, faults: Faults) -> None:
        self._declared = declared
        self._faults = faults

    def read(self, table: Mapping[str, Any]) -> tuple[Dimension, ...]:
        """Return the valid dimensions, in the order of the file."""
        read = (self._dimension(name, written) for name, written in table.items())
        return tuple(dimension for dimension in read if dimension is not None)

    def _dimension(self, name: str, written: Any) -> Dimension | None:
        path = ("space", name)
        if name == "data" and isinstance(written, dict):
            example = next(iter(written), "KEY")
            self._faults.add(path, f'to vary a data key, write "{DATA}{example}" in quotes')
            return None
        if self._declared.whole:
            parameter = find_parameter(path, name, self._declared, self._faults)
            if parameter is None:
                return None
        else:
            parameter = self._declared.parameters.get(name)
        if isinstance(written, list):
            return self._choice(name, written, {}, parameter)
        return self._table(path, written, parameter)

    def _table(self, path: KeyPath, written: Any, parameter: Parameter | None) -> Dimension | None:
        if not isinstance(written, dict):
            self._faults.add(path, f"{_FORMS}; one value alone belongs in [fixed]")
            return None
        if "values" in written:
            choice = read_keys(Choice, written, path, self._faults)
            if choice is None:
                return None
            return self._choice(path[1], choice["values"], choice.get("when", {}), parameter)
        if not {"low", "high", "step", "log"} & set(written):
            self._faults.add(path, _FORMS)
            return None
        values = read_keys(Range, written, path, self._faults)
        return None if values is None else self._range(path, values, parameter)

    def _choice(
        self,
        name: str,
        written: Sequence[Any],
        when: Mapping[str, Any],
        parameter: Parameter | None,
    ) -> Choice | None:
        path = ("space", name)
        if not written:
            self._faults.add(path, "an empty choice; list at least one value")
        faults = [fault for fault in (_value_fault(parameter, value) for value in written) if fault]
        for fault in faults:
            self._faults.add(path, fault)
        if faults or not written:
            return None
        values = tuple(normalised(parameter, value) for value in written)
        repeated = next((v for index, v in enumerate(values) if v in values[:index]), None)
        if repeated is not None:
            self._faults.add(path, f"{show(repeated)} is listed twice; list every value once")
            return None
        return Choice(name, values, self._when(when))

    def _range(
        self, path: KeyPath, values: Mapping[str, Any], parameter: Parameter | None
    ) -> Range | None:
        written = Range(path[1], **{**values, "when": self._when(values.get("when", {}))})
        faults = range_faults(written, parameter)
        for key, message in faults:
            self._faults.add((*path, key) if key else path, message)
        if faults:
            return None
        if parameter is None or parameter.kind == "int":
            return replace(written, integer=parameter is not None)
        step = None if written.step is None else float(written.step)
        return replace(written, low=float(written.low), high=float(written.high), step=step)

    def _when(self, written: Mapping[str, Any]) -> dict[str, tuple[Value, ...]]:
        known = dict(self._declared.parameters)
        known |= {f"{DATA}{key}": parameter for key, parameter in self._declared.data.items()}
        return {
            parent: tuple(
                normalised(known.get(parent), value)
                for value in (accepted if isinstance(accepted, list) else [accepted])
            )
            for parent, accepted in written.items()
        }


def range_faults(table: Range, parameter: Parameter | None) -> list[tuple[str, str]]:
    """Return the faults of a range, each with the key that it concerns."""
    if parameter is not None and parameter.kind not in ("int", "float"):
        words = f"{parameter.name} has no range, it is {parameter.expected()}; list the values"
        return [("", words)]
    faults = []
    if parameter is not None:
        ends = {"low": table.low, "high": table.high}
        found = ((key, parameter.fault(end)) for key, end in ends.items())
        faults = [(key, fault) for key, fault in found if fault]
    if table.low >= table.high:
        faults.append(("", f"low ({table.low}) must be below high ({table.high})"))
    elif table.log and table.low <= 0:
        faults.append(("low", f"a log range needs low above 0, got {table.low}"))
    return faults or _step_faults(table, parameter)


def _step_faults(table: Range, parameter: Parameter | None) -> list[tuple[str, str]]:
    step = table.step
    if step is None:
        return []
    if table.log:
        return [("step", "a log range has no step; leave out one, or list the values")]
    if parameter is not None and parameter.kind == "int" and not isinstance(step, int):
        return [("step", f"expected a whole number, got {step}")]
    if step <= 0:
        return [("step", f"expected a number above 0, got {step}")]
    if step > table.high - table.low:
        return [("step", f"{step} is larger than the range ({table.low} to {table.high})")]
    whole = all(isinstance(end, int) for end in (table.low, table.high, step))
    return _reach_faults(Range("", table.low, table.high, step=step, integer=whole))


def _reach_faults(stepped: Range) -> list[tuple[str, str]]:
    count = stepped.count
    assert count is not None
    if count > LARGEST_GRID:
        return [("step", f"makes {count:,} values; at most {LARGEST_GRID:,} can be tried")]
    last = stepped.value(count - 1)
    if last == stepped.high:
        return []
    return [("step", f"does not reach high ({stepped.high}): the last value is {last}")]


def _value_fault(parameter: Parameter | None, value: Any) -> str | None:
    if parameter is not None and not isinstance(value, list | dict):
        return parameter.fault(value)
    fits = isinstance(value, str | int | float | bool)
    return None if fits else f"expected a value, got {show(value)}"


def check_conditions(
    dimensions: tuple[Dimension, ...],
    written: Collection[str],
    fixed: Collection[str],
    faults: Faults,
) -> bool:
    """Report every impossible condition; return whether the space can be used.

    `written` are all names in [space], valid or not: a condition on a faulty dimension is not
    reported as a second fault. `fixed` are the names with one value.
    """
    by_name = {dimension.name: dimension for dimension in dimensions}
    sound = True
    for dimension in dimensions:
        for parent in dimension.when:
            path = ("space", dimension.name, "when", parent)
            fault = _condition_fault(dimension, parent, by_name, written, fixed)
            if fault:
                faults.add(path, fault)
            sound = sound and fault is None and parent in by_name
    return sound and _check_cycles(by_name, faults) and _check_reach(by_name, faults)


def _condition_fault(
    dimension: Dimension,
    parent: str,
    by_name: Mapping[str, Dimension],
    written: Collection[str],
    fixed: Collection[str],
) -> str | None:
    if parent == dimension.name:
        return "a dimension cannot be a condition of itself"
    if parent in fixed:
        return f"{parent} is fixed, so the condition never changes; vary it in [space]"
    if parent not in written:
        return f"{parent} is not in [space]; {suggest(parent, written)}"
    if parent not in by_name:
        return None
    return _accepted_fault(by_name[parent], dimension.when[parent])


def _accepted_fault(parent: Dimension, accepted: tuple[object, ...]) -> str | None:
    if not isinstance(parent, Choice) and parent.step is None:
        return f"{parent.name} is a range without a step; a condition needs distinct values"
    values = parent.values
    for value in accepted:
        # In Python 1 == True; in a file they are different values.
        if not any(value == each and _is_bool(value) == _is_bool(each) for each in values):
            shown = [str(each) for each in values[:20]]
            return f"{parent.name} never takes {show(value)}; {suggest(str(value), shown)}"
    return None


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _check_cycles(by_name: Mapping[str, Dimension], faults: Faults) -> bool:
    settled: set[str] = set()
    while ready := {n for n, d in by_name.items() if n not in settled and settled >= set(d.when)}:
        settled |= ready
    waiting = [name for name in by_name if name not in settled]
    if waiting:
        # One fault for the whole cycle, at its first member in the file.
        faults.add(("space", waiting[0], "when"), f"conditions in a circle: {', '.join(waiting)}")
    return not waiting


def _check_reach(by_name: Mapping[str, Dimension], faults: Faults) -> bool:
    reached = True
    for dimension in by_name.values():
        if dimension.when and not _reachable(dimension, by_name):
            path: KeyPath = ("space", dimension.name, "when")
            faults.add(path, "the conditions are never true together, so it would never be used")
            reached = False
    return reached


def _reachable(dimension: Dimension, by_name: Mapping[str, Dimension]) -> bool:
    """Return whether any combination of its parents' values activates a dimension."""
    above: dict[str, Dimension] = {}
    waiting = list(dimension.when)
    while waiting:
        parent = by_name[waiting.pop()]
        if parent.name not in above:
            above[parent.name] = parent
            waiting += parent.when
    space = Space(tuple(above.values()))
    some = itertools.islice(space.combinations(), LARGEST_GRID)
    # With more combinations than the limit, assume that one of them activates it.
    return any(space.is_active(dimension, chosen) for chosen in some) or space.size() > LARGEST_GRID
