"""Two searches compared by best value so far: courses, budgets, epochs saved, and certainty."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.store.specs import DATASET, SETUP, Bench, claim_trial, make_epoch, make_result, make_spec
from tests.store.test_epoch_budget import limited
from tests.store.test_promotion_claims import EPOCHS, go, small, train
from tests.store.test_spending import relaunch
from tuner.answers.searches import AtBudget, Course, Searches, SearchRuns, compare_searches
from tuner.pictures.searches import draw_searches
from tuner.results import MEASURES
from tuner.spec.study import Spec
from tuner.statistics.means import welch
from tuner.store.database import Database
from tuner.store.ledger.ledger import Ledger


def course(
    epochs: Sequence[float],
    best: Sequence[float],
    total: int = 100,
    tested: tuple[float | None, ...] = (),
) -> Course:
    """Return a course that improves at these epochs."""
    return Course("some", None, np.array(epochs, float), np.array(best, float), total, tested)


def compared(one: SearchRuns, other: SearchRuns, *, same_images: bool = True) -> Searches:
    """Compare two searches at half of the common budget and at all of it."""
    common = min(one.total, other.total)
    budgets = []
    for epochs in (common // 2, common):
        values = [[c.at(epochs) for c in search.courses] for search in (one, other)]
        known = [[value for value in side if value is not None] for side in values]
        difference = welch(known[0], known[1])
        budgets.append(AtBudget(epochs, one.at(epochs), other.at(epochs), difference))
    return Searches(MEASURES["val_loss"], one, other, tuple(budgets), same_images)


FAST = SearchRuns("fast", tuple(course([10, 20], [0.5, 0.2 + 0.001 * place]) for place in range(5)))
SLOW = SearchRuns("slow", tuple(course([10, 80], [0.5, 0.3 + 0.001 * place]) for place in range(5)))


def test_a_course_has_its_best_value_from_the_moment_on() -> None:
    """A course has no value before the first complete trial, and its last value to the end."""
    one = course([10, 20], [0.5, 0.2])
    assert [one.at(budget) for budget in (0, 9, 10, 19, 20, 1000)] == [
        *(None, None, 0.5, 0.5, 0.2, 0.2)
    ]


def test_a_mean_needs_every_course() -> None:
    """A mean needs every course: one over the fast courses alone would favour the search."""
    search = SearchRuns("some", (course([10], [0.5]), course([30], [0.3])))
    assert search.at(20) is None
    mean = search.at(30)
    assert mean is not None
    assert mean.value == pytest.approx(0.4)


def test_epochs_to_the_same_value() -> None:
    """The faster search reaches the slower one's final value earlier, in either order of names."""
    for pair in ((FAST, SLOW), (SLOW, FAST)):
        both = compared(*pair)
        assert both.saved == {"fast": 20, "slow": 80}
        assert both.differs
        assert both.ahead == (FAST, SLOW)
        assert "4.0 times as many" in both.verdict


def test_of_two_that_reach_the_same_the_faster_one_is_ahead() -> None:
    """Of two searches that reach the same value the faster one is ahead."""
    late, early = (SearchRuns(name, (course([at], [0.2]),)) for name, at in (("a", 60), ("b", 20)))
    both = compared(late, early)
    assert both.ahead == (early, late)
    assert "b reached 0.2000 after 20 epochs, a after 60 (3.0 times as many)" in both.verdict


def test_one_run_each_is_not_judged() -> None:
    """Without repeats there is no interval, and the verdict says how to get one."""
    both = compared(*(SearchRuns(one.name, one.courses[:1]) for one in (FAST, SLOW)))
    assert both.budgets[-1].difference is None
    assert not both.differs
    assert "one run of fast and slow" in both.verdict


def test_equal_searches_do_not_differ() -> None:
    """Equal searches are not called different."""
    noise = [0.2, 0.25, 0.22]
    one, other = (
        SearchRuns(name, tuple(course([10], [value]) for value in values))
        for name, values in (("one", noise), ("other", [0.21, 0.24, 0.23]))
    )
    both = compared(one, other)
    assert not both.differs
    assert "no significant difference" in both.verdict


def test_runs_without_any_spread_are_not_judged() -> None:
    """If all runs agree, the spread is unknown and no verdict is given."""
    pair = [
        SearchRuns(name, (course([10], [value]),) * 2) for name, value in (("a", 0.2), ("b", 0.3))
    ]
    both = compared(*pair)
    assert not both.differs
    assert "agree exactly" in both.verdict


def test_other_images_are_told() -> None:
    """Values measured on different images are not compared."""
    assert "not directly comparable" in compared(FAST, SLOW, same_images=False).verdict


def test_test_accuracy_comes_second() -> None:
    """Test accuracy is reported after the metric, if every run has one."""
    tested = SearchRuns(
        "tested", tuple(course([10], [value], tested=(0.75,)) for value in (0.5, 0.4))
    )
    later = course([10, 900], [0.5, 0.1], total=1000, tested=(0.7, 0.95))
    said = compared(tested, SearchRuns("longer", (later, later))).sentences
    assert "val_loss" in said[0]
    assert "75.0% (tested)" in said[-1]
    assert "70.0% (longer)" in said[-1], "what it reached after as many epochs, not at its end"


@pytest.mark.parametrize("sizes", [(2, 2), (3, 8), (12, 5)])
def test_the_interval_is_welchs(sizes: tuple[int, int]) -> None:
    """The interval is Welch's, as computed by SciPy."""
    chance = np.random.default_rng(sum(sizes))
    one, other = (chance.normal(0, size, size) for size in sizes)
    interval = welch(list(one), list(other))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert welch([1.0], [2.0, 3.0]) is None


def test_the_picture_says_what_the_verdict_says() -> None:
    """The picture's title is the first sentence of the verdict."""
    both = compared(FAST, SLOW)
    picture = draw_searches(both)
    assert f"{picture.title}." == both.sentences[0]
    assert picture.render("png")[:4] == b"\x89PNG"


def search(database: Database, spec: Spec, name: str) -> Bench:
    """Store a study under another name."""
    return Bench.launch(database, replace(spec, name=name))


def test_trials_that_pause_against_trials_that_do_not(database: Database) -> None:
    """A search with pauses and one without are compared by best value per epoch spent."""
    go(search(database, small(), "pausing").worker())
    whole = search(database, make_spec(trials=3, epochs=EPOCHS, at="best"), "whole").worker()
    for _ in range(3):
        train(whole, claim_trial(whole), loss=0.2)
    with database.snapshot() as connection:
        both = compare_searches(connection, "pausing", "whole")
    paused, full = (run.courses[0] for run in both.both)
    # Rungs at 1 and 3: two pause at epoch 1 and one runs to its end, then two more, one of them to
    # 3.
    assert paused.total == 4 * 1 + 3 + EPOCHS
    assert list(paused.epochs) == [2 * 1 + EPOCHS]
    assert list(paused.best) == pytest.approx([1 / EPOCHS])
    assert list(full.epochs) == [EPOCHS]
    assert full.total == 3 * EPOCHS
    assert [one.epochs for one in both.budgets] == [1, 2, 4, 8, 16]
    assert both.budgets[-2].one is None
    assert "pausing has reached val_loss 0.1111 and whole 0.3111" in both.verdict


def test_a_search_whose_budget_in_epochs_ends_it_is_compared_up_to_there(
    database: Database,
) -> None:
    """A search ended by its budget in epochs is compared up to it; a larger budget continues it."""
    bench = search(database, limited(small(), 8), "limited")
    go(bench.worker())
    other = search(database, make_spec(trials=1, epochs=EPOCHS, at="best"), "whole").worker()
    train(other, claim_trial(other))
    with database.snapshot() as connection:
        both = compare_searches(connection, "limited", "whole")
    assert both.budgets[-1].epochs == 8
    assert "limited and whole completed no trial" in both.verdict
    relaunch(bench, limited(replace(small(), name="limited"), 100))
    go(bench.worker())
    with database.snapshot() as connection:
        longer = compare_searches(connection, "limited", "whole").one.courses[0]
    assert longer.total == 4 * 1 + 3 + EPOCHS
    assert len(longer.best) == 1


def reuse(worker: Ledger, reused: int) -> None:
    """Train a trial that reuses its first epochs from the very first trial."""
    held = claim_trial(worker)
    mine = 0.01 * held.trial_id
    curve = [
        make_epoch(place, 0.3, reused=place <= reused, seconds=0.01 if place <= reused else mine)
        for place in range(1, EPOCHS + 1)
    ]
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))


def test_epochs_of_another_study_are_spent_and_those_of_its_own_are_not(
    database: Database,
) -> None:
    """Epochs reused from another study count as spent; those reused within a study do not."""
    spec = make_spec(trials=3, epochs=EPOCHS, at="best")
    first = search(database, spec, "first").worker()
    second = search(database, spec, "second").worker()
    for reused in (0, 4, 0):
        reuse(first, reused)
    for reused in (EPOCHS, 4, 2):
        reuse(second, reused)
    with database.snapshot() as connection:
        both = compare_searches(connection, "first", "second")
    assert [run.total for run in both.both] == [EPOCHS + 5 + EPOCHS, EPOCHS + 5 + 7]
    assert [list(run.courses[0].epochs) for run in both.both] == [[EPOCHS], [EPOCHS]]
