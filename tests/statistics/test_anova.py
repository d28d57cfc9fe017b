"""Means over seeds and images: the known formulas in limiting cases, correct errors in between."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import studentized_range, t, ttest_ind, ttest_rel

from benchmarks.calibration import SIZES
from benchmarks.worlds import WORLDS, Shape, draw
from tuner.statistics.anova import Panel, VarianceComponents
from tuner.statistics.clusters import Clusters
from tuner.statistics.multiple_comparisons import against, against_best
from tuner.statistics.power import Observed, plan, power
from tuner.statistics.proportions import wilson
from tuner.statistics.unpaired import Group, Groups
from tuner.statistics.variance import Spread

Array = NDArray[np.float64]


def whole(values: Array) -> Panel:
    """Return a panel of figures without images."""
    return Panel((values[:, :, None],), counts_images=False)


@given(st.integers(1, 60), st.integers(2, 6))
@settings(max_examples=30, deadline=None)
def test_one_unknown_variance_gives_students_t_and_tukeys_range(freedom: int, levels: int) -> None:
    """With a single variance the intervals are Student's t and Tukey's range, to three digits."""
    spread = Spread.of(1.0, freedom, 0.0, 0.0)
    assert spread.half_width() == pytest.approx(t.ppf(0.975, freedom), rel=2e-3)
    if freedom > 1:
        wanted = studentized_range.ppf(0.95, levels, freedom) / 2**0.5
        assert spread.half_width(levels) == pytest.approx(wanted, rel=5e-3)


def test_two_levels_without_images_are_a_paired_t_test() -> None:
    """The p value and the interval are scipy's."""
    chance = np.random.default_rng(1)
    values = chance.standard_normal((2, 7))
    apart = whole(values).difference(0, 1)
    wanted = ttest_rel(values[0], values[1])
    limits = wanted.confidence_interval()
    assert apart.p_value() == pytest.approx(wanted.pvalue, rel=5e-3)
    found = apart.interval()
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high), rel=5e-3)


def test_two_groups_without_images_are_students_t_test() -> None:
    """Unpaired trials are compared as in scipy with equal variances."""
    chance = np.random.default_rng(2)
    one, other = chance.standard_normal(9), chance.standard_normal(6)
    groups = Groups((Group(one, (), (), ()), Group(other, (), (), ())), counts_images=False)
    found = groups.difference(0, 1)
    assert found.value == pytest.approx(one.mean() - other.mean())
    # Never narrower than by the two groups' own variances (Welch).
    assert found.p_value() >= ttest_ind(one, other).pvalue - 1e-3


def test_one_value_per_level_leaves_no_interval() -> None:
    """One value per level gives no limits and no evidence."""
    panel = whole(np.array([[0.9], [0.5]]))
    assert panel.mean(0).value == 0.9
    assert not panel.mean(0).bounded
    apart = panel.difference(0, 1)
    assert apart.p_value() == 1.0
    assert not apart.interval().bounded
    one, two = (Group(np.array(values), (), (), ()) for values in ([0.9], [0.5, 0.6]))
    assert not Groups((one, two), counts_images=False).mean(0).bounded
    assert Groups((one, two), counts_images=False).mean(1).bounded
    assert Groups((one, two), counts_images=False).difference(0, 1).interval().bounded
    assert not Groups((one, one), counts_images=False).difference(0, 1).interval().bounded


def test_one_seed_leaves_wilsons_interval() -> None:
    """With one seed, the interval covers only the images."""
    hits = np.zeros((1, 1, 200))
    hits[..., :190] = 1
    found = Panel((hits,)).mean(0)
    wanted = wilson(190, 200)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=2e-4)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_equal_is_not_certainty(right: float) -> None:
    """If all images of all seeds are right, or wrong, the interval still has a width."""
    panel = Panel((np.full((3, 4, 200), right),))
    mean = panel.mean(0)
    assert mean.value == right
    assert 0.01 < mean.high - mean.low < 0.03
    verdict = against_best(panel, larger=True)
    assert not any(one.differs for one in verdict.others)
    assert all(one.difference.low < 0 < one.difference.high for one in verdict.others)


@pytest.mark.parametrize("each", [3, 7, 13])
def test_patients_who_are_all_alike_have_an_interval(each: int) -> None:
    """If all patients have the same share under every seed, rounding is not taken for variance."""
    clusters = Clusters.of([f"p{at // each}" for at in range(77 * each)])
    right = np.tile((np.arange(each) < each - 1).astype(float), 77)
    panel = Panel((clusters.linearise(np.tile(right, (1, 5, 1))),), clusters=(clusters,))
    found = panel.mean(0)
    assert found.value == pytest.approx(1 - 1 / each)
    assert found.low <= found.value <= found.high


def test_settings_that_like_different_images_are_not_settled_by_seeds() -> None:
    """A paired t test over seeds alone is certain of differences that other images reverse."""
    chance = np.random.default_rng(4)
    liking = chance.random((2, 1, 400)) < 0.8
    noise = chance.random((2, 10, 400)) < 0.02
    panel = Panel(((liking ^ noise).astype(float),))
    alone = ttest_rel(panel.by_seed[0], panel.by_seed[1]).pvalue
    assert alone < 1e-3
    assert panel.difference(0, 1).p_value() > 0.05


def test_a_gap_has_the_images_of_both_splits_in_it() -> None:
    """The variances of validation and test images add up."""
    chance = np.random.default_rng(6)
    val = (chance.random((1, 1, 300)) < 0.95).astype(float)
    test = (chance.random((1, 1, 100)) < 0.75).astype(float)
    found = Panel((val, -test)).mean(0)
    wanted = val.var(ddof=1) / 300 + test.var(ddof=1) / 100 + 300.0**-2 + 100.0**-2
    assert found.value == pytest.approx(val.mean() - test.mean())
    assert found.half_width == pytest.approx(1.96 * wanted**0.5, rel=1e-3)


def test_verdicts_without_an_effect_are_wrong_in_5_of_100_studies_at_most() -> None:
    """600 studies of many sizes in which nothing differs: a short run of `make calibration`."""
    chance, wrong, covered = np.random.default_rng(7), 0, 0
    studies = 600
    for at in range(studies):
        sizes = SIZES[at % len(SIZES)]
        panel = draw(Shape(WORLDS[at % len(WORLDS)], *sizes, 200), chance)
        wrong += any(one.differs for one in against_best(panel, larger=True).others)
        apart = panel.difference(0, 1).interval()
        covered += apart.low <= 0 <= apart.high
    assert wrong <= 36, "6 in 100"
    assert covered >= 0.93 * studies


def test_a_level_that_scatters_is_not_taken_for_one_of_the_quiet_ones() -> None:
    """A difference from a level with large variance is as uncertain as that level."""
    chance = np.random.default_rng(9)
    values = 0.01 * chance.standard_normal((5, 6))
    values[0] = chance.standard_normal(6)
    panel = whole(values)
    assert panel.difference(0, 1).spread.standard_error > 0.8 * values[0].std() / 6**0.5


def test_best_is_held_against_all_and_the_far_one_is_told() -> None:
    """Two levels tie, one is worse; the verdicts agree with their intervals."""
    chance = np.random.default_rng(10)
    values = 0.01 * chance.standard_normal((3, 6)) + np.array([[0.9], [0.9], [0.7]])
    verdict = against_best(whole(values), larger=True)
    assert verdict.reference in (0, 1)
    assert set(verdict.tied) == {0, 1}
    told = {one.level: one for one in verdict.others}
    assert told[2].differs
    assert told[2].difference.high < 0
    smaller = against_best(whole(values), larger=False)
    assert smaller.reference == 2
    assert smaller.tied == (2,)


def test_named_reference_is_held_against_each() -> None:
    """Every other level is compared with the reference once, corrected by Holm."""
    chance = np.random.default_rng(11)
    values = 0.01 * chance.standard_normal((4, 5)) + np.array([[0.9], [0.8], [0.9], [0.9]])
    verdict = against(whole(values), 1, larger=True)
    assert verdict.reference == 1
    assert {one.level for one in verdict.others} == {0, 2, 3}
    for one in verdict.others:
        assert one.differs
        assert one.difference.low > 0


def test_plan_keeps_its_promise() -> None:
    """With the planned seeds the planned difference is found about 8 times in 10."""
    chance = np.random.default_rng(12)

    def study(seeds: int) -> Panel:
        values = 0.02 * chance.standard_normal((2, seeds))
        values[1] -= 0.02
        return whole(values)

    pilot = study(400)
    made = plan(Observed(pilot.parts(range(2)), 400, 0, 2), 0.02)
    assert made.seeds is not None
    told = [against_best(study(made.seeds), larger=True) for _ in range(300)]
    found = np.mean([one.tied == (0,) for one in told])
    assert 0.7 < found < 0.9


def test_plan_says_how_rough_it_is() -> None:
    """The plan's range is wide from 3 seeds and narrow from 300, and contains the truth."""
    chance = np.random.default_rng(14)
    truth = plan(
        Observed(VarianceComponents(2 * 0.02**2 / 300, 299, 0.0, 0.0), 300, 0, 2), 0.02
    ).seeds
    assert truth is not None
    held, widths = 0, {}
    for seeds in (3, 300):
        for _ in range(40):
            pilot = whole(0.02 * chance.standard_normal((2, seeds)))
            made = plan(Observed(pilot.parts(range(2)), seeds, 0, 2), 0.02)
            assert made.low is not None
            high = 1000 if made.high is None else made.high
            assert made.low <= (made.seeds or 1000) <= high
            held += made.low <= truth <= high
            widths[seeds] = high / made.low
    assert held >= 72
    assert widths[3] > 5
    assert widths[300] < 2


def test_plan_asks_for_images_where_seeds_would_not_do() -> None:
    """If the uncertainty comes from images, the plan asks for images, not seeds."""
    chance = np.random.default_rng(13)
    liking = (chance.random((3, 1, 200)) < 0.8).astype(float)
    panel = Panel((np.repeat(liking, 5, axis=1),))
    seen = Observed(panel.parts(range(3)), 5, 200, 3, panel.grain)
    made = plan(seen, 0.01)
    assert made.images is not None
    assert made.images > 200
    assert power(seen.with_more(20, made.images / 200), 0.01) == pytest.approx(0.8, abs=0.03)
    assert power(seen.with_more(1000), 0.01) < 0.8


def test_shares_of_own_images_are_never_without_spread() -> None:
    """With two equal differences a share's step of one image still counts as variance."""
    same = (np.array([[[0.90], [0.85]], [[0.85], [0.80]]]),)
    assert Panel(same, False).difference(0, 1).p_value() < 1e-6
    assert Panel(same, False, own_images=20).difference(0, 1).p_value() > 0.05
    far = (np.array([[[0.90], [0.90]], [[0.30], [0.30]]]),)
    assert Panel(far, False, own_images=200).difference(0, 1).p_value() < 0.001
    assert Panel(far, False, own_images=200).take([0, 1]).own_images == 200


def test_equal_settings_with_own_images_are_seldom_told_apart() -> None:
    """Of 400 pairs of equal settings on 20 images per seed, few are called different."""
    chance = np.random.default_rng(4)
    wrong = 0
    for _ in range(400):
        shares = chance.binomial(20, 0.8, (2, 2, 1)) / 20
        wrong += Panel((shares,), False, own_images=20).difference(0, 1).p_value() < 0.05
    assert wrong <= 0.08 * 400
