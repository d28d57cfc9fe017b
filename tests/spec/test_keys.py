"""A key of the study file is declared once; everything else follows from the declaration."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.spec.conftest import DECLARATIONS, parsed
from tuner.spec import reference
from tuner.spec.identity import canonical, compare, extended
from tuner.spec.keys import entries
from tuner.spec.load import check
from tuner.spec.parameters import Parameter
from tuner.spec.schema import schema
from tuner.spec.study import SECTIONS, Spec
from tuner.spec.writing import as_toml

EVERY = parsed("""
[study]
name = "small"
question = "Which?"
objective = "chest_xray"
[budget]
trials = 20
hours = 3
money = 12.5
price_per_hour = 2.5
epochs = 900
full = 7.5
[limits]
silence = "90s"
attempts = 4
memory = "8GB"
threads = 2
[checkpoints]
location = "s3://bucket/folder"
every = 3
keep = "last"
limit = "1.5GiB"
[search]
sampler = "tpe"
pruner = "threshold"
metric = "val_acc"
metrics = ["f1", "brier"]
at = "last"
seed = 7
pack = 4
sampler_options = { n_startup_trials = 3 }
pruner_options = { upper = 2.0 }
allocator = "promote"
allocator_options = { first = 2.0, finish = 3 }
[replicates]
seeds = 4
of = "top"
top = 2
splits = 2
[space]
lr = [0.1, 1.0]
""")
"""Every key of every section, none with its default."""

KEYS = [(section, key) for section in SECTIONS for key in entries(SECTIONS[section])]


def read(document: dict[str, object], overrides: tuple[str, ...] = ()) -> Spec:
    """Read a study whose objective can divide its data."""
    data = {**DECLARATIONS.data, "split_seed": Parameter("split_seed", "int", 0, "division")}
    return check(
        document, overrides, lambda *_: replace(DECLARATIONS, data=data), Path("small.toml")
    )


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_key_is_read_written_documented_and_part_of_the_identity(section: str, key: str) -> None:
    """A new key fails here until the study above has it, and nowhere else."""
    entry, spec = entries(SECTIONS[section])[key], read(EVERY)
    value = getattr(spec.section(section), entry.field)
    assert value != entry.default
    assert entry.field in canonical(spec)[section]
    again = parsed(as_toml(spec))
    assert key in again[section]
    assert read(again) == spec
    assert key in schema()["properties"][section]["properties"]
    assert f"| `{key}` | {entry.takes} |" in reference.blocks({})[f"section {section}"]
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_what_may_change_is_what_an_extension_changes() -> None:
    """Extendable and harmless keys come from the given study, all others from the stored one."""
    stored = read(EVERY)
    given = read(
        {
            **EVERY,
            "study": {**EVERY["study"], "question": "Why?"},
            "budget": {"trials": 40},
            "limits": {"threads": 2},
            "checkpoints": {},
            "search": {**EVERY["search"], "pack": 1},
        }
    )
    given = replace(given, folder="elsewhere")
    assert compare(stored, given).extends
    assert extended(stored, given) == replace(given, folder=stored.folder)


@pytest.mark.parametrize("fixed", [{}, {"epochs": 3, "dropout": 0}])
def test_more_epochs_are_what_an_override_makes_of_the_file(fixed: dict[str, object]) -> None:
    """with_epochs equals reading the file with --set epochs."""
    document = {**EVERY, "fixed": fixed}
    longer = read(document).with_epochs(40)
    again = read(document, ("epochs=40",))
    assert longer == again
    assert longer.to_json() == again.to_json()


@pytest.mark.parametrize("written", ["hours", "gpu_hours"])
@pytest.mark.parametrize("given", ["hours", "gpu_hours"])
def test_either_name_of_a_key_replaces_the_other(written: str, given: str) -> None:
    """gpu_hours in a file is read as hours, and --set accepts either name."""
    budget = {**EVERY["budget"], written: 40}
    if written != "hours":
        del budget["hours"]
    document = {**EVERY, "budget": budget}
    assert read(document).budget.hours == 40
    assert read(document, (f"budget.{given}=60",)).budget.hours == 60
    properties = schema()["properties"]["budget"]["properties"]
    assert properties["gpu_hours"] == properties["hours"]
