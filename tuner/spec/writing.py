"""Writes a study back as a file, including overrides, ready to be launched again."""

import json
from collections.abc import Mapping
from typing import Any

from tuner.spec.keys import entries
from tuner.spec.space import Dimension
from tuner.spec.study import SECTIONS, Spec


def as_toml(spec: Spec) -> str:
    """Return a study file for this study, without keys that have their default."""
    written: dict[str, Mapping[str, Any]] = {}
    for name, section in SECTIONS.items():
        # All of [search], so that a reader sees how settings are chosen.
        keys = _keys(section, spec.section(name), whole=name == "search")
        written[name] = {key: v for key, v in keys.items() if not isinstance(v, Mapping)}
        written |= {f"{name}.{key}": v for key, v in keys.items() if isinstance(v, Mapping)}
    written |= {
        "space": {d.name: _dimension(d) for d in spec.space.dimensions},
        "fixed": spec.fixed,
        "data": spec.data,
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{_key(key)} = {inline(v)}\n" for key, v in keys.items())
        for name, keys in written.items()
        if keys
    )


def _keys(section: type, holder: object, *, whole: bool = False) -> dict[str, Any]:
    values = ((entry, getattr(holder, entry.field)) for entry in entries(section).values())
    return {
        entry.name: entry.write(value)
        for entry, value in values
        if value is not None and (value != entry.default or (whole and not entry.key.added))
    }


def _dimension(dimension: Dimension) -> Any:
    keys = _keys(type(dimension), dimension)
    return keys["values"] if list(keys) == ["values"] else keys


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _text(name)


def _text(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, except that TOML does not allow a literal DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def inline(value: Any) -> str:
    """Return a value as TOML writes it on one line, lists and tables included."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {inline(v)}' for name, v in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return _text(value)
