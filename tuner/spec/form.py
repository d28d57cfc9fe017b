"""Validates a section by its pydantic model, with our own messages for each key."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from tuner.names import suggest
from tuner.records import METRICS
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.search import PRUNERS, SAMPLERS
from tuner.spec.sections import Expects, Section

Model = TypeVar("Model", bound=Section)

_NAMES: Mapping[str, Mapping[str, object]] = {
    "sampler": SAMPLERS,
    "pruner": PRUNERS,
    "metric": METRICS,
}


def read_section(model: type[Model], table: object, path: KeyPath, faults: Faults) -> Model | None:
    """Return the section if it is valid; every invalid key gets its own fault."""
    if not isinstance(table, dict):
        faults.add(path, f"expected a table, got {show(table)}")
        return None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        # A union reports an error for each of its members: one fault per key is enough.
        kinds = {str(found["loc"][0]): found["type"] for found in error.errors()}
    for key, kind in kinds.items():
        _tell(model, table, (*path, key), kind, faults)
    return None


def expected(model: type[Section], key: str) -> str:
    """Describe the values that a key of a section accepts."""
    found = (item for item in model.model_fields[key].metadata if isinstance(item, Expects))
    return next(found).words


def _tell(
    model: type[Section], table: Mapping[str, Any], path: KeyPath, kind: str, faults: Faults
) -> None:
    key = path[-1]
    if kind == "extra_forbidden":
        faults.unknown(path, "key", model.model_fields)
    elif kind == "missing":
        faults.add(path, f"missing; expected {expected(model, key)}")
    else:
        words = f"expected {expected(model, key)}, got {show(table[key])}"
        faults.add(path, words + _near(key, table[key]))


def _near(key: str, value: object) -> str:
    near = suggest(value, _NAMES.get(key, {})) if isinstance(value, str) else ""
    return f"; {near}" if near.startswith("did you mean") else ""
