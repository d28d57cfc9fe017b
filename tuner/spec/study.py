"""A study: checked, complete, and independent of its file.

The dataclasses of its sections declare the keys of a study file (`tuner.spec.keys`); what is read,
checked, hashed, written, stored and documented follows from them.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tuner.errors import DatabaseError, DatabaseNewerError
from tuner.records import METRICS, READY, Job, Metric, Moment, Value, direction_of
from tuner.spec.keys import Key
from tuner.spec.quantities import DURATION, SIZE
from tuner.spec.search import ALLOCATORS, PRUNERS, SAMPLERS
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


NAME = r"^[a-z][a-z0-9_-]{0,62}$"
OBJECTIVE = r"^[a-z][a-z0-9_]*$"
CHOOSABLE = (*METRICS, *(f"val_{name}" for name in READY))
"""The metrics that a study of any objective may name."""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What is asked, and of which objective."""

    name: Annotated[
        str,
        Key(
            "The study's name in the database.",
            "a lower-case letter, then lower-case letters, digits, _ or - (at most 63, no @)",
            pattern=NAME,
        ),
    ]
    question: Annotated[
        str,
        Key(
            "The question that the study answers, as a sentence.",
            "the question to answer, as a sentence",
            pattern=r"\S",
            change="harmless",
        ),
    ]
    objective: Annotated[
        str,
        Key(
            "What is trained, on which data: a package in objectives/.",
            "the name of an objective, such as chest_xray",
            pattern=OBJECTIVE,
        ),
    ]


@dataclass(frozen=True)
class Budget:
    """How much is trained."""

    trials: Annotated[
        Literal["grid"] | int,
        Key(
            'Number of trials, counting every seed; "grid" trains the whole grid.',
            low=1,
            high=1_000_000,
            change="grows",
        ),
    ]
    hours: Annotated[
        float | None,
        Key(
            "The study ends when its devices have trained this many hours together. A GPU is a "
            "device, and so is a worker on the CPU. `gpu_hours` means the same.",
            "a number of hours above 0",
            alias="gpu_hours",
            above=0,
            high=1_000_000,
            change="harmless",
        ),
    ] = None
    money: Annotated[
        float | None,
        Key(
            "The study ends when these hours have cost this much, in your currency.",
            "an amount above 0",
            above=0,
            high=1_000_000_000,
            change="harmless",
            added=True,
        ),
    ] = None
    price_per_hour: Annotated[
        float | None,
        Key(
            "Price of an hour of a device; TUNER_PRICE_PER_HOUR sets another one for a machine.",
            "an amount above 0",
            above=0,
            high=1_000_000,
            change="harmless",
            added=True,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        Key(
            "The study ends when its trials have been trained for exactly this many epochs "
            "together; epochs reused from another trial cost nothing.",
            "a whole number of epochs",
            low=1,
            high=1_000_000_000,
            change="harmless",
            added=True,
        ),
    ] = None
    full: Annotated[
        float | None,
        Key(
            "The same limit as a number of full training runs: `full = 20` with runs of 40 epochs "
            "is `epochs = 800`. With varied lengths the longest counts.",
            "a number of training runs above 0",
            above=0,
            high=1_000_000,
            change="harmless",
            added=True,
        ),
    ] = None

    @property
    def limited(self) -> bool:
        """Whether hours or money are limited, which the ledger charges with every epoch."""
        return self.hours is not None or self.money is not None


@dataclass(frozen=True)
class Limits:
    """What a trial may take."""

    silence_seconds: Annotated[
        float,
        Key(
            "Stop a trainer that has reported nothing for this long.",
            name="silence",
            quantity=DURATION,
            change="harmless",
        ),
    ] = 600.0
    attempts: Annotated[
        int,
        Key(
            "Consecutive failed attempts, without a new epoch, after which a trial fails.",
            low=1,
            high=1000,
            change="harmless",
        ),
    ] = 3
    memory_bytes: Annotated[
        int | None,
        Key(
            "Stop a trainer that uses more memory than this.",
            name="memory",
            quantity=SIZE,
            change="harmless",
        ),
    ] = None
    threads: Annotated[int, Key("CPU threads of a trainer; affects results.", low=1, high=1024)] = 1


@dataclass(frozen=True)
class Checkpoints:
    """Where checkpoints are saved and which are kept; no result depends on it."""

    location: Annotated[
        str | None,
        Key(
            "Folder or fsspec address (s3://...); TUNER_CHECKPOINTS by default.",
            "a folder, or an address such as s3://bucket/folder",
            change="harmless",
        ),
    ] = None
    every: Annotated[
        Literal["auto"] | int,
        Key(
            'Epochs between checkpoints; "auto" saves every two seconds of training, or less often '
            "where saving would take more than 2% of the time.",
            low=1,
            high=100_000,
            change="harmless",
        ),
    ] = "auto"
    keep: Annotated[
        Literal["auto", "last", "none"],
        Key(
            '"auto" keeps those where other settings branch off, and the last; "last" keeps only '
            'the last; "none" keeps nothing once a trial has ended.',
            change="harmless",
        ),
    ] = "auto"
    limit_bytes: Annotated[
        int,
        Key(
            "Disk space for checkpoints; the least useful are deleted first.",
            name="limit",
            quantity=SIZE,
            change="harmless",
        ),
    ] = 10 * 10**9


def _metric_form() -> Any:
    from pydantic import Field

    own = Annotated[str, Field(pattern="^val_[a-z][a-z0-9_]*$")]
    return Literal[CHOOSABLE] | own


def _metrics_form() -> Any:
    return list[Literal[tuple(READY)]]  # type: ignore[misc]  # not known to the type checker


@dataclass(frozen=True)
class Search:
    """Which settings are tried, and which trials are stopped early."""

    sampler: Annotated[str, Key("How settings are chosen.", names=SAMPLERS)] = "grid"
    pruner: Annotated[
        str, Key("Which trials are stopped early, judged by the metric.", names=PRUNERS)
    ] = "none"
    metric: Annotated[
        str,
        # The valid names depend on the objective, so the reader checks them.
        Key(
            "Validation metric by which trials are compared and pruned.",
            f"one of {', '.join(CHOOSABLE)}, or val_NAME of a metric that the objective declares",
            names=CHOOSABLE,
            form=_metric_form,
        ),
    ] = "val_loss"
    metrics: Annotated[
        tuple[str, ...],
        Key(
            "Ready-made metrics to compute, besides the built-in ones and the objective's own.",
            f"a list of {', '.join(READY)}",
            form=_metrics_form,
            # Trials stored before a metric was added have no values of it.
            added=True,
        ),
    ] = ()
    pack: Annotated[
        Literal["auto"] | int,
        Key(
            "Maximum number of trials of the same shape trained together; "
            '"auto" measures which number is fastest, 1 trains them one at a time.',
            low=1,
            high=256,
            # Packs by torch.func may change the last digits. Checkpoints of trials with and without
            # packs have different keys, so that no curve mixes the two.
            change="harmless",
            added=True,
        ),
    ] = "auto"
    at: Annotated[Moment, Key("The epoch whose metric counts.")] = "best"
    seed: Annotated[int, Key("Random seed of the sampler.", low=0, high=2**32 - 1)] = 0
    sampler_options: Annotated[
        Mapping[str, Value],
        Key("Options of the sampler.", "a table of options", form=lambda: dict[str, Any]),
    ] = field(default_factory=dict)
    """Complete in a study that has been read: options left out have their defaults."""
    pruner_options: Annotated[
        Mapping[str, Value],
        Key("Options of the pruner.", "a table of options", form=lambda: dict[str, Any]),
    ] = field(default_factory=dict)
    allocator: Annotated[
        str,
        Key("How epochs are divided among trials.", names=ALLOCATORS, added=True),
    ] = "none"
    allocator_options: Annotated[
        Mapping[str, Value],
        Key(
            "Options of the allocator.",
            "a table of options",
            form=lambda: dict[str, Any],
            added=True,
        ),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Replicates:
    """Training a configuration under several seeds."""

    seeds: Annotated[
        int,
        Key(
            'Seeds per configuration; with of = "top" the race has a budget of top × (seeds - 1) '
            "trials.",
            low=1,
            high=10_000,
            change="grows",
        ),
    ] = 1
    of: Annotated[
        Literal["all", "top"],
        Key(
            '"all" trains every configuration with every seed; "top" trains each with one seed, '
            "then races the best over additional seeds, unpruned, until they are separated."
        ),
    ] = "all"
    top: Annotated[
        int | None, Key('Number of contenders in the race, with of = "top".', low=1, high=1_000_000)
    ] = None
    splits: Annotated[
        int,
        Key(
            "Number of splits into training and validation that the seeds cycle through.",
            low=1,
            high=10_000,
            added=True,
        ),
    ] = 1

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


SECTIONS: Mapping[str, type] = {
    "study": Heading,
    "budget": Budget,
    "limits": Limits,
    "checkpoints": Checkpoints,
    "search": Search,
    "replicates": Replicates,
}
"""The sections with the same keys in every study; those of [space], [fixed] and [data] depend on
the objective."""


@dataclass(frozen=True, kw_only=True)
class Spec(Heading):
    """A checked study: its question, what varies, and what all trials have in common.

    Its fields are what is stored. Those of `SECTIONS` are the keys of the study file.
    """

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
    """Defaults of parameters that a trial may lack: neither in [fixed] nor always in [space]."""
    data_defaults: Mapping[str, Value]
    overrides: tuple[str, ...] = ()
    """The `--set` texts that were applied, in order."""
    checkpoints: Checkpoints = Checkpoints()
    metrics: tuple[Metric, ...] = ()
    """The metrics computed besides the built-in ones: the objective's own, and the ready-made
    ones that the file names."""
    folder: str = ""
    """The folder of the study file, for relative data paths. Not part of the identity."""

    def section(self, name: str) -> Any:
        """Return the object whose fields are the keys of a section."""
        return self if name == "study" else getattr(self, name)

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
    def promotes(self) -> bool:
        """Whether trials pause, and the most promising ones continue."""
        return self.search.allocator == "promote"

    @property
    def pauses(self) -> bool:
        """Whether trials may be paused: by the allocator, or where a budget in epochs ends."""
        return self.promotes or self.epoch_limit is not None

    @property
    def finish(self) -> int:
        """How many trials must be completed in a study whose trials pause."""
        written = self.search.allocator_options.get("finish")
        sixth = -(-self.configurations // 6)
        return int(written) if written else max(self.replicates.top or 1, sixth)

    @property
    def longest(self) -> int:
        """How many epochs the longest possible training of the study has."""
        name = "epochs"
        always = {**self.defaults, **self.fixed}
        lengths = [always[name]] if name in always else []
        for dimension in self.space.dimensions:
            if dimension.name == name:
                lengths += dimension.values if isinstance(dimension, Choice) else [dimension.high]
        return max(int(length) for length in lengths)

    @property
    def epoch_limit(self) -> int | None:
        """How many epochs the study may train; None without such a limit."""
        limits = [limit for limit in (self.budget.epochs, self.full_epochs) if limit is not None]
        return min(limits, default=None)

    @property
    def full_epochs(self) -> int | None:
        """The budget's full training runs in epochs."""
        if self.budget.full is None:
            return None
        # Rounded first: 0.29 × 100 is a little less than 29 in binary.
        return max(1, int(round(self.budget.full * self.longest, 6)))

    def length(self, chosen: Mapping[str, Value]) -> int:
        """Return how many epochs the training of a configuration is planned for."""
        return int({**self.defaults, **self.fixed, **chosen}["epochs"])

    @property
    def varied(self) -> tuple[str, ...]:
        """The names of varied parameters, in the order of the file."""
        return self.space.names

    def in_order(self, name: str, values: Collection[Value | None]) -> list[Value | None]:
        """Return values of a varied parameter: numbers by size, names as the file lists them."""
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return sorted(values, key=lambda value: float(value or 0))
        dimension = next(d for d in self.space.dimensions if d.name == name)
        listed = dimension.values if isinstance(dimension, Choice) else ()
        positions: dict[Value | None, int] = {value: i for i, value in enumerate(listed)}
        return sorted(values, key=lambda value: positions.get(value, len(positions)))

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether a smaller or a larger value of the study's metric is better."""
        return direction_of(self.search.metric, self.metrics)

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The names in [fixed], in the order of the file."""
        return tuple(self.fixed)

    def job(self, chosen: Mapping[str, Value], seed: int) -> Job:
        """Return the trial of a configuration under a seed, with every parameter filled in."""
        parameters = {**self.defaults, **self.fixed}
        data = {**self.data_defaults, **self.data}
        for name, value in chosen.items():
            if name.startswith(DATA):
                data[name.removeprefix(DATA)] = value
            else:
                parameters[name] = value
        if self.replicates.splits > 1:
            data[SPLIT_SEED] = int(data[SPLIT_SEED]) + seed % self.replicates.splits
        return Job(
            objective=self.objective,
            parameters=self._resolve(parameters, WEIGHTS),
            data=self._resolve(data, "path"),
            seed=seed,
            metric=self.search.metric,
            metrics=self.metrics,
        )

    def with_epochs(self, epochs: int) -> "Spec":
        """Return the study as `--set epochs=N` makes it; epochs must not vary."""
        assert "epochs" not in self.varied
        return replace(
            self,
            fixed={**self.fixed, "epochs": epochs},
            defaults={name: value for name, value in self.defaults.items() if name != "epochs"},
            overrides=(*self.overrides, f"epochs={epochs}"),
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
            spec: Spec = _adapter().validate_python(dict(stored))
        except ValueError as error:
            raise DatabaseError(
                "The stored study cannot be read: it was damaged, or written by a program "
                f"other than tuner. Launch it again under another name. ({error})"
            ) from None
        return spec

    def _resolve(self, values: dict[str, Value], name: str) -> dict[str, Value]:
        """Make a path relative to the study file absolute."""
        path = values.get(name)
        if isinstance(path, str) and path and "://" not in path:
            values[name] = str(Path(self.folder, path))
        return values


@cache
def _adapter() -> "TypeAdapter[Spec]":
    from pydantic import TypeAdapter  # 0.1 s, which only commands with a study should pay

    return TypeAdapter(Spec)
