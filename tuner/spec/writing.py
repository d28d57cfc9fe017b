"""Writes a study back as a file, including overrides, ready to be launched again."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.records import Value
from tuner.spec.quantities import write_bytes, write_seconds
from tuner.spec.space import Choice, Dimension
from tuner.spec.study import Checkpoints, Limits, Search, Spec


def as_toml(spec: Spec) -> str:
    """Return a study file for this study, without keys that have their default."""
    sections: Mapping[str, Mapping[str, str]] = {
        "study": _texts(name=spec.name, question=spec.question, objective=spec.objective),
        "budget": _texts(trials=spec.budget.trials, hours=spec.budget.hours),
        "limits": _limits(spec.limits),
        "checkpoints": _checkpoints(spec.checkpoints),
        "search": _search(spec.search),
        "search.sampler_options": _values(spec.search.sampler_options),
        "search.pruner_options": _values(spec.search.pruner_options),
        "replicates": _changed(spec.replicates, type(spec.replicates)()),
        "space": {_key(one.name): _dimension(one) for one in spec.space.dimensions},
        "fixed": _values(spec.fixed),
        "data": _values(spec.data),
    }
    written = [
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for name, keys in sections.items()
        if keys
    ]
    return "\n".join(written)


def _limits(limits: Limits) -> dict[str, str]:
    usual = Limits()
    written = _texts(
        attempts=_unless(limits.attempts, usual.attempts),
        threads=_unless(limits.threads, usual.threads),
    )
    if limits.silence_seconds != usual.silence_seconds:
        written["silence"] = _text(write_seconds(limits.silence_seconds))
    if limits.memory_bytes is not None:
        written["memory"] = _text(write_bytes(limits.memory_bytes))
    return written


def _checkpoints(checkpoints: Checkpoints) -> dict[str, str]:
    written = _changed(checkpoints, Checkpoints())
    if "limit_bytes" in written:
        written["limit"] = _text(write_bytes(int(written.pop("limit_bytes"))))
    return written


def _search(search: Search) -> dict[str, str]:
    options = ("sampler_options", "pruner_options", "pack")
    written = _texts(sampler=search.sampler, pruner=search.pruner, metric=search.metric)
    written |= _texts(pack=_unless(search.pack, Search().pack))
    rest = {name: one for name, one in vars(search).items() if name not in options}
    return written | _texts(**{name: one for name, one in rest.items() if name not in written})


def _changed(section: Any, usual: Any) -> dict[str, str]:
    return _texts(
        **{name: _unless(value, getattr(usual, name)) for name, value in vars(section).items()}
    )


def _unless(value: Any, usual: Any) -> Any:
    return None if value == usual else value


def _texts(**values: Any) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items() if value is not None}


def _values(values: Mapping[str, Value]) -> dict[str, str]:
    return {_key(name): _text(value) for name, value in values.items()}


def _dimension(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        values = _list(dimension.values)
        return (
            f"{{ values = {values}, when = {_when(dimension.when)} }}" if dimension.when else values
        )
    return f"{{ {', '.join(_range(dimension))} }}"


def _range(dimension: Any) -> Iterator[str]:
    yield f"low = {_text(dimension.low)}"
    yield f"high = {_text(dimension.high)}"
    if dimension.step is not None:
        yield f"step = {_text(dimension.step)}"
    if dimension.log:
        yield "log = true"
    if dimension.when:
        yield f"when = {_when(dimension.when)}"


def _when(when: Mapping[str, tuple[Value, ...]]) -> str:
    written = [f"{_key(name)} = {_list(accepted)}" for name, accepted in when.items()]
    return f"{{ {', '.join(written)} }}"


def _list(values: tuple[Value, ...]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


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
        return f"{{ {', '.join(f'{_key(name)} = {inline(one)}' for name, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return _text(value)
