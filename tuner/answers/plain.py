"""Answers for programs: one function that converts any answer to values that JSON can hold.

A class names its keys in `JSON`, each with the path of its value if that differs: "n=seeds",
"p=against.p_value". A key such as "**values" stands for the items of a mapping. A class without
`JSON` has its fields as keys. Fractions stay fractions; a number that is not finite is null.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Return an answer as mappings, lists, strings and numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if is_dataclass(value):
        keys = getattr(value, "JSON", None) or [one.name for one in fields(value)]
        return dict(item for key in keys for item in _items(value, key))
    return value


def _items(answer: object, key: str) -> Iterator[tuple[str, Any]]:
    name, _, path = key.removeprefix("**").partition("=")
    value: Any = answer
    for attribute in (path or name).split("."):
        # `against` is None for a level that was not compared; then its difference and p are null.
        value = None if value is None else getattr(value, attribute)
    if key.startswith("**"):
        yield from plain(value).items()
    else:
        yield name, plain(value)
