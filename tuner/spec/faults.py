"""Collects the faults of a study file, so that all of them are reported at once."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tuner.errors import Fault
from tuner.names import suggest

KeyPath = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 60


class Faults:
    """Collects faults and returns them in the order of the file."""

    def __init__(self, document: Mapping[str, Any], origins: Mapping[KeyPath, str]) -> None:
        self._positions = _positions(document)
        self._origins = origins
        self._found: dict[tuple[KeyPath, str], None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: KeyPath, message: str) -> None:
        """Add a fault, unless the same one was added before."""
        self._found[path, message] = None

    def unknown(self, path: KeyPath, noun: str, valid: Iterable[str]) -> None:
        """Add a fault for an unknown name, suggesting the nearest valid one."""
        self.add(path, f"unknown {noun} {show(path[-1])}; {suggest(path[-1], valid)}")

    def extend(self, path: KeyPath, more: str) -> None:
        """Add more text to the faults of one key."""
        self._found = {
            (at, f"{message}. {more}" if at == path else message): None
            for at, message in self._found
        }

    def ordered(self) -> tuple[Fault, ...]:
        """Return the faults in the order of the file; missing sections come last."""
        found = sorted(self._found, key=lambda fault: self._position(fault[0]))
        return tuple(Fault(dotted(path), message + self._origin(path)) for path, message in found)

    def _position(self, path: KeyPath) -> int:
        known = _longest_prefix(path, self._positions)
        return len(self._positions) if known is None else self._positions[known]

    def _origin(self, path: KeyPath) -> str:
        known = _longest_prefix(path, self._origins)
        return "" if known is None else f" (from --set {self._origins[known]})"


def dotted(path: KeyPath) -> str:
    """Return a key path as TOML writes it."""
    return ".".join(part if _BARE.fullmatch(part) else f'"{part}"' for part in path)


def show(value: object) -> str:
    """Return a value roughly as the file has it, shortened to one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "a table" if isinstance(value, dict) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _positions(document: Mapping[str, Any]) -> dict[KeyPath, int]:
    """Number every key of the document in the order of the file."""
    positions: dict[KeyPath, int] = {}

    def visit(table: Mapping[str, Any], path: KeyPath) -> None:
        for key, value in table.items():
            positions[*path, key] = len(positions)
            if isinstance(value, dict):
                visit(value, (*path, key))

    visit(document, ())
    return positions


def _longest_prefix(path: KeyPath, known: Mapping[KeyPath, object]) -> KeyPath | None:
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((prefix for prefix in prefixes if prefix in known), None)
