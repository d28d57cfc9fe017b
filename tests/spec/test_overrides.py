"""`--set` changes a study file before it is checked."""

from typing import Any

import pytest

from tests.spec.conftest import GRID, RATES, STUDY, TPE, Read
from tuner.errors import StudyFileError
from tuner.spec.overrides import parse_value
from tuner.spec.space import Choice, Range

BASE = (
    STUDY
    + GRID
    + '[search]\npruner = "median"\npruner_options = { warmup = 3 }\n'
    + '[space]\nlr = [1, 2]\nscheduler = ["step", "cosine"]\n'
    + 'step_size = { values = [5, 6], when = { scheduler = "step" } }\n'
    + "depth = { values = [1, 2], when = { step_size = 5 } }\n"
    + "[fixed]\nwidth = 8\n[data]\nshift = 0.5\n"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("20", 20),
        ("true", True),
        ('"a b"', "a b"),
        ("cosine", "cosine"),
        (" grid ", "grid"),
        ("[1, 2]", [1, 2]),
        ("{low=1}", {"low": 1}),
        ("10m", "10m"),
        ("", ""),
        ("1\n[study]", "1\n[study]"),
        ("[" * 3000, "[" * 3000),
    ],
)
def test_a_value_is_toml_or_else_a_text(text: str, value: Any) -> None:
    """A shell needs no quotes around words, and a value cannot inject further TOML."""
    assert parse_value(text) == value


def test_a_parameter_is_held_at_one_value(read: Read) -> None:
    """A dimension of the space becomes fixed, and the override is recorded."""
    spec = read(BASE, ["lr=1e-3"])
    assert "lr" not in spec.varied
    assert spec.fixed["lr"] == 0.001
    assert spec.overrides == ("lr=1e-3",)


def test_a_fixed_parameter_and_a_default_are_replaced(read: Read) -> None:
    """A fixed parameter takes the new value, and so does one that the file does not mention."""
    spec = read(BASE, ["width=16", "dropout=0.5"])
    assert (spec.fixed["width"], spec.fixed["dropout"]) == (16, 0.5)
    assert "dropout" not in spec.defaults


def test_a_list_or_table_varies_a_parameter(read: Read) -> None:
    """A list becomes a choice, a table a range, in place of the old value."""
    spec = read(BASE, ["lr={low=1, high=3, step=1}", "width=[8, 16]", "data.shift=[0, 1]"])
    assert spec.space.dimensions[0] == Range("lr", 1.0, 3.0, step=1.0)
    assert spec.space.dimensions[-2:] == (
        Choice("width", (8, 16)),
        Choice("data.shift", (0.0, 1.0)),
    )
    assert "width" not in spec.fixed
    assert spec.data == {}


def test_data_keys_are_set(read: Read) -> None:
    """A key of [data] is set with its section as prefix, even if it varied before."""
    assert read(BASE, ["data.image_size=128"]).data == {"shift": 0.5, "image_size": 128}
    spec = read(BASE, ["data.shift=[0, 1]", "data.shift=0"])
    assert (spec.data, spec.varied[-1]) == ({"shift": 0.0}, "depth")


def test_keys_of_sections_are_set(read: Read) -> None:
    """Every key of the fixed sections can be set, options too; missing sections are created."""
    spec = read(
        BASE,
        [
            "study.name=other",
            "budget.trials=4",
            "replicates.seeds=2",
            "limits.silence=5m",
            "search.pruner_options.warmup=5",
            "space.width=[1, 2]",
            "fixed.batch_size=64",
        ],
    )
    assert (spec.name, spec.total_trials, spec.replicates.seeds) == ("other", 4, 2)
    assert spec.limits.silence_seconds == 300
    assert spec.search.pruner_options["warmup"] == 5
    assert spec.fixed["batch_size"] == 64
    assert "width" in spec.varied


def test_another_pruner_drops_the_options_of_the_old_one(read: Read) -> None:
    """`search.pruner=none` alone is enough: the old pruner's options are dropped."""
    assert read(BASE, ["search.pruner=none"]).search.pruner_options == {}
    overrides = ["search.pruner=percentile", "search.pruner_options.percentile=50"]
    assert read(BASE, overrides).search.pruner_options["percentile"] == 50.0


def test_conditions_on_a_held_dimension_are_resolved(read: Read) -> None:
    """Parameters that it enables vary freely; disabled ones and their dependents are dropped."""
    assert read(BASE, ["scheduler=step"]).varied == ("lr", "step_size", "depth")
    assert read(BASE, ["scheduler=step"]).space.dimensions[1].when == {}
    assert read(BASE, ["scheduler=cosine"]).varied == ("lr",)
    assert read(BASE, ["scheduler=constant"]).varied == ("lr",)


def test_everything_may_be_held(read: Read) -> None:
    """A single configuration of a search can be run."""
    assert read(STUDY + TPE + RATES, ["lr=1"]).varied == ()


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("lr", "--set lr: expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("budget.trails=3", "unknown key 'budget.trails'; did you mean budget.trials?"),
        ("serach.pruner=none", "did you mean search.pruner?"),
        ("data.shift.x=3", "unknown key 'data.shift.x'"),
        ("lrr=3", "fixed.lrr: unknown parameter 'lrr'; did you mean lr? (from --set lrr=3)"),
        ("image_size=32", "fixed.image_size: unknown in [fixed]; did you mean data.image_size?"),
        ("trials=3", "did you mean budget.trials?"),
        ("width=nan", "got nan (from --set width=nan)"),
        ("budget.trials=99", "99 trials are more than the grid has"),
        ("limits.silence=5", "limits.silence: expected a duration"),
        ("search.pruner=medain", "did you mean median?"),
    ],
)
def test_a_bad_override_is_a_fault_like_any_other(read: Read, override: str, fragment: str) -> None:
    """A bad override is reported with its text and the nearest valid name."""
    with pytest.raises(StudyFileError) as raised:
        read(BASE, [override])
    assert fragment in str(raised.value)
    assert override in str(raised.value)


def test_faults_of_the_file_and_of_overrides_are_told_together(read: Read) -> None:
    """Sections that are values are reported, overrides or not."""
    with pytest.raises(StudyFileError) as raised:
        read("fixed = 3\n" + STUDY + GRID + RATES, ["width=3", "a.b=1", "epochs=0"])
    assert [fault.key for fault in raised.value.faults] == ["--set a.b=1", "fixed"]


def test_a_text_that_is_no_utf8_is_told(read: Read) -> None:
    """A text that is not UTF-8, as in a Latin-1 path, is refused at once."""
    with pytest.raises(StudyFileError, match="a text that is not UTF-8"):
        read(BASE, ["data.shift=caf\udce9"])
