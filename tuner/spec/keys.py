"""Keys of a study file, each declared once, beside the field that holds its value.

    attempts: Annotated[int, Key("Failures in a row that end a trial.", low=1, high=1000)] = 3

Everything else follows from the declaration: how a file is read and what its faults say, the JSON
schema, the reference in docs/, what `--set` takes, how a study is written, and its identity.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from tuner.names import suggest
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.quantities import Quantity

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SectionType = TypeVar("SectionType")


@dataclass(frozen=True)
class Key:
    """A key of a study file: what it means, the values it takes, and what a change of it does."""

    meaning: str
    takes: str = ""
    """The values it takes, as worded in a fault; by default what its type and bounds say."""
    name: str = ""
    """Its name in a file, if it differs from the field's, which may add a unit."""
    alias: str = ""
    """Another name that a file may use in its place."""
    low: float | None = None
    above: float | None = None
    """An exclusive lower bound."""
    high: float | None = None
    pattern: str | None = None
    names: Collection[str] = ()
    """The names that it takes; for a misspelt one the nearest is suggested."""
    quantity: Quantity | None = None
    """The unit, for a number that a file writes with one."""
    form: Callable[[], Any] | None = None
    """Returns its type in a file, if it differs from the field's type."""
    change: Literal["refused", "grows", "harmless"] = "refused"
    """How it may change in a stored study: not at all, to a larger number, or to any value,
    because no trial's figures depend on it."""
    added: bool = False
    """Whether studies may have been stored before the key existed. The identity of those does not
    contain it, so no identity may contain its default."""


class DeclaredKey:
    """A key together with the field that declares it."""

    def __init__(self, key: Key, field: "Field[Any]", hint: Any) -> None:
        self.key = key
        self.field = field.name
        self.name = key.name or field.name
        self.required = field.default is MISSING and field.default_factory is MISSING
        factory = field.default_factory
        self.default = field.default if factory is MISSING else factory()
        union = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        # A field is None if the key was left out: TOML has no null.
        self._types = tuple(each for each in union if each is not NoneType)

    def read(self, written: object) -> Any:
        """Return the field's value; raise ValueError for a value that the key does not take."""
        value = self.adapter.validate_python(written, strict=True)
        return self.key.quantity.parse(value) if self.key.quantity else value

    def write(self, value: Any) -> Any:
        """Return a value of the field as a file writes it."""
        return self.key.quantity.write(value) if self.key.quantity else value

    @property
    def takes(self) -> str:
        """The values that it takes, as worded in a fault."""
        key = self.key
        if key.takes:
            return key.takes
        if key.quantity:
            return key.quantity.takes
        if key.names:
            return "one of " + ", ".join(key.names)
        words = [
            f'"{each}"'
            for part in self._types
            if get_origin(part) is Literal
            for each in get_args(part)
        ]
        if bool in self._types:
            words.append("true or false")
        elif int in self._types or float in self._types:
            noun = "a number" if float in self._types else "a whole number"
            words.append(noun if key.low is None else f"{noun} from {key.low:,} to {key.high:,}")
        *some, last = words
        return f"{', '.join(some)} or {last}" if some else last

    @cached_property
    def adapter(self) -> "TypeAdapter[Any]":
        """Validates a value in a file, and generates its schema."""
        from pydantic import Field, TypeAdapter  # 0.1 s, which only commands with a file should pay

        key = self.key
        pattern = key.quantity.pattern if key.quantity else key.pattern
        form: Any
        if key.form is not None:
            form = key.form()
        elif key.names:
            form = Literal[tuple(key.names)]
        elif pattern is not None:
            form = Annotated[str, Field(pattern=pattern)]
        else:
            number = Field(ge=key.low, gt=key.above, le=key.high)
            types = (Annotated[t, number] if t in (int, float) else t for t in self._types)
            form = Union[tuple(types)]  # noqa: UP007  # not known to the type checker
        return TypeAdapter(form)


@cache
def entries(section: type) -> Mapping[str, DeclaredKey]:
    """Return the keys that a dataclass declares, by their name in a file."""
    hints = get_type_hints(section, include_extras=True)
    found = {}
    for field in fields(section):
        hint, *marks = get_args(hints[field.name]) or (None,)
        for key in (mark for mark in marks if isinstance(mark, Key)):
            found[key.name or field.name] = DeclaredKey(key, field, hint)
    return found


def find_key(section: type, name: str) -> DeclaredKey | None:
    """Return the key with this name or alias in a file."""
    every = entries(section).values()
    return next((entry for entry in every if name and name in (entry.name, entry.key.alias)), None)


def read_keys(section: type, table: object, path: KeyPath, faults: Faults) -> dict[str, Any] | None:
    """Return a table's values by the fields of the section; every faulty key gets its own fault."""
    if not isinstance(table, dict):
        faults.add(path, f"expected a table, got {show(table)}")
        return None
    known, values, sound = entries(section), {}, True
    aliases = {entry.key.alias: name for name, entry in known.items() if entry.key.alias}
    for name in table:
        if name not in known and name not in aliases:
            faults.unknown((*path, name), "key", known)
            sound = False
        elif aliases.get(name) in table:
            faults.add((*path, name), f"means the same as {aliases[name]}; leave one out")
            sound = False
    for called, entry in known.items():
        name = entry.key.alias if entry.key.alias and entry.key.alias in table else called
        if name in table:
            try:
                values[entry.field] = entry.read(table[name])
            except ValueError:
                words = f"expected {entry.takes}, got {show(table[name])}"
                faults.add((*path, name), words + _near(entry, table[name]))
                sound = False
        elif entry.required:
            faults.add((*path, name), f"missing; expected {entry.takes}")
            sound = False
    return values if sound else None


def read_section(
    section: type[SectionType], name: str, document: Mapping[str, Any], faults: Faults
) -> SectionType | None:
    """Return a section of a file, or None if any of its keys is faulty.

    A missing section is read as empty if none of its keys is required.
    """
    required = required_keys(section)
    if required and name not in document:
        faults.add((name,), f"this section is missing; it needs {', '.join(required)}")
        return None
    values = read_keys(section, document.get(name, {}), (name,), faults)
    return None if values is None else section(**values)


def required_keys(section: type) -> list[str]:
    """Return the names of a section's required keys."""
    return [name for name, entry in entries(section).items() if entry.required]


def _near(entry: DeclaredKey, value: object) -> str:
    near = suggest(value, entry.key.names) if isinstance(value, str) and entry.key.names else ""
    return f"; {near}" if near.startswith("did you mean") else ""
