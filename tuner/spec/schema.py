"""The JSON schema that lets editors complete and check a study file.

python -m tuner.spec.schema > docs/study-file.schema.json
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from tuner.spec.keys import DeclaredKey, entries, required_keys
from tuner.spec.parameters import SHARED, Parameter
from tuner.spec.search import ALLOCATORS, PRUNERS, SAMPLERS, Method
from tuner.spec.space import Choice, Range
from tuner.spec.study import SECTIONS, Search


def schema() -> dict[str, Any]:
    """Return the schema of a study file; an objective's own parameters are left open."""
    search = _table(Search)
    search["allOf"] = [
        *_options("sampler", SAMPLERS, search["properties"]["sampler"]["default"]),
        *_options("pruner", PRUNERS, search["properties"]["pruner"]["default"]),
        *_options("allocator", ALLOCATORS, search["properties"]["allocator"]["default"]),
    ]
    values = TypeAdapter(dict[str, str | bool | int | float]).json_schema()
    scalar = values["additionalProperties"]
    dimension = {"$ref": "#/$defs/Dimension"}
    choice = {"type": "array", "items": scalar, "minItems": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"Dimension": {"anyOf": [choice, _table(Choice), _table(Range)]}},
        "description": "A question to be answered by training: a study file of tuner.",
        "type": "object",
        "properties": {
            **{name: _table(section) for name, section in SECTIONS.items()},
            "search": search,
            "space": {
                "description": "What varies: a list of values, or a range.",
                "type": "object",
                "properties": {
                    name: {**dimension, "description": parameter.meaning}
                    for name, parameter in SHARED.items()
                },
                "additionalProperties": dimension,
            },
            "fixed": {
                "description": "Parameters with the same value in every trial.",
                **values,
                "properties": {name: _parameter(parameter) for name, parameter in SHARED.items()},
            },
            "data": {
                "description": "Where the images come from and how they are prepared.",
                **values,
            },
            "fleet": {
                "description": "Options of the engines that run workers: no part of the study.",
                "type": "object",
                "additionalProperties": {"type": "object"},
            },
        },
        "required": [name for name, section in SECTIONS.items() if required_keys(section)],
        "additionalProperties": False,
    }


def text() -> str:
    """Return the schema as the file in docs/ holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _table(section: type) -> dict[str, Any]:
    """Return the schema of a table with the keys that a dataclass declares."""
    return {
        "description": section.__doc__,
        "type": "object",
        "properties": {
            name: _key(entry)
            for entry in entries(section).values()
            for name in (entry.name, entry.key.alias)
            if name
        },
        "required": required_keys(section),
        "additionalProperties": False,
    }


def _key(entry: DeclaredKey) -> dict[str, Any]:
    form = {"description": entry.key.meaning, **entry.adapter.json_schema()}
    absent = entry.required or entry.default in (None, {})
    return form if absent else {**form, "default": entry.write(entry.default)}


def _options(kind: str, methods: Mapping[str, Method], default: str) -> list[dict[str, Any]]:
    """Return a rule for each method: if it is named, these are its options."""
    return [
        {
            # The default method need not be written, so its key must not be required.
            "if": {
                "properties": {kind: {"const": name}},
                **({} if name == default else {"required": [kind]}),
            },
            "then": {
                "properties": {f"{kind}_options": _method(method)},
                **({"required": [f"{kind}_options"]} if method.required else {}),
            },
        }
        for name, method in methods.items()
    ]


def _method(method: Method) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{method.name}: {method.meaning}",
        "properties": {
            name: _parameter(option, method.default(name) is not None)
            for name, option in method.options.items()
        },
        "required": list(method.required),
        "additionalProperties": False,
    }


def _parameter(parameter: Parameter, with_default: bool = True) -> dict[str, Any]:
    types = {"float": "number", "int": "integer", "bool": "boolean"}
    bounds = {
        "minimum": parameter.low,
        "maximum": parameter.high,
        "exclusiveMinimum": parameter.above,
        "enum": list(parameter.choices) or None,
        "default": parameter.default if with_default else None,
    }
    return {
        "type": types.get(parameter.kind, "string"),
        "description": parameter.meaning,
        **{key: value for key, value in bounds.items() if value is not None},
    }


if __name__ == "__main__":
    sys.stdout.write(text())
