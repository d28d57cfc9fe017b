"""A setting given by a user: parsed from words, and checked against the space."""

import pytest

from tests.store.specs import make_ranged, make_spec
from tuner.errors import UserError
from tuner.spec.setting import check_setting, plain, read_setting
from tuner.spec.space import Choice, Range


def test_values_become_those_of_the_space() -> None:
    """A whole number for a float range becomes a float; inactive parameters are left out."""
    spec = make_ranged()
    given = read_setting(spec, ("optimizer=adam", "width=16", "lr=1e-3"))
    assert check_setting(spec, given) == {"lr": 1e-3, "width": 16, "optimizer": "adam"}
    sgd = {"optimizer": "sgd", "momentum": 0, "lr": 1e-5, "width": 64}
    chosen = check_setting(spec, sgd)
    assert list(chosen) == ["lr", "width", "momentum", "optimizer"]
    assert isinstance(chosen["momentum"], float)


def test_every_fault_is_told_at_once() -> None:
    """Out of range, off the step, missing, inactive, misspelt and fixed otherwise."""
    spec = make_ranged()
    with pytest.raises(UserError) as told:
        check_setting(
            spec,
            {"lr": 0.5, "width": 12, "momentum": 0.5, "optimiser": "adam", "epochs": 9},
        )
    said = str(told.value)
    assert "lr: 0.5 is not a number from 1e-05 to 0.1" in said
    assert "width: 12 is not a whole number from 8 to 64 in steps of 8" in said
    assert "optimizer: missing; give adam or sgd" in said
    assert "momentum: it has a value only where optimizer is sgd" in said
    assert "Did you mean optimizer?" in said
    assert "epochs: this study fixes it at 3" in said
    assert "nothing was queued" in said


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), [1], 10**400])
def test_what_only_looks_like_a_value_is_refused(value: object) -> None:
    """True is not 1, a text is not a number, and NaN is in no range."""
    for dimension in (Choice("lr", (1, 2)), Range("lr", 0.5, 2.0)):
        with pytest.raises(UserError, match="lr: "):
            check_setting(make_spec(dimensions=(dimension,)), {"lr": value})


def test_words_are_read_as_toml_or_as_listed_texts() -> None:
    """A text that the space lists stays a text, even if it looks like a number."""
    spec = make_spec(dimensions=(Choice("kind", ("1", "two")), Choice("flag", (True, False))))
    given = read_setting(spec, ("kind=1", "flag=true"))
    assert check_setting(spec, given) == {"kind": "1", "flag": True}
    for words in (("kind",), ("=1",), ("kind=1", "kind=2")):
        with pytest.raises(UserError):
            read_setting(spec, words)


def test_values_of_other_libraries_are_plain_ones() -> None:
    """numpy's numbers and arrays, tuples and paths become plain values of a study file."""
    import json
    from pathlib import Path

    import numpy as np

    given = {
        "lr": np.float64(0.5),
        "width": np.int64(3),
        "all": (1, np.array([1.5, 2.5])),
        "path": Path("a/b"),
    }
    assert json.dumps(plain(given)) == (
        '{"lr": 0.5, "width": 3, "all": [1, [1.5, 2.5]], "path": "a/b"}'
    )
