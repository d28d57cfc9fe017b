"""Engines by name."""

import pytest

from tuner.errors import UserError
from tuner.fleet import engines


def test_every_engine_loads_and_bears_its_name() -> None:
    """What the registry lists is there."""
    assert {engines.load(name).name for name in engines.ENGINES} == set(engines.ENGINES)


def test_an_unknown_engine_is_told_with_the_nearest() -> None:
    """A misspelt name gets the one that was meant."""
    with pytest.raises(UserError, match="Did you mean local"):
        engines.load("locl")


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose package is not installed names the command that installs it."""
    monkeypatch.setitem(engines.ENGINES, "ray", "a_package_that_is_not_there")
    with pytest.raises(UserError, match=r"pip install 'tuner\[ray\]'"):
        engines.load("ray")
