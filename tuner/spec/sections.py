"""The form of a study file: its sections, keys and types, as pydantic models.

The JSON schema for editors is generated from these models. Every key says here what
it expects; `tuner.spec.form` turns that into faults.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import WithJsonSchema

from tuner.names import suggest
from tuner.records import METRICS
from tuner.spec import quantities
from tuner.spec.search import PRUNERS, SAMPLERS

NAME = r"^[a-z][a-z0-9_-]{0,62}$"
OBJECTIVE = r"^[a-z][a-z0-9_]*$"
Scalar = str | bool | int | float


@dataclass(frozen=True)
class Expects:
    """The values that a key accepts, as worded in a fault."""

    words: str


def _one_of(names: Mapping[str, object]) -> Expects:
    return Expects("one of " + ", ".join(names))


def _names(names: Mapping[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(names)})


def _among(names: Mapping[str, object]) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or value not in names:
            raise ValueError(suggest(str(value), names))
        return value

    return BeforeValidator(check)


def _duration(text: str) -> str:
    quantities.parse_seconds(text)
    return text


def _size(text: str) -> str:
    quantities.parse_bytes(text)
    return text


class Section(BaseModel):
    """A table of the file: exactly the keys declared, exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StudySection(Section):
    """What is asked, and of which objective."""

    name: Annotated[
        str,
        Field(pattern=NAME, description="The study's name in the database."),
        Expects("a small letter, then small letters, digits, _ or - (63 at most; no @)"),
    ]
    question: Annotated[
        str,
        Field(pattern=r"\S", description="What the study is to answer, in a sentence."),
        Expects("the question that the study answers, as a sentence"),
    ]
    objective: Annotated[
        str,
        Field(pattern=OBJECTIVE, description="The problem: a package in objectives/."),
        Expects("the name of an objective, such as chest_xray"),
    ]


class BudgetSection(Section):
    """How much is trained."""

    trials: Annotated[
        Literal["grid"] | Annotated[int, Field(ge=1, le=1_000_000)],
        Field(description='Exactly this many trials, seeds included; "grid" is all of them.'),
        Expects('"grid" or a whole number from 1 to 1,000,000'),
    ]
    hours: Annotated[
        Annotated[float, Field(gt=0, le=1_000_000)] | None,
        Field(description="Worker-active hours after which no trial is started."),
        Expects("a number of hours above 0"),
    ] = None


class LimitsSection(Section):
    """What a trial may take."""

    silence: Annotated[
        str,
        AfterValidator(_duration),
        WithJsonSchema({"type": "string", "pattern": quantities.DURATION}),
        Field(description="A trainer without a sign of life for longer is stopped."),
        Expects('a duration above 0 such as "90s", "10m" or "1h"'),
    ] = "10m"
    attempts: Annotated[
        int,
        Field(ge=1, le=1000, description="Failures in a row, without a new epoch, that end it."),
        Expects("a whole number from 1 to 1000"),
    ] = 3
    memory: Annotated[
        Annotated[str, AfterValidator(_size)] | None,
        WithJsonSchema({"type": "string", "pattern": quantities.SIZE}),
        Field(description="Memory of a trainer process."),
        Expects('a size above 0 such as "512MB" or "8GB"'),
    ] = None
    threads: Annotated[
        int,
        Field(ge=1, le=1024, description="Threads of a trainer; results differ with it."),
        Expects("a whole number from 1 to 1024"),
    ] = 1


class CheckpointsSection(Section):
    """Where training is saved, and how much of it is kept; no result depends on it."""

    location: Annotated[
        str | None,
        Field(description="Folder or fsspec address (s3://...); else TUNER_CHECKPOINTS decides."),
        Expects("a folder, or an address such as s3://bucket/folder"),
    ] = None
    every: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=100_000)],
        Field(description='Epochs between two; "auto" is about every two seconds of training.'),
        Expects('"auto" or a whole number of epochs'),
    ] = "auto"
    keep: Annotated[
        Literal["auto", "last", "none"],
        Field(
            description='"auto": where other settings branch off, and ends; "last": ends only; '
            '"none": nothing once a trial has ended.'
        ),
        Expects('"auto", "last" or "none"'),
    ] = "auto"
    limit: Annotated[
        str,
        AfterValidator(_size),
        WithJsonSchema({"type": "string", "pattern": quantities.SIZE}),
        Field(description="Space they may take; the least useful go first."),
        Expects('a size above 0 such as "512MB" or "8GB"'),
    ] = "10GB"


class SearchSection(Section):
    """Which settings are tried, and which trials are stopped early."""

    sampler: Annotated[
        str,
        _among(SAMPLERS),
        _names(SAMPLERS),
        Field(description="How the settings are chosen."),
        _one_of(SAMPLERS),
    ] = "grid"
    pruner: Annotated[
        str,
        _among(PRUNERS),
        _names(PRUNERS),
        Field(description="Which trials are stopped before their end, on the metric."),
        _one_of(PRUNERS),
    ] = "none"
    metric: Annotated[
        str,
        _among(METRICS),
        _names(METRICS),
        Field(description="The validation figure by which trials are compared and pruned."),
        _one_of(METRICS),
    ] = "val_loss"
    at: Annotated[
        Literal["best", "last"],
        Field(description="The epoch whose figure counts."),
        Expects('"best" or "last"'),
    ] = "best"
    seed: Annotated[
        int,
        Field(ge=0, lt=2**32, description="Seed of the sampler."),
        Expects("a whole number from 0 to 4294967295"),
    ] = 0
    pack: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=256)],
        Field(
            description="Trials of one shape that a trainer takes at a time, at most; "
            '"auto" measures what is fastest, 1 takes one after the other.'
        ),
        Expects('"auto" or a whole number from 1 to 256'),
    ] = "auto"
    sampler_options: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="Options of the sampler."),
        Expects("a table of options"),
    ]
    pruner_options: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="Options of the pruner."),
        Expects("a table of options"),
    ]


class ReplicatesSection(Section):
    """The same configuration under several seeds."""

    seeds: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description='Seeds of each replicated configuration; with of = "top" they make the '
            "budget of the race.",
        ),
        Expects("a whole number from 1 to 10,000"),
    ] = 1
    of: Annotated[
        Literal["all", "top"],
        Field(
            description='"all", or "top": explore first, then race the contenders over further '
            "seeds, which no pruner holds against others, until they are separated."
        ),
        Expects('"all" or "top"'),
    ] = "all"
    splits: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Divisions into training and validation that the seeds go through.",
        ),
        Expects("a whole number from 1 to 10,000"),
    ] = 1
    top: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000)] | None,
        Field(description='How many contenders race, with of = "top".'),
        Expects("a whole number of at least 1"),
    ] = None


When = Annotated[
    dict[str, Scalar | Annotated[list[Scalar], Field(min_length=1)]],
    Field(description="Active only where these dimensions take one of these values."),
    Expects('a table such as { scheduler = "step" } or { scheduler = ["step", "cosine"] }'),
]


class ChoiceTable(Section):
    """A choice with a condition."""

    values: Annotated[
        list[Any],
        WithJsonSchema(
            {"type": "array", "minItems": 1, "items": {"type": ["string", "boolean", "number"]}}
        ),
        Field(description="The values to choose from."),
        Expects("a list of values"),
    ]
    when: When = Field(default_factory=dict)


class RangeTable(Section):
    """A range of numbers, both ends included."""

    low: Annotated[int | float, Field(description="The lower end."), Expects("a number")]
    high: Annotated[int | float, Field(description="The upper end."), Expects("a number")]
    log: Annotated[
        bool, Field(description="Spread evenly over the logarithm."), Expects("true or false")
    ] = False
    step: Annotated[
        int | float | None,
        Field(description="Distance of neighbours; a grid needs it."),
        Expects("a number above 0"),
    ] = None
    when: When = Field(default_factory=dict)


class StudyFile(Section):
    """A question to be answered by training: a study file of tuner."""

    study: StudySection
    budget: BudgetSection
    limits: LimitsSection = LimitsSection()
    checkpoints: CheckpointsSection = CheckpointsSection()
    search: SearchSection = Field(default_factory=lambda: SearchSection.model_validate({}))
    replicates: ReplicatesSection = ReplicatesSection()
    space: dict[str, list[Scalar] | ChoiceTable | RangeTable] = Field(
        default_factory=dict, description="What varies: a list is a choice, a table a range."
    )
    fixed: dict[str, Scalar] = Field(
        default_factory=dict, description="Parameters with one value in every trial."
    )
    data: dict[str, Scalar] = Field(
        default_factory=dict, description="Where the images come from, and in which form."
    )


SECTIONS: Mapping[str, type[Section]] = {
    "study": StudySection,
    "budget": BudgetSection,
    "limits": LimitsSection,
    "checkpoints": CheckpointsSection,
    "search": SearchSection,
    "replicates": ReplicatesSection,
}
"""The sections whose keys are fixed; the others hold names that the objective declares."""
