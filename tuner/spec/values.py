"""Reads [fixed] and [data]: one value for each name that the objective declares."""

from collections.abc import Collection, Mapping
from typing import Any

from tuner.records import Value
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.overrides import hint
from tuner.spec.parameters import Declarations, Parameter, normalised
from tuner.spec.study import DATA


class ValueReader:
    """Reads the sections of single values of one file."""

    def __init__(self, declared: Declarations, varied: Collection[str], faults: Faults) -> None:
        self._declared = declared
        self._varied = varied
        self._faults = faults

    def read(self, section: str, table: Mapping[str, Any]) -> dict[str, Value]:
        """Return the valid values; a name that also varies is a fault."""
        prefix = DATA if section == "data" else ""
        known = self._known(section)
        values = {}
        for name, value in table.items():
            path = (section, name)
            if prefix + name in self._varied:
                self._faults.add(path, f"{prefix}{name} is in [space] too; keep one of them")
            if self._declared.whole and name not in known:
                self._unknown(path, known)
            elif (fault := self._fault(path, value)) is not None:
                self._faults.add(path, fault)
            elif name in known:
                values[name] = normalised(known[name], value)
        return values

    def _known(self, section: str) -> Mapping[str, Parameter]:
        return self._declared.data if section == "data" else self._declared.parameters

    def _fault(self, path: KeyPath, value: Any) -> str | None:
        section, name = path
        if isinstance(value, list | dict):
            vary = f'"{DATA}{name}"' if section == "data" else name
            return f"expected one value, got {show(value)}; to vary it, write {vary} in [space]"
        declared = self._known(section).get(name)
        if declared is not None:
            return declared.fault(value)
        return None if isinstance(value, str | int | float) else f"expected a value, got {value!r}"

    def _unknown(self, path: KeyPath, known: Collection[str]) -> None:
        """Report a name that is not declared, or belongs to another section."""
        section, name = path
        key = name.removeprefix(DATA)
        if section == "data":
            meant = f"fixed.{name}" if name in self._declared.parameters else None
        else:
            meant = DATA + key if key in self._declared.data else hint(name)
        if meant:
            self._faults.add(path, f"unknown in [{section}]; did you mean {meant}?")
        else:
            self._faults.unknown(path, "parameter" if section == "fixed" else "data key", known)


def defaults(known: Mapping[str, Parameter], taken: Collection[str]) -> dict[str, Value]:
    """Return the declared defaults of names not in `taken`, in the order of declaration."""
    return {
        name: normalised(parameter, parameter.default)
        for name, parameter in known.items()
        if name not in taken
    }
