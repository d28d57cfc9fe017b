"""`--set KEY=VALUE`: changes that are applied to a study file before it is checked."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from tuner.errors import Fault
from tuner.names import suggest
from tuner.spec.document import cleaned
from tuner.spec.faults import KeyPath
from tuner.spec.keys import entries, find_key
from tuner.spec.study import DATA, SECTIONS

Document = dict[str, Any]

_OPTIONS = re.compile(r"search\.((?:sampler|pruner|allocator)_options)\.([A-Za-z0-9_-]+)")


class Overrides:
    """Applies `--set` texts to a document, and remembers which text set which key."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.origins: dict[KeyPath, str] = {}
        self.faults: list[Fault] = []

    def apply(self, texts: Sequence[str]) -> None:
        """Apply the texts in order; an unknown key is a fault."""
        for text in texts:
            key, equals, value = text.partition("=")
            if equals and key.strip():
                self._set(key.strip(), cleaned(parse_value(value)), text)
            else:
                self._fault(text, "expected KEY=VALUE, such as lr=1e-3 or budget.trials=20")

    def _set(self, key: str, value: Any, text: str) -> None:
        head, _, rest = key.partition(".")
        options = _OPTIONS.fullmatch(key)
        if options:
            self._put(("search", options[1], options[2]), value, text)
        elif head in SECTIONS and (entry := find_key(SECTIONS[head], rest)) is not None:
            # The file may use the key's other name.
            for name in (entry.name, entry.key.alias):
                self._table(head).pop(name, None)
            self._put((head, rest), value, text)
            if key in ("search.sampler", "search.pruner", "search.allocator"):
                # The file's options are those of the method that was replaced.
                self._table(head).pop(f"{rest}_options", None)
        elif head in ("space", "fixed") and rest:
            self._set_parameter(rest, value, text)
        elif not rest or (head == "data" and "." not in rest):
            self._set_parameter(key, value, text)
        else:
            self._fault(text, f"unknown key {key!r}; {suggest(key, _section_keys())}")

    def _set_parameter(self, name: str, value: Any, text: str) -> None:
        """Make a parameter or data key vary (a list or table), or fix it at one value."""
        section, key = (
            ("data", name.removeprefix(DATA)) if name.startswith(DATA) else ("fixed", name)
        )
        if isinstance(value, list | dict):
            self._table(section).pop(key, None)
            self._put(("space", name), value, text)
            return
        space = self._table("space")
        if name in space:
            del space[name]
            _settle(space, name, value)
        self._put((section, key), value, text)

    def _put(self, path: KeyPath, value: Any, text: str) -> None:
        table = self._table(path[0])
        for part in path[1:-1]:
            table = _child(table, part)
        table[path[-1]] = value
        self.origins[path] = text

    def _table(self, section: str) -> Document:
        return _child(self.document, section)

    def _fault(self, text: str, message: str) -> None:
        self.faults.append(Fault(f"--set {text}", message))


def parse_value(text: str) -> Any:
    """Parse the text as a TOML value, or return the text itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        # Not TOML, or a number with thousands of digits: the checks reject the text.
        return text.strip()
    # A line break in the text may have added further keys.
    return table["value"] if len(table) == 1 else text.strip()


def _settle(space: Document, name: str, value: Any) -> None:
    """Resolve the conditions on a dimension that now has one value.

    Dimensions that it activates lose the condition; those that it deactivates leave the
    space, together with everything that depends on them.
    """
    for child, dimension in list(space.items()):
        when = dimension.get("when") if isinstance(dimension, dict) else None
        if not isinstance(when, dict) or name not in when:
            continue
        accepted = when[name] if isinstance(when[name], list) else [when[name]]
        if value in accepted:
            space[child] = {**dimension, "when": {k: v for k, v in when.items() if k != name}}
        else:
            del space[child]
            _remove_children(space, child)


def _remove_children(space: Document, name: str) -> None:
    for child, dimension in list(space.items()):
        when = dimension.get("when") if isinstance(dimension, dict) else None
        if isinstance(when, dict) and name in when:
            space.pop(child, None)
            _remove_children(space, child)


def _child(table: Document, key: str) -> Document:
    """Return an inner table, created if missing; the checks report a value in its place."""
    inner = table.setdefault(key, {})
    return inner if isinstance(inner, dict) else {}


def _section_keys() -> list[str]:
    keys = [f"{name}.{key}" for name, section in SECTIONS.items() for key in entries(section)]
    options = [f"search.{kind}_options.KEY" for kind in ("sampler", "pruner", "allocator")]
    return [*keys, "data.KEY", *options]


def hint(name: str) -> str | None:
    """Return the full key that a bare name may have meant: `trials` means `budget.trials`."""
    return next((key for key in _section_keys() if key.endswith(f".{name}")), None)
