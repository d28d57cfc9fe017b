"""Searches are replayed like real training: made-up curves with known answers."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import curves, search, search_real
from benchmarks.curves import Table
from benchmarks.searches import Neighbours, Replayed, Search, Way, World, replay
from tests.store.specs import make_spec
from tuner.records import Value
from tuner.spec.space import Choice, Range

Setting = Mapping[str, Value]
LENGTH = 40
DIMENSIONS = (
    Choice("scheduler", ("constant", "step")),
    Range("lr", 1e-4, 1e-2, log=True),
    Range("step_size", 5, 20, step=5, integer=True, when={"scheduler": ("step",)}),
)


def world_of(*ends: float, late: int | None = None) -> World:
    """Return settings whose losses fall to these values; `late` looks worst until epoch 10."""
    spec = make_spec(dimensions=DIMENSIONS, trials=len(ends), epochs=LENGTH, at="best")
    losses = np.array([end + 1 / np.arange(1, LENGTH + 1) for end in ends])
    if late is not None:
        losses[late, :10] += 5
    chosen: list[Setting] = [{"scheduler": "constant", "lr": 1e-3} for _ in ends]
    lengths = np.full(len(ends), LENGTH)
    return World(spec, chosen, losses, lengths, np.ones(len(ends)))


def run(way: Way, world: World, workers: int = 1) -> Replayed:
    """Replay a search over all settings, in the table's order."""
    return replay(Search(way.spec(world.spec, len(world.chosen)), world), workers)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_trial_whole_costs_its_epochs(workers: int) -> None:
    """Six trainings of full length cost all their epochs and find the best."""
    world = world_of(0.5, 0.3, 0.6, 0.2, 0.7, 0.4)
    found = run(Way("whole"), world, workers)
    assert found.total == 6
    assert found.regret[0] > 0, "the first to be complete is not the best"
    assert found.after(6) == 0
    assert found.until(0.0) > found.until(0.3)


def test_a_setting_that_starts_badly_is_lost_by_stopping_and_found_by_pausing() -> None:
    """A best setting that looks worst for ten epochs is lost by stopping, and found by pausing."""
    world = world_of(0.5, 0.45, 0.55, 0.6, 0.2, 0.65, 0.7, 0.75, 0.8, late=4)
    stopped = run(Way("stop", "asha", options={"min_resource": 2, "reduction_factor": 3}), world)
    paused = run(Way("pause", allocator="promote", options={"finish": 9}), world)
    assert stopped.after(math.inf) == pytest.approx(0.25)
    assert stopped.until(0.005) == math.inf
    assert paused.after(math.inf) == 0
    assert paused.total == 9


def test_promotion_finds_the_best_sooner() -> None:
    """If early epochs do not mislead, promotion finds the best in less than half the epochs."""
    ends = np.random.default_rng(0).permutation(np.linspace(0.2, 0.8, 30))
    whole, paused = (run(Way("", allocator=one), world_of(*ends)) for one in ("none", "promote"))
    assert paused.until(0.0) < whole.until(0.0) / 2
    assert paused.total < 10, "it ends once a sixth of the trials is complete"


def test_a_trial_that_diverges_ends_there() -> None:
    """A diverged trial is never the answer, and its remaining epochs cost nothing."""
    world = world_of(0.5, 0.1)
    losses = world.losses.copy()
    losses[1, 5:] = math.nan
    world = World(world.spec, world.chosen, losses, world.lengths, world.costs)
    found = run(Way("whole"), world)
    assert world.best == world.ends[0]
    assert found.total == (LENGTH + 6) / LENGTH
    assert found.after(math.inf) == 0


def test_a_proposal_becomes_the_nearest_setting_that_is_left() -> None:
    """Distance is by share of ranges; a different choice or a missing parameter is far."""
    base = world_of(0.1, 0.2, 0.3)
    chosen: list[Setting] = [
        {"scheduler": "constant", "lr": 1e-3},
        {"scheduler": "constant", "lr": 1e-4},
        {"scheduler": "step", "lr": 1e-3, "step_size": 5},
    ]
    near = Neighbours(World(base.spec, chosen, base.losses, base.lengths, base.costs))
    wanted: Setting = {"scheduler": "constant", "lr": 9e-4}
    assert [near.take(wanted) for _ in chosen] == [0, 1, 2]


def test_samplers_that_learn_meet_each_setting_once() -> None:
    """TPE gets each setting once, and the search ends with its trials, paused or not."""
    random = np.random.default_rng(1)
    base = world_of(*random.random(16))
    rates = [float(10 ** -random.uniform(2, 4)) for _ in range(16)]
    chosen: list[Setting] = [{"scheduler": "constant", "lr": rate} for rate in rates]
    world = World(base.spec, chosen, base.losses, base.lengths, base.costs)
    way = Way("", allocator="promote", options={"finish": 14})
    found = replay(Search(way.spec(world.spec, 14, "tpe"), world), workers=2)
    assert found.total == 14


def test_a_ratio_compares_epochs_to_the_same_regret() -> None:
    """A search that needs half the epochs for every regret has a ratio of one half."""
    budgets = np.arange(1.0, 30.0)
    slow = Replayed(budgets, 1 / budgets, 30.0)
    fast = Replayed(budgets / 2, 1 / budgets, 15.0)
    assert search.ratio([fast], [slow]) == pytest.approx(0.5)
    assert search.ratio([slow], [slow]) == 1


def test_the_first_complete_trial_that_is_good_enough_counts() -> None:
    """Only complete trials count: a stopped one is no answer, however good."""
    trials = [
        {"ended": 5.0, "complete": True, "epochs": 40, "loss": 0.5},
        {"ended": 2.0, "complete": False, "epochs": 6, "loss": 0.2},
        {"ended": 9.0, "complete": True, "epochs": 40, "loss": 0.3},
    ]
    assert search_real.seconds_until(trials, 0.3) == 9
    assert search_real.seconds_until(trials, 0.1) == math.inf
    table = "\n".join(search_real.lines({"ray": {"seconds": 12.0, "trials": trials}}))
    assert "| Ray Tune, ASHA, notebook loop | 9 | 9 | 12 | 86 | 2 | 0.300 |" in table


@pytest.mark.parametrize("path", sorted(curves.FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_stored_curves_are_small_and_whole(path: Path) -> None:
    """Each setting has a curve of its planned length, and the file is small."""
    table = Table.load(path.stem)
    assert path.stem in curves.RECIPES
    assert path.stat().st_size < 500_000
    assert len(table.chosen) == len(table.losses) == curves.RECIPES[path.stem].settings
    assert np.isfinite(table.losses[:, :, 0]).all()
    for length, of_setting in zip(table.lengths, table.losses, strict=True):
        assert np.isnan(of_setting[:, length:]).all()
    json.dumps(table.spec.to_json())


def table_of(*seeds: list[float]) -> Table:
    """Return settings with these final losses under each seed."""
    base = world_of(*seeds[0])
    losses = np.stack([world_of(*ends).losses for ends in seeds], axis=1)
    return Table("some", base.spec, tuple(base.chosen), losses, base.lengths, base.costs)


def test_a_second_seed_moves_the_ranking_or_not() -> None:
    """Equal losses agree across seeds and reversed ones disagree."""
    ends = list(np.linspace(0.1, 0.8, 8))
    same = search._moves(table_of(ends, ends))
    assert [same["agreement"], same["rank"], same["worse"]] == pytest.approx([1, 1, 0])
    turned = search._moves(table_of(ends, ends[::-1]))
    assert [turned["agreement"], turned["rank"], turned["worse"]] == pytest.approx([-1, 8, 0.7])


def test_noise_is_by_the_searches_drawn() -> None:
    """Equal searches have no noise; the more they differ, the wider its interval."""
    budgets = np.arange(1.0, 30.0)
    slow = Replayed(budgets, 1 / budgets, 30.0)
    fast = [Replayed(budgets / by, 1 / budgets, 30.0) for by in (1.5, 2, 4)]
    assert search._noise([fast[1]] * 8, [slow] * 8) == [pytest.approx(0.5)] * 2
    low, high = search._noise([*fast, *fast], [slow] * 6)
    assert low is not None
    assert high is not None
    assert 0.2 < low < high < 0.8
