"""The rule of a race: who is dropped on what evidence, and who is never dropped."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.marking import Line, batch
from benchmarks.racing import SIZES, marks
from benchmarks.worlds import WORLDS, Shape
from tuner.results import decide
from tuner.statistics.anova import Panel
from tuner.statistics.sequential import compare_with_best
from tuner.store.ledger.looks import Decided, Look

Array = NDArray[np.float64]


def make_look(racing: Sequence[int], rounds: int, error: float = 0.01) -> Look:
    """Make a look at these contenders after this many further seeds."""
    return Look(1, rounds, tuple(racing), len(racing), looks=4, room=100, error=error)


def hits(accuracies: Mapping[int, float], seeds: int, images: int = 300, seed: int = 0) -> Array:
    """Draw which images are right, by contender, seed and image."""
    chance = np.random.default_rng(seed)
    shape = (len(accuracies), seeds, images)
    wanted = np.array(list(accuracies.values()))[:, None, None]
    return (chance.random(shape) < wanted).astype(np.float64)


def decided(
    values: Array, look: Look, done: Mapping[int, Collection[int]] | None = None
) -> Decided:
    """Decide a look over drawn values; contenders are the indices of the array."""

    def panel_of(contenders: Sequence[int], seeds: Sequence[int]) -> Panel:
        return Panel((values[np.ix_(list(contenders), [seed - 1 for seed in seeds])],))

    whole = {one: range(1, look.rounds + 1) for one in look.racing}
    return decide(look, whole if done is None else done, panel_of, larger=True)


def test_one_that_is_much_worse_is_dropped_and_the_rest_stays() -> None:
    """A contender thirty points behind is dropped after three seeds; a few behind, it stays."""
    values = hits({0: 0.9, 1: 0.88, 2: 0.6}, seeds=3)
    found = decided(values, make_look([0, 1, 2], 3))
    assert found.dropped == (2,)
    assert found.seen["best"] == 0
    told = {one["configuration"]: one for one in found.seen["held"]}
    assert told[2]["difference"]["high"] < 0, "the interval says what was decided"
    assert told[1]["difference"]["low"] < 0 < told[1]["difference"]["high"]


def test_smaller_is_better_where_the_metric_says_so() -> None:
    """In a race by loss the larger mean is dropped."""
    values = hits({0: 0.9, 1: 0.5}, seeds=4)

    def panel_of(contenders: Sequence[int], seeds: Sequence[int]) -> Panel:
        return Panel((values[list(contenders)],), counts_images=False)

    look = make_look([0, 1], 4)
    done = {one: range(1, 5) for one in (0, 1)}
    assert decide(look, done, panel_of, larger=False).dropped == (0,)
    assert decide(look, done, panel_of, larger=True).dropped == (1,)


def test_pairs_that_are_missing_are_left_out_and_counted() -> None:
    """A failed trial's pair is left out and counted; fewer than two pairs are not judged."""
    values = hits({0: 0.9, 1: 0.4, 2: 0.4}, seeds=4)
    done = {0: {1, 2, 3, 4}, 1: {2, 3, 4}, 2: {4}}
    found = decided(values, make_look([0, 1, 2], 4), done)
    told = {one["configuration"]: one for one in found.seen["held"]}
    assert (told[1]["pairs"], told[1]["left_out"]) == (3, 1)
    assert (told[2]["pairs"], told[2]["left_out"]) == (1, 3)
    assert told[2]["difference"] is None
    assert found.dropped == (1,)


def test_nobody_is_judged_where_nobody_has_two_seeds() -> None:
    """If everything failed, a look drops no contender and does not end the race."""
    found = decided(hits({0: 0.9, 1: 0.1}, 2), make_look([0, 1], 2), {0: {1}, 1: set()})
    assert (found.dropped, found.ends, found.seen["best"]) == ((), "", None)


def test_a_panel_without_figures_judges_nobody() -> None:
    """Without stored figures a look drops no contender."""
    done = {0: {1, 2}, 1: {1, 2}}
    found = decide(make_look([0, 1], 2), done, lambda _one, _seeds: None, larger=True)
    assert (found.dropped, found.ends) == ((), "")


def test_images_that_keep_two_apart_from_being_told_end_the_race() -> None:
    """If images, not seeds, limit the precision, the race ends: more seeds would not help."""
    chance = np.random.default_rng(1)
    values = np.repeat((chance.random((2, 1, 200)) < 0.8).astype(float), 8, axis=1)
    # A little noise is left, so that the variance between seeds is small but not zero.
    flipped = chance.random(values.shape) < 0.01
    found = decided(np.abs(values - flipped), make_look([0, 1], 8))
    assert (found.dropped, found.ends) == ((), "images")
    noise = (chance.random((2, 8, 200)) < 0.8).astype(float)
    assert decided(noise, make_look([0, 1], 8)).ends == "", "here seeds would help"


def test_a_figure_without_images_is_never_ended_by_images() -> None:
    """A figure without images never ends a race because of images: its interval is over seeds."""
    values = np.random.default_rng(2).normal(0.8, 0.01, (3, 6, 1))
    assert decided(values, make_look([0, 1, 2], 6)).ends == ""


@settings(max_examples=30, deadline=None)
@given(data=st.data(), contenders=st.integers(2, 5), seeds=st.integers(2, 6))
def test_names_and_order_of_contenders_do_not_matter(
    data: st.DataObject, contenders: int, seeds: int
) -> None:
    """The decision does not depend on the names and order of contenders."""
    accuracies = {one: data.draw(st.floats(0.5, 0.95)) for one in range(contenders)}
    values = hits(accuracies, seeds, images=60, seed=data.draw(st.integers(0, 99)))
    order = data.draw(st.permutations(range(contenders)))
    plain = decided(values, make_look(range(contenders), seeds))
    mixed = decided(values, make_look(order, seeds))
    means = values.mean(axis=(1, 2))
    if (means == means.max()).sum() == 1:
        assert set(plain.dropped) == set(mixed.dropped)
    assert plain.seen["best"] not in plain.dropped
    assert set(plain.dropped) < set(range(contenders))


@settings(max_examples=60, deadline=None)
@given(
    accuracies=st.tuples(st.floats(0.4, 0.95), st.floats(0.4, 0.95)),
    seeds=st.integers(2, 8),
    level=st.floats(1e-4, 0.05),
    seed=st.integers(0, 10**6),
)
def test_the_interval_says_what_was_decided(
    accuracies: tuple[float, float], seeds: int, level: float, seed: int
) -> None:
    """A contender is dropped exactly if its interval excludes 0, and only the worse of two."""
    panel = Panel((hits(dict(enumerate(accuracies)), seeds, images=80, seed=seed),))
    for one, other in ((0, 1), (1, 0)):
        found = compare_with_best(panel, one, other, level, larger=True)
        assert found.separated == (found.difference.high < 0)
        assert not (found.separated and found.beyond_seeds)
        mirrored = compare_with_best(panel, one, other, level, larger=False)
        assert mirrored.separated == (mirrored.difference.low > 0)
        if found.difference.value:
            assert found.p_value + mirrored.p_value == pytest.approx(1)


def test_a_lower_level_drops_no_more() -> None:
    """Every contender dropped at a strict level is also dropped at a lenient one."""
    for seed in range(20):
        values = hits({0: 0.85, 1: 0.8, 2: 0.75, 3: 0.7}, 4, seed=seed)
        strict = decided(values, make_look(range(4), 4, error=0.001))
        lenient = decided(values, make_look(range(4), 4, error=0.05))
        assert set(strict.dropped) <= set(lenient.dropped)


def test_the_best_is_dropped_in_5_of_100_races_at_most() -> None:
    """At most 5% of 240 races between equals drop the best: a short `make calibration`."""
    dropped: list[float] = []
    for place, world in enumerate(WORLDS):
        line = Line(marks, Shape(world, 2, 2, 200), SIZES)
        dropped += batch(line, 60, seed=place)["best dropped"]
    assert sum(dropped) <= 12, "5 in 100"


def test_a_race_with_a_clear_winner_saves_trials() -> None:
    """With a clear winner by 10 points, most races end early with only that one."""
    world = next(one for one in WORLDS if one.name.startswith("neither"))
    found = batch(Line(marks, Shape(world, 2, 2, 200, 0.10), SIZES), 40, seed=3)
    assert np.mean(found["one left"]) > 0.7
    assert np.mean(found["trials saved"]) > 0.2
    assert sum(found["best dropped"]) <= 2


@pytest.mark.parametrize("contenders", [2, 3, 8])
def test_one_comparison_gets_its_share(contenders: int) -> None:
    """A look's error rate is shared by all comparisons that could drop the best."""
    look = make_look(range(contenders), 4, error=0.01)
    assert look.level * (contenders - 1) == pytest.approx(0.01)
    # Dropped contenders still count for the error rate: dropping one gains nothing.
    assert replace(look, racing=look.racing[:2]).level == look.level
