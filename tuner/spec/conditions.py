"""Checks the conditions of a space: each must depend on something that varies, and be possible."""

import itertools
from collections.abc import Collection, Mapping

from tuner.names import suggest
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.space import LARGEST_GRID, Choice, Dimension, Space


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
            fault = _fault(dimension, parent, by_name, written, fixed)
            if fault:
                faults.add(path, fault)
            sound = sound and fault is None and parent in by_name
    return sound and _check_cycles(by_name, faults) and _check_reach(by_name, faults)


def _fault(
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
    return _value_fault(by_name[parent], dimension.when[parent])


def _value_fault(parent: Dimension, accepted: tuple[object, ...]) -> str | None:
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
