"""The JSON schema that lets editors complete and check a study file.

python -m tuner.spec.schema > docs/study-file.schema.json
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from tuner.spec.parameters import SHARED, Parameter
from tuner.spec.search import PRUNERS, SAMPLERS, Method
from tuner.spec.sections import StudyFile


def schema() -> dict[str, Any]:
    """Return the schema of a study file; an objective's own parameters are left open."""
    form = _tidied(StudyFile.model_json_schema())
    definitions, properties = form["$defs"], form["properties"]
    search = definitions["SearchSection"]
    search["allOf"] = [
        *_options("sampler", SAMPLERS, search["properties"]["sampler"]["default"]),
        *_options("pruner", PRUNERS, search["properties"]["pruner"]["default"]),
    ]
    dimension = {"$ref": "#/$defs/Dimension"}
    definitions["Dimension"] = properties["space"]["additionalProperties"]
    definitions["Dimension"]["anyOf"][0]["minItems"] = 1
    properties["space"] |= {
        "additionalProperties": dimension,
        "properties": {
            name: {**dimension, "description": parameter.meaning}
            for name, parameter in SHARED.items()
        },
    }
    properties["fixed"]["properties"] = {
        name: _parameter(parameter) for name, parameter in SHARED.items()
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **form}


def text() -> str:
    """Return the schema as the file in docs/ holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _tidied(form: Any) -> Any:
    """Return the schema without what TOML lacks (null) and without noise."""
    if isinstance(form, list):
        return [_tidied(inner) for inner in form if inner != {"type": "null"}]
    if not isinstance(form, dict):
        return form
    kept = {key: _tidied(value) for key, value in form.items() if not _is_noise(form, key)}
    if len(kept.get("anyOf", ())) == 1:
        kept |= kept.pop("anyOf")[0]
    return kept


def _is_noise(form: Mapping[str, Any], key: str) -> bool:
    # The defaults of a section are those of its keys, and are given there.
    default = key == "default" and (form[key] is None or "$ref" in form)
    return default or (key == "title" and isinstance(form[key], str))


def _options(kind: str, methods: Mapping[str, Method], default: str) -> list[dict[str, Any]]:
    """Return a rule for each method: if it is named, these are its options."""
    return [
        {
            # If the method is not written it is the default one, so it must not be required.
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
