"""A study as the rest of the program sees it: checked, complete, and independent of its file."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuner.errors import DatabaseError, DatabaseNewerError
from tuner.records import Job, Moment, Value
from tuner.spec.space import Choice, Space

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = 1
"""The format of `Spec.to_json`, increased when an older tuner could not read it."""

DATA = "data."
"""Prefix of dimensions that vary a key of [data]."""

SPLIT_SEED = "split_seed"
"""The key of [data] that chooses the split into training and validation."""

WEIGHTS = "weights"
"""The parameter that names a file, relative to the study file like the data path."""


@dataclass(frozen=True)
class Budget:
    """How much is trained: a number of trials, or the whole grid."""

    trials: int | Literal["grid"]
    hours: float | None = None
    """Worker-active hours."""


@dataclass(frozen=True)
class Limits:
    """Limits of a trial."""

    silence_seconds: float = 600.0
    attempts: int = 3
    memory_bytes: int | None = None
    threads: int = 1
    """Threads of a trainer; results depend on it, so it is part of the study's identity."""


@dataclass(frozen=True)
class Checkpoints:
    """Where training is saved, and how much of it is kept; no result depends on it."""

    location: str | None = None
    every: int | Literal["auto"] = "auto"
    keep: Literal["auto", "last", "none"] = "auto"
    limit_bytes: int = 10 * 10**9


@dataclass(frozen=True)
class Search:
    """How settings are chosen and trials stopped; the options include defaults."""

    sampler: str = "grid"
    pruner: str = "none"
    metric: str = "val_loss"
    at: Moment = "best"
    seed: int = 0
    sampler_options: Mapping[str, Value] = field(default_factory=dict)
    pruner_options: Mapping[str, Value] = field(default_factory=dict)
    pack: int | Literal["auto"] = "auto"
    """The largest number of trials of one shape that a trainer trains at a time."""


@dataclass(frozen=True)
class Replicates:
    """Under how many seeds a configuration is trained, and which configurations are."""

    seeds: int = 1
    of: Literal["all", "top"] = "all"
    top: int | None = None
    splits: int = 1
    """How many splits into training and validation the seeds cycle through."""

    @property
    def extra(self) -> int:
        """How many trials `top` adds to the explored ones."""
        return (self.top or 0) * (self.seeds - 1)

    def explored(self, trials: int) -> int:
        """Return how many distinct configurations a number of trials explores."""
        return trials // self.seeds if self.of == "all" else trials - self.extra

    def total(self, configurations: int) -> int:
        """Return how many trials a number of configurations makes."""
        return configurations * self.seeds if self.of == "all" else configurations + self.extra


@dataclass(frozen=True)
class Spec:
    """A checked study: its question, what varies, and what all trials have in common."""

    name: str
    question: str
    objective: str
    budget: Budget
    limits: Limits
    search: Search
    replicates: Replicates
    space: Space
    fixed: Mapping[str, Value]
    """As in [fixed]; numbers of float parameters are floats."""
    data: Mapping[str, Value]
    """As in [data]; a relative path is unchanged (see `job`)."""
    defaults: Mapping[str, Value]
    """Declared defaults of parameters that may be unset: not in [fixed], not always in [space]."""
    data_defaults: Mapping[str, Value]
    overrides: tuple[str, ...] = ()
    """The `--set` texts that were applied, in order."""
    checkpoints: Checkpoints = Checkpoints()
    folder: str = ""
    """The folder of the study file, for relative data paths. Not part of the identity."""

    @cached_property
    def grid_size(self) -> int:
        """How many combinations the space has; for grids only."""
        return self.space.size()

    @cached_property
    def grid(self) -> tuple[dict[str, Value], ...]:
        """All combinations in order; cached, because every claim needs it."""
        return self.space.grid()

    @property
    def configurations(self) -> int:
        """How many distinct configurations are explored."""
        trials = self.budget.trials
        return self.grid_size if trials == "grid" else self.replicates.explored(trials)

    @property
    def total_trials(self) -> int:
        """How many trials the study has, seeds included; with `top` a ceiling."""
        trials = self.budget.trials
        return self.replicates.total(self.grid_size) if trials == "grid" else trials

    @property
    def varied(self) -> tuple[str, ...]:
        """The names of varied parameters, in the order of the file."""
        return self.space.names

    def in_order(self, name: str, values: Collection[Value | None]) -> list[Value | None]:
        """Return values of a varied parameter: numbers by size, names as the file lists them."""
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            return sorted(values, key=lambda value: float(value or 0))
        dimension = next(one for one in self.space.dimensions if one.name == name)
        listed = dimension.values if isinstance(dimension, Choice) else ()
        places: dict[Value | None, int] = {value: place for place, value in enumerate(listed)}
        return sorted(values, key=lambda value: places.get(value, len(places)))

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The names in [fixed], in the order of the file."""
        return tuple(self.fixed)

    def job(self, chosen: Mapping[str, Value], seed: int) -> Job:
        """Return the trial of a configuration under a seed, with every parameter filled in."""
        varied_data = {
            name.removeprefix(DATA): value for name, value in chosen.items() if _is_data(name)
        }
        parameters = {name: value for name, value in chosen.items() if not _is_data(name)}
        return Job(
            objective=self.objective,
            parameters=self._resolve({**self.defaults, **self.fixed, **parameters}, WEIGHTS),
            data=self._located({**self.data_defaults, **self.data, **varied_data}, seed),
            seed=seed,
            metric=self.search.metric,
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON, so that a worker does not need the file."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Spec":
        """Rebuild a study from `to_json`, also after a round trip through JSON text."""
        found = stored.get("format")
        if isinstance(found, int) and found > FORMAT:
            raise DatabaseNewerError(
                f"The study was stored by a newer tuner (format {found}, this one reads "
                f"{FORMAT}). Upgrade tuner here."
            )
        try:
            return _adapter().validate_python(dict(stored))
        except ValueError as error:
            raise DatabaseError(
                "The stored study cannot be read: it was damaged, or written by a program "
                f"other than tuner. Launch it again under another name. ({error})"
            ) from None

    def _located(self, data: dict[str, Value], seed: int) -> dict[str, Value]:
        if self.replicates.splits > 1:
            data[SPLIT_SEED] = int(data[SPLIT_SEED]) + seed % self.replicates.splits
        return self._resolve(data, "path")

    def _resolve(self, values: dict[str, Value], name: str) -> dict[str, Value]:
        """Make a path relative to the study file absolute."""
        path = values.get(name)
        if isinstance(path, str) and path and "://" not in path:
            values[name] = str(Path(self.folder, path))
        return values


def _is_data(name: str) -> bool:
    return name.startswith(DATA)


@cache
def _adapter() -> "TypeAdapter[Spec]":
    from pydantic import TypeAdapter  # takes 0.1 s, which commands without a study need not spend

    return TypeAdapter(Spec)
