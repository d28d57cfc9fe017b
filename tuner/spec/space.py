"""The space of a study: its dimensions, their conditions, and the grid."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any

from tuner.records import Value
from tuner.spec.keys import Key

LARGEST_GRID = 100_000
"""Larger grids are not enumerated: they would fill the memory, and nobody could train them."""


def _condition() -> Any:
    from pydantic import Field

    scalar = str | bool | int | float
    return dict[str, scalar | Annotated[list[scalar], Field(min_length=1)]]


def _listed() -> Any:
    from pydantic import WithJsonSchema

    # `spec/dimensions` checks each value against its parameter.
    items = {"type": ["string", "boolean", "number"]}
    return Annotated[list[Any], WithJsonSchema({"type": "array", "minItems": 1, "items": items})]


When = Annotated[
    Mapping[str, tuple[Value, ...]],
    Key(
        "Active only when these parameters have one of these values.",
        'a table such as { scheduler = "step" } or { scheduler = ["step", "cosine"] }',
        form=_condition,
    ),
]
"""The condition of a dimension: every named dimension must have one of the listed values."""


@dataclass(frozen=True)
class Choice:
    """A list of values with a condition."""

    name: str
    values: Annotated[
        tuple[Value, ...], Key("The values to choose from.", "a list of values", form=_listed)
    ]
    when: When = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """A range of numbers, both ends included."""

    name: str
    low: Annotated[float | int, Key("The lower end.")]
    high: Annotated[float | int, Key("The upper end.")]
    step: Annotated[
        float | int | None, Key("Distance between values; a grid needs it.", "a number above 0")
    ] = None
    log: Annotated[bool, Key("Sample evenly on a logarithmic scale.")] = False
    integer: bool = False
    when: When = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """The number of values, or None for a continuous range."""
        if self.step is None:
            return None
        return (_exact(self.high) - _exact(self.low)) // _exact(self.step) + 1

    @property
    def values(self) -> tuple[Value, ...]:
        """The values in ascending order, for a range with a step."""
        assert self.count is not None
        return tuple(self.value(index) for index in range(self.count))

    def value(self, index: int) -> float | int:
        """Return one value of a range with a step, counted from 0 at the lower end."""
        assert self.step is not None
        exact = _exact(self.low) + index * _exact(self.step)
        return int(exact) if self.integer else float(exact)


Dimension = Choice | Range


@dataclass(frozen=True)
class Space:
    """All dimensions of a study, in the order of the file."""

    dimensions: tuple[Dimension, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what varies, in the order of the file."""
        return tuple(dimension.name for dimension in self.dimensions)

    def is_active(self, dimension: Dimension, chosen: Mapping[str, Value]) -> bool:
        """Return whether a dimension is active, given the values of those it depends on."""
        return all(
            parent in chosen and chosen[parent] in accepted
            for parent, accepted in dimension.when.items()
        )

    def ordered(self) -> tuple[Dimension, ...]:
        """Return the dimensions with parents before children, else in the order of the file."""
        placed: list[Dimension] = []
        waiting = list(self.dimensions)
        while waiting:
            open_names = {dimension.name for dimension in waiting}
            ready = next((d for d in waiting if not open_names & set(d.when)), None)
            assert ready is not None, f"conditions in a circle: {', '.join(sorted(open_names))}"
            placed.append(ready)
            waiting.remove(ready)
        return tuple(placed)

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Yield every combination of values, parents before children."""
        return self._expand(self.ordered(), {})

    def size(self) -> int:
        """Count the grid's combinations, up to one more than LARGEST_GRID."""
        return sum(1 for _ in itertools.islice(self.combinations(), LARGEST_GRID + 1))

    def grid(self) -> tuple[dict[str, Value], ...]:
        """Return all combinations; the first dimension varies slowest, inactive ones are absent."""
        ranks = {
            dimension.name: {value: rank for rank, value in enumerate(dimension.values)}
            for dimension in self.dimensions
        }

        def place(chosen: Mapping[str, Value]) -> tuple[int, ...]:
            return tuple(
                ranks[name].get(chosen[name], -1) if name in chosen else -1 for name in ranks
            )

        found = sorted(self.combinations(), key=place)
        return tuple({name: chosen[name] for name in ranks if name in chosen} for chosen in found)

    def _expand(
        self, waiting: tuple[Dimension, ...], chosen: dict[str, Value]
    ) -> Iterator[dict[str, Value]]:
        if not waiting:
            yield chosen
            return
        first, rest = waiting[0], waiting[1:]
        if not self.is_active(first, chosen):
            yield from self._expand(rest, chosen)
            return
        for value in first.values:
            yield from self._expand(rest, {**chosen, first.name: value})


def _exact(number: float) -> Fraction:
    """Return the number exactly as written: 0.1 to 0.7 by 0.2 has 4 values, in floats only 3."""
    return Fraction(str(number))
