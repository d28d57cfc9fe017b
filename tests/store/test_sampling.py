"""Samplers as functions of (seed, configuration), and what learning samplers see."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.store.specs import make_ranged, make_spec
from tuner.records import Value
from tuner.spec.space import Choice, Range
from tuner.spec.study import Spec
from tuner.store import sampling

UNITS = st.floats(0.0, 1.0, exclude_max=True)
EDGE = math.nextafter(1.0, 0.0)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    """Make any range that a study file may contain."""
    integer, log = draw(st.booleans()), draw(st.booleans())
    if integer:
        low: float | int = draw(st.integers(1 if log else -(10**12), 10**12))
        high: float | int = draw(st.integers(int(low), 2 * 10**12))
    else:
        numbers = st.floats(1e-300 if log else -1e308, 1e308)
        low, high = sorted((draw(numbers), draw(numbers)))
    step: float | int | None = None
    if not log and draw(st.booleans()):
        step = draw(st.integers(1, 1000)) if integer else draw(st.sampled_from([0.1, 0.25, 3.0]))
        low, high = (int(low) % 1000, int(low) % 1000 + 500) if integer else (-1.3, 7.9)
    return Range("r", low, high, log=log, step=step, integer=integer)


@given(dimension=ranges(), unit=UNITS | st.just(0.0) | st.just(EDGE))
def test_a_range_is_never_left(dimension: Range, unit: float) -> None:
    """Any place gives a value of the right type, inside the range and on its steps."""
    value = sampling.value_at(dimension, unit)
    assert type(value) is (int if dimension.integer else float)
    assert dimension.low <= value <= dimension.high
    if dimension.step is not None:
        assert value in dimension.values


@given(count=st.integers(1, 50), unit=UNITS | st.just(EDGE))
def test_a_choice_gives_one_of_its_values(count: int, unit: float) -> None:
    """Any place gives one of the values, including at the ends."""
    dimension = Choice("c", tuple(range(count)))
    assert sampling.value_at(dimension, unit) in dimension.values
    assert sampling.value_at(dimension, 0.0) == 0
    assert sampling.value_at(dimension, EDGE) == count - 1


def test_whole_numbers_are_drawn_evenly() -> None:
    """Both ends of a whole range are as likely as every other value."""
    dimension = Range("r", 1, 4, integer=True)
    drawn = [sampling.value_at(dimension, place / 1000) for place in range(1000)]
    assert [drawn.count(value) for value in (1, 2, 3, 4)] == [250] * 4


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_values_depend_on_seed_and_configuration_alone(sampler: str) -> None:
    """The same configuration gets the same values, in any order and any process."""
    spec = make_ranged(trials=20, sampler=sampler)
    forwards = [sampling.choose(spec, place) for place in range(20)]
    backwards = [sampling.choose(spec, place) for place in reversed(range(20))]
    assert forwards == backwards[::-1]
    other = replace(spec, search=replace(spec.search, seed=1))
    assert [sampling.choose(other, place) for place in range(20)] != forwards


@pytest.mark.parametrize("sampler", ["random", "qmc"])
@pytest.mark.parametrize("options", [{}, {"scramble": False}, {"qmc_type": "halton"}])
def test_no_two_configurations_are_alike(sampler: str, options: dict[str, Value]) -> None:
    """Two workers never propose the same values; conditions are respected."""
    spec = make_ranged(trials=64, sampler=sampler, sampler_options=options)
    chosen = [sampling.choose(spec, place) for place in range(64)]
    assert len({str(one["lr"]) for one in chosen}) == 64
    for one in chosen:
        assert ("momentum" in one) == (one["optimizer"] == "sgd")
        assert list(one) == [name for name in spec.space.names if name in one]


def test_quasi_random_values_fill_the_space() -> None:
    """Of 16 Sobol points each half of each dimension gets eight."""
    spec = make_spec(
        trials=16, dimensions=(Range("lr", 0.0, 1.0), Range("x", 0.0, 1.0)), sampler="qmc"
    )
    chosen = [sampling.choose(spec, place) for place in range(16)]
    for name in ("lr", "x"):
        assert sum(float(one[name]) < 0.5 for one in chosen) == 8


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_space_without_dimensions_has_one_configuration(sampler: str) -> None:
    """Replicates of a fixed setting need no space."""
    assert sampling.choose(make_spec(trials=1, dimensions=(), sampler=sampler), 0) == {}


def test_a_grid_goes_through_its_combinations() -> None:
    """Configuration k of a grid is its k-th combination."""
    spec = make_spec()
    assert [sampling.choose(spec, k)["lr"] for k in range(3)] == [1e-4, 1e-3, 1e-2]


def trial(
    spec: Spec,
    number: int,
    value: float | None,
    state: TrialState = TrialState.COMPLETE,
    **attributes: Any,
) -> FrozenTrial:
    """Make a trial in the form that a worker reads."""
    chosen = sampling.choose(replace(spec, search=replace(spec.search, sampler="random")), number)
    made = create_trial(
        state=state,
        value=value,
        params=chosen,
        distributions={
            name: one for name, one in sampling.distributions(spec).items() if name in chosen
        },
        user_attrs={"seed": 0, **attributes},
        intermediate_values={} if value is None else {1: value},
    )
    made.number = number
    return made


TPE = {"n_startup_trials": 3, "multivariate": True, "group": True, "constant_liar": True}


@pytest.mark.parametrize("options", [{}, TPE, {**TPE, "group": False}])
def test_tpe_proposes_inside_the_space(options: dict[str, Value]) -> None:
    """After any results a proposal has exactly the active parameters, within their ranges."""
    spec = make_ranged(trials=40, sampler="tpe", sampler_options=options)
    known = sampling.distributions(spec)
    trials: list[FrozenTrial] = []
    for number in range(25):
        chosen = sampling.propose(spec, "s", trials, number)
        for name, value in chosen.items():
            assert known[name]._contains(known[name].to_internal_repr(value))
            assert type(value) in (int, float, str)
        assert ("momentum" in chosen) == (chosen["optimizer"] == "sgd")
        assert (type(chosen["width"]) is int) == isinstance(known["width"], IntDistribution)
        made = trial(spec, number, float(chosen["lr"]))
        made.params = chosen
        made.distributions = {name: known[name] for name in chosen}
        trials.append(made)


def test_tpe_learns() -> None:
    """After 30 trials most of TPE's proposals beat the median draw."""
    spec = make_spec(
        trials=100, dimensions=(Range("lr", 0.0, 1.0),), sampler="tpe", sampler_options={}
    )
    trials = []
    for number in range(30):
        made = trial(spec, number, None, TrialState.RUNNING)
        value = abs(float(made.params["lr"]) - 0.3)
        trials.append(trial(spec, number, value))
    found = [sampling.propose(spec, "s", trials, 30 + place)["lr"] for place in range(20)]
    assert sum(abs(float(lr) - 0.3) < 0.15 for lr in found) >= 15


def test_replicates_are_not_shown() -> None:
    """A configuration under five seeds is one observation, not five."""
    spec = make_ranged(sampler="tpe")
    trials = [trial(spec, 0, 0.5), trial(spec, 1, 0.4, seed=1), trial(spec, 2, 0.3, seed=2)]
    assert [one.number for one in sampling.as_seen(spec, trials)] == [0]


@pytest.mark.parametrize(("metric", "worst"), [("val_loss", 0.9), ("val_acc", 0.2)])
def test_gp_sees_divergence_as_the_worst_finite_value(metric: str, worst: float) -> None:
    """GP ignores pruned trials, so a diverged one is shown as complete, with the worst value."""
    spec = make_ranged(sampler="gp", metric=metric)
    diverged = trial(spec, 2, math.nan, TrialState.PRUNED, diverged=True)
    seen = sampling.as_seen(spec, [trial(spec, 0, 0.2), trial(spec, 1, 0.9), diverged])
    assert (seen[2].state, seen[2].value) == (TrialState.COMPLETE, worst)
    assert seen[2].params == diverged.params


def test_tpe_ranks_divergence_below_everything() -> None:
    """A trial that diverged late does not rank above one pruned early with a number."""
    from optuna.samplers._tpe.sampler import _split_trials
    from optuna.study import Study

    from tuner.store.optuna_storage import TrialsInMemory

    spec = make_ranged(sampler="tpe")
    diverged = trial(spec, 0, math.nan, TrialState.PRUNED, diverged=True)
    diverged.intermediate_values = {20: math.nan}
    pruned = trial(spec, 1, 0.9, TrialState.PRUNED)
    seen = sampling.as_seen(spec, [diverged, pruned, trial(spec, 2, 0.95)])
    study = Study("s", TrialsInMemory(seen, "minimize"))
    for n_below, best in ((1, {2}), (2, {2, 1})):
        below, _ = _split_trials(study, seen, n_below)
        assert {one.number for one in below} == best
