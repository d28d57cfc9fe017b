"""Whatever TOML contains, the checks return a study or its faults."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.spec.conftest import DECLARATIONS, declared
from tuner.errors import StudyFileError
from tuner.spec.identity import fingerprint
from tuner.spec.keys import entries
from tuner.spec.load import check
from tuner.spec.overrides import parse_value
from tuner.spec.study import SECTIONS, Spec

SCALARS = st.one_of(
    st.text(max_size=8),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["grid", "tpe", "asha", "top", "8GB", "10m", "step", "cosine", 0.1, 1e-3, 1, 10]
    ),
    st.just(datetime.date(2026, 1, 1)),
    st.just(10**400),
)
NAMES = st.sampled_from([*DECLARATIONS.parameters, "data.shift", "data.path", "data", "lrr"])
WHENS = st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=2)
RANGES = st.fixed_dictionaries(
    {"low": SCALARS, "high": SCALARS},
    optional={"log": SCALARS, "step": SCALARS, "when": WHENS, "x": SCALARS},
)
CHOICES = st.lists(SCALARS, max_size=3)
TABLES = st.fixed_dictionaries({"values": CHOICES, "when": WHENS})
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = sorted({key for section in SECTIONS.values() for key in entries(section)})
SECTION = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), ANYTHING, max_size=4)
DIMENSIONS = st.dictionaries(NAMES, st.one_of(CHOICES, RANGES, TABLES, ANYTHING), max_size=4)
DOCUMENTS = st.fixed_dictionaries(
    {
        "study": st.just({"name": "small", "question": "Which?", "objective": "chest_xray"}),
        "budget": st.sampled_from([{"trials": "grid"}, {"trials": 12}]) | SECTION,
    },
    optional={
        "limits": SECTION | ANYTHING,
        "search": st.sampled_from([{"sampler": "tpe"}, {"pruner": "median"}]) | SECTION | ANYTHING,
        "replicates": st.sampled_from([{"seeds": 3}, {"seeds": 2, "of": "top", "top": 1}])
        | SECTION,
        "space": DIMENSIONS | ANYTHING,
        "fixed": st.dictionaries(NAMES, SCALARS, max_size=3) | ANYTHING,
        "data": st.dictionaries(st.text(max_size=4) | st.just("shift"), SCALARS, max_size=2)
        | ANYTHING,
        "junk": ANYTHING,
    },
)
OVERRIDES = st.lists(
    st.builds(
        "{}={}".format,
        st.sampled_from(["lr", "scheduler", "data.shift", "budget.trials", "space.lr", "a.b"]),
        st.sampled_from(["1", "nan", "step", "[1, 2]", "{low=1, high=2}", "", "\n", "[["]),
    ),
    max_size=2,
)


def read(document: dict[str, Any], overrides: list[str]) -> Spec | None:
    """Return the study, or None if it has faults."""
    try:
        return check(document, overrides, declared, Path("small.toml"))
    except StudyFileError as error:
        return None if error.faults else pytest.fail("a refusal without a fault")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=DOCUMENTS, overrides=OVERRIDES)
def test_a_study_or_its_faults_and_nothing_else(
    document: dict[str, Any], overrides: list[str]
) -> None:
    """No document gives a traceback, and a valid study survives JSON."""
    spec = read(document, overrides)
    if spec is None:
        return
    again = Spec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec
    assert fingerprint(again) == fingerprint(spec)
    assert spec.total_trials >= spec.configurations >= 0


RIGHT_SPACES = st.fixed_dictionaries(
    {"scheduler": st.just(["step", "cosine", "constant"])},
    optional={
        "lr": st.lists(st.sampled_from([1, 2, 0.1, 1e-3]), min_size=1, unique=True),
        "depth": st.builds(
            lambda low, steps, step: {"low": low, "high": low + steps * step, "step": step},
            st.integers(1, 9),
            st.integers(1, 4),
            st.integers(1, 5),
        ),
        "dropout": st.just({"low": 0, "high": 0.6, "step": 0.2, "when": {"depth": [3, 4]}})
        | st.just([0, 0.5]),
        "step_size": st.builds(
            lambda values, on: {"values": values, "when": {"scheduler": on}},
            st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True),
            st.sampled_from(["step", ["step", "cosine"]]),
        ),
        "data.shift": st.lists(st.sampled_from([0, 0.5, 1]), min_size=1, unique=True),
    },
)


@settings(max_examples=200, deadline=None)
@given(space=RIGHT_SPACES, seeds=st.integers(1, 4), data=st.data())
def test_right_studies_make_complete_and_distinct_trials(
    space: dict[str, Any], seeds: int, data: st.DataObject
) -> None:
    """Every grid point has exactly its active parameters, and no two are equal."""
    document = {
        "study": {"name": "small", "question": "Which?", "objective": "chest_xray"},
        "budget": {"trials": "grid"},
        "replicates": {"seeds": seeds},
        "space": space,
    }
    spec = read(document, [])
    if spec is None:
        assert isinstance(space.get("dropout"), dict), "only a condition may be impossible here"
        return
    grid = spec.space.grid()
    assert len({json.dumps(point) for point in grid}) == len(grid) == spec.configurations
    assert spec.total_trials == len(grid) * seeds
    for point in grid:
        active = [d.name for d in spec.space.dimensions if spec.space.is_active(d, point)]
        assert list(point) == active
        assert set(spec.job(point, 0).parameters) == set(DECLARATIONS.parameters)
        assert set(spec.job(point, 0).data) == set(DECLARATIONS.data)
    shuffled = {name: space[name] for name in data.draw(st.permutations(list(space)))}
    again = read({**document, "space": shuffled}, [])
    assert again is not None
    assert fingerprint(again) == fingerprint(spec)
    assert {json.dumps(point, sort_keys=True) for point in again.space.grid()} == {
        json.dumps(point, sort_keys=True) for point in grid
    }


@settings(max_examples=100, deadline=None)
@given(document=st.dictionaries(st.text(max_size=6), ANYTHING, max_size=4))
def test_arbitrary_tables_are_told_as_faults(document: dict[str, Any]) -> None:
    """A file that is not a study at all still gets its faults."""
    assert read(document, []) is None


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_every_set_value_is_a_value(text: str) -> None:
    """A value that TOML cannot parse is a text."""
    assert parse_value(text) is not None
