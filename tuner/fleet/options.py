"""Reads an engine's options, from [fleet.NAME] of a study file or as text from a command line."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from tuner.errors import UserError
from tuner.names import suggest
from tuner.spec.quantities import parse_seconds

STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)
"""For `__pydantic_config__` of a dataclass of options."""
T = TypeVar("T")


def read(engine: str, kind: type[T], given: Mapping[str, Any]) -> T:
    """Return the options as a dataclass; one UserError lists all faults."""
    try:
        return TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
        faults = []
        for fault in error.errors(include_url=False, include_input=False):
            name = str(fault["loc"][0]) if fault["loc"] else ""
            if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                faults.append(f"  {name}: there is no such option; {suggest(name, names)}")
            else:
                faults.append(f"  {name}: {fault['msg'].removeprefix('Value error, ')}")
        raise UserError(
            "\n".join([f"The options of the engine {engine} cannot be used as given:", *faults])
        ) from None


def given_only(engine: str, kind: type[Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the options, and return those that were given as JSON."""
    checked = asdict(read(engine, kind, given))
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in checked.items()
        if key in given
    }


def _seconds(value: Any) -> Any:
    """Read `4h` or `90m`; a number is seconds."""
    if not isinstance(value, str):
        return value
    try:
        return parse_seconds(value)
    except ValueError:
        raise ValueError('expected a duration such as "90s", "10m" or "4h"') from None


def _words(value: Any) -> Any:
    """Split a text as a shell would, since a list on the command line is one text."""
    return shlex.split(value) if isinstance(value, str) else value


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(_seconds)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
Text = Annotated[str, BeforeValidator(_text)]
"""A text that may be written as a number, such as gpus = 1."""
