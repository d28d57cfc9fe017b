"""Two searches by the best value so far: courses, budgets, epochs saved, and how sure that is."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tuner.answers.searches import AtBudget, Course, Searches, SearchRuns
from tuner.pictures.searches import draw_searches
from tuner.results import MEASURES
from tuner.statistics.means import welch


def course(
    epochs: Sequence[float],
    best: Sequence[float],
    total: int = 100,
    tested: tuple[float | None, ...] = (),
) -> Course:
    """Return a course that improves after these epochs."""
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
    """Nothing before the first complete trial, and the last value to the end."""
    one = course([10, 20], [0.5, 0.2])
    assert [one.at(budget) for budget in (0, 9, 10, 19, 20, 1000)] == [
        *(None, None, 0.5, 0.5, 0.2, 0.2)
    ]


def test_a_mean_needs_every_course() -> None:
    """A mean over only the fast courses would be biased in favour of the search."""
    search = SearchRuns("some", (course([10], [0.5]), course([30], [0.3])))
    assert search.at(20) is None
    mean = search.at(30)
    assert mean is not None
    assert mean.value == pytest.approx(0.4)


def test_epochs_to_the_same_value() -> None:
    """The faster one reaches the slower one's final value earlier, whichever is named first."""
    for pair in ((FAST, SLOW), (SLOW, FAST)):
        both = compared(*pair)
        assert both.saved == {"fast": 20, "slow": 80}
        assert both.differs
        assert both.ahead == (FAST, SLOW)
        assert "4.0 times as many" in both.verdict


def test_one_run_each_is_not_judged() -> None:
    """Without repeats there is no interval, and the verdict says how to get one."""
    both = compared(*(SearchRuns(one.name, one.courses[:1]) for one in (FAST, SLOW)))
    assert both.budgets[-1].difference is None
    assert not both.differs
    assert "one run of fast and slow" in both.verdict


def test_equal_searches_do_not_differ() -> None:
    """The difference is called what it is."""
    noise = [0.2, 0.25, 0.22]
    one, other = (
        SearchRuns(name, tuple(course([10], [value]) for value in values))
        for name, values in (("one", noise), ("other", [0.21, 0.24, 0.23]))
    )
    both = compared(one, other)
    assert not both.differs
    assert "no significant difference" in both.verdict


def test_a_trial_whose_epochs_were_all_reused_costs_nothing() -> None:
    """A ratio to 0 epochs is left out; the rest is reported."""
    free = SearchRuns("free", (course([0], [0.1]),))
    both = compared(free, SearchRuns("slow", SLOW.courses[:1]))
    assert both.saved == {"free": 0, "slow": 80}
    assert "times as many" not in both.verdict


def test_runs_without_any_spread_are_not_judged() -> None:
    """Chance is unknown where all runs agree, and the verdict does not call it none."""
    pair = [
        SearchRuns(name, (course([10], [value]),) * 2) for name, value in (("a", 0.2), ("b", 0.3))
    ]
    both = compared(*pair)
    assert not both.differs
    assert "agree exactly" in both.verdict


def test_other_images_are_told() -> None:
    """Values measured on other images are not comparable."""
    assert "not directly comparable" in compared(FAST, SLOW, same_images=False).verdict


def test_test_accuracy_comes_second() -> None:
    """It is reported where every run has one, after the metric."""
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
    """As SciPy computes it."""
    chance = np.random.default_rng(sum(sizes))
    one, other = (chance.normal(0, size, size) for size in sizes)
    interval = welch(list(one), list(other))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert welch([1.0], [2.0, 3.0]) is None


def test_the_picture_says_what_the_verdict_says() -> None:
    """Its title is the first sentence."""
    both = compared(FAST, SLOW)
    picture = draw_searches(both)
    assert f"{picture.title}." == both.sentences[0]
    assert picture.render("png")[:4] == b"\x89PNG"
