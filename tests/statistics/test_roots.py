"""The bracketed root finder, compared with scipy's brentq."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr

from tuner.statistics.roots import root
from tuner.statistics.variance import Spread

CHANCE = np.random.default_rng(22)
Function = Callable[[float], float]

SHAPES: dict[str, Function] = {
    "a line": lambda at: at,
    "a cube, flat at its root": lambda at: at**3,
    "a ninth power": lambda at: at**9,
    "steep on one side": math.expm1,
    "a step": lambda at: math.copysign(1.0, at) if at else 1.0,
    "a slope with a kink": lambda at: at if at < 0 else 1e6 * at,
    "flat far out": lambda at: float(ndtr(at)) - 0.5,
    "almost a step": lambda at: math.tanh(1e8 * at),
    "a root of a root": lambda at: math.copysign(abs(at) ** 0.1, at),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("within", [1e-3, 1e-9, 1e-13])
def test_root_is_where_it_is(shape: str, within: float) -> None:
    """Within the tolerance, from either end, in at most three times bisection's evaluations."""
    for _ in range(60):
        place, down, up = CHANCE.uniform(-2, 2), *CHANCE.uniform(1e-6, 20, 2)
        low, high = place - down, place + up
        calls = 0

        def function(at: float, place: float = place) -> float:
            nonlocal calls
            calls += 1
            return SHAPES[shape](at - place)

        for ends in ((low, high), (high, low)):
            calls = 0
            assert abs(root(function, *ends, within) - place) <= within + 1e-15 * abs(place)
            halvings = max(1.0, math.log2((high - low) / within))
            assert calls <= 3 * halvings + 4


def test_roots_are_brents() -> None:
    """Half-widths of intervals agree with Brent's, over many spreads."""
    calls = {"ours": 0, "Brent's": 0}
    for _ in range(100):
        by_seed, by_image = 10 ** CHANCE.uniform(-6, 0, 2)
        spread = Spread.of(by_seed, int(CHANCE.integers(1, 30)), by_image, 1e-8)
        error, levels = math.sqrt(spread.variances.max()), int(CHANCE.choice([2, 3, 40]))

        def excess(at: float, whose: str, spread: Spread = spread, levels: int = levels) -> float:
            calls[whose] += 1
            return spread.p_value(at, levels) - 0.05

        ours = root(lambda at: excess(at, "ours"), 0.0, 8 * error, 1e-9 * error)
        brents = brentq(lambda at: excess(at, "Brent's"), 0.0, 8 * error, xtol=1e-9 * error)
        assert abs(ours - brents) <= 2e-9 * error
    assert calls["ours"] <= 1.2 * calls["Brent's"]


def test_an_end_may_be_the_root() -> None:
    """An end that is the root needs no search."""
    assert root(lambda at: at, 0.0, 3.0, 1e-9) == 0
    assert root(lambda at: at, -3.0, 0.0, 1e-9) == 0
    assert root(lambda at: 0 * at, 1.0, 2.0, 1e-9) == 1


def test_infinite_values_have_a_sign() -> None:
    """A function that is infinite at an end is bisected towards its root."""
    found = root(lambda at: math.log(at) if at else -math.inf, 0.0, 5.0, 1e-10)
    assert found == pytest.approx(1, abs=1e-10)


def test_ends_on_one_side_are_refused() -> None:
    """Ends with the same sign are refused with both values in the message."""
    with pytest.raises(ValueError, match=r"no sign change from 1\.0 \(2\.0\) to 3\.0 \(10\.0\)"):
        root(lambda at: at**2 + 1, 1.0, 3.0, 1e-9)


@pytest.mark.parametrize("bad", [0.0, 1.0, 0.5])
def test_what_is_no_number_is_refused(bad: float) -> None:
    """NaN at an end or on the way is refused."""
    with pytest.raises(ValueError, match=f"not a number at {bad}"):
        root(lambda at: math.nan if at == bad else at - 0.7, 0.0, 1.0, 1e-9)
