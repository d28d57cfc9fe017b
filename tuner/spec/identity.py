"""The identity of a study: a canonical form, its hash, and differences in words.

The path of the data counts as written, wherever the file is. Declared defaults and
the `--set` texts do not count, only the resulting values do.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.records import READY
from tuner.spec.keys import entries
from tuner.spec.study import SECTIONS, Heading, Spec
from tuner.text import masked


def _marked(change: str) -> frozenset[str]:
    return frozenset(
        f"{name}.{entry.field}"
        for name, section in SECTIONS.items()
        for entry in entries(section).values()
        if entry.key.change == change
    )


HARMLESS = _marked("harmless") | {"search.allocator_options.finish"}
"""Keys that may change in a running study, because no trial's figures depend on them."""

GROWING = _marked("grows")
"""Keys that may only increase."""


@dataclass(frozen=True)
class Change:
    """A key whose value differs; None means not written."""

    key: str
    stored: Any
    given: Any

    def __str__(self) -> str:
        """Return the change as one line."""
        return masked(f"{self.key}: stored {_words(self.stored)}, given {_words(self.given)}")


@dataclass(frozen=True)
class Difference:
    """How a given study differs from the stored one."""

    changes: tuple[Change, ...]
    extends: bool
    """Whether the given study only adds trials or seeds, or changes keys that affect no result."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.changes


def canonical(spec: Spec) -> dict[str, Any]:
    """Return the identity of a study as JSON, independent of order and number format."""
    # Trials stored before the objective declared a metric have no values of it.
    own = {m.name: f"{m.better} is better" for m in spec.metrics if m.name not in READY}
    return {
        **{name: _keys(section, spec.section(name)) for name, section in SECTIONS.items()},
        **({"metrics": own} if own else {}),
        "space": {d.name: _keys(type(d), d) for d in spec.space.dimensions},
        "fixed": _plain(spec.fixed),
        "data": _plain(spec.data),
    }


def fingerprint(spec: Spec) -> str:
    """Return the hash of the study's identity, equal for equivalent files."""
    text = json.dumps(canonical(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def compare(spec: Spec, given: Spec) -> Difference:
    """Return every key that differs, and whether the given study extends the stored one."""
    before, after = _flat(canonical(spec)), _flat(canonical(given))
    changes = tuple(
        Change(key, before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    )
    return Difference(changes, bool(changes) and _extends(spec, given, changes))


def extended(spec: Spec, given: Spec) -> Spec:
    """Return the stored study with the sections of a given one that extends it."""
    # Keys that may not change are equal in both, so whole sections can be copied.
    names = [*entries(Heading), *(name for name in SECTIONS if name != "study")]
    return replace(spec, overrides=given.overrides, **{n: getattr(given, n) for n in names})


def _extends(spec: Spec, given: Spec, changes: tuple[Change, ...]) -> bool:
    growing = [change.key for change in changes if change.key not in HARMLESS]
    if not growing:
        return True
    if any(key not in GROWING for key in growing):
        return False
    return (
        # More seeds out of an unchanged budget would remove explored configurations.
        given.total_trials >= spec.total_trials
        and given.configurations >= spec.configurations
        and given.replicates.seeds >= spec.replicates.seeds
    )


def _keys(section: type, holder: object) -> dict[str, Any]:
    """Return the keys of a section; one that was added later only if it has been set."""
    values = ((entry, getattr(holder, entry.field)) for entry in entries(section).values())
    return {
        entry.field: _plain(value)
        for entry, value in values
        if not (entry.key.added and value == entry.default)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        # A tuple in a mapping holds the values of a condition, whose order has no meaning.
        return {
            name: sorted(map(_number, inner), key=json.dumps)
            if isinstance(inner, tuple)
            else _number(inner)
            for name, inner in value.items()
        }
    return [_number(inner) for inner in value] if isinstance(value, tuple) else _number(value)


def _number(value: Any) -> Any:
    """Return 1.0 as 1, because a database may return either for the other."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flat(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return one entry per key of the file; a dimension of the space is one entry."""
    flat: dict[str, Any] = {}
    for section, keys in form.items():
        for key, value in keys.items():
            if key.endswith("_options"):
                flat |= {f"{section}.{key}.{name}": inner for name, inner in value.items()}
            else:
                flat[f"{section}.{key}"] = value
    return flat


def _words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        shown = {key: inner for key, inner in value.items() if inner not in ({}, None, False)}
        return "{ " + ", ".join(f"{key} = {_words(inner)}" for key, inner in shown.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
