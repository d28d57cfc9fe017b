"""Images of one patient: values by patient, and the mean and variance over patients."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.calibration import mark_null
from benchmarks.worlds import PATIENTS, WORLDS, Shape, draw
from tuner.statistics.anova import Panel
from tuner.statistics.auc import delong, delong_difference, placements
from tuner.statistics.bootstrap import mean_difference
from tuner.statistics.clusters import Clusters
from tuner.statistics.multiple_comparisons import against, against_best
from tuner.statistics.power import Observed, plan
from tuner.statistics.proportions import mcnemar, newcombe_paired, share_of, wilson
from tuner.statistics.sequential import compare_with_best

Array = NDArray[np.float64]
PEOPLE = st.lists(st.integers(0, 9), min_size=3, max_size=60)


def of(patients: list[int]) -> Clusters:
    """Return clusters from a list of numbers."""
    return Clusters.of([f"p{one}" for one in patients])


def test_a_name_is_a_patient_and_no_name_is_nobody_else() -> None:
    """Images without a name each count as a separate patient."""
    clusters = Clusters.of(["ann", "", "bob", "ann", ""])
    assert clusters.of_image.tolist() == [0, 1, 2, 0, 3]
    assert (clusters.images, clusters.patients, clusters.single) == (5, 4, False)
    assert clusters.take(np.array([False, True, True, False, True])).single


@given(PEOPLE, st.integers(0, 2**31))
def test_values_by_patient_have_the_mean_of_the_images(people: list[int], seed: int) -> None:
    """For any sizes; they are linear, so that differences stay differences."""
    clusters = of(people)
    one, other = np.random.default_rng(seed).normal(3, 1, (2, len(people)))
    assert clusters.linearise(one).shape == (clusters.patients,)
    assert clusters.linearise(one).mean() == pytest.approx(one.mean(), rel=1e-12)
    apart = clusters.linearise(one) - clusters.linearise(other)
    np.testing.assert_allclose(clusters.linearise(one - other), apart, atol=1e-10)


@given(PEOPLE, st.integers(0, 2**31))
def test_the_variance_is_the_jackknife_s(people: list[int], seed: int) -> None:
    """The variance is the spread of the means without one patient each."""
    clusters = of(people)
    if clusters.patients < 2:
        return
    values = np.random.default_rng(seed).normal(size=len(people))
    without = np.array(
        [values[clusters.of_image != one].mean() for one in range(clusters.patients)]
    )
    count = clusters.patients
    jackknife = (count - 1) / count * float(((without - without.mean()) ** 2).sum())
    assert clusters.variance(values) == pytest.approx(jackknife, rel=1e-9, abs=1e-15)


def test_equal_patients_count_by_their_means() -> None:
    """With 5 images each a patient's value is the mean of its images."""
    values = np.random.default_rng(0).normal(size=40)
    clusters = of([n // 5 for n in range(40)])
    np.testing.assert_allclose(clusters.linearise(values), values.reshape(8, 5).mean(axis=1))
    assert clusters.freedom == pytest.approx(7)
    assert clusters.effective == pytest.approx(8)


@pytest.mark.parametrize("sizes", [(3, 1, 1, 1), (2, 3, 4, 5, 6), (40, 1, 2, 1, 2, 1), (7, 2)])
def test_degrees_of_freedom_are_bell_and_mccaffrey_s(sizes: tuple[int, ...]) -> None:
    """They match the moments of a quadratic form in the patients' sums, by full matrices."""
    clusters = Clusters(np.repeat(np.arange(len(sizes)), sizes))
    share = np.array(sizes) / sum(sizes)
    residuals = np.eye(len(sizes)) - np.outer(share, np.ones(len(sizes)))
    weights = np.diag(1 / (1 - share) ** 2)
    form = residuals.T @ weights @ residuals @ np.diag(share**2)
    wanted = np.trace(form) ** 2 / np.trace(form @ form)
    assert clusters.freedom == pytest.approx(max(1.0, wanted))


def test_a_giant_patient_leaves_one_degree_of_freedom() -> None:
    """If nine of ten images are one patient's, one degree of freedom is left."""
    clusters = Clusters(np.concatenate([np.zeros(360, int), np.arange(1, 41)]))
    assert 1.0 <= clusters.freedom < 1.1
    assert clusters.largest == 0.9
    panel = Panel((clusters.linearise(_panel_values(400)),), clusters=(clusters,))
    wide = panel.difference(0, 1).interval().half_width
    assert wide > 2 * Panel((_panel_values(400),)).difference(0, 1).interval().half_width


def test_one_patient_says_nothing() -> None:
    """With one patient no interval is narrower than the whole range."""
    clusters = Clusters(np.zeros(400, int))
    panel = Panel((clusters.linearise(_panel_values(400)),), clusters=(clusters,))
    assert panel.images == 400
    assert panel.patients == 1
    assert panel.difference(0, 1).interval().half_width > 1
    share = share_of(np.arange(400) < 300, clusters)
    assert share.high - share.low > 0.7


def _panel_values(images: int) -> Array:
    chance = np.random.default_rng(4)
    return (chance.random((3, 5, images)) < 0.8).astype(float)


Question = Callable[[Panel], object]


def _plan(panel: Panel) -> tuple[object, ...]:
    seen = Observed(
        panel.parts(range(3)), panel.seeds, panel.images, 3, panel.grain, panel.patients
    )
    found = plan(seen, 0.002)
    return found.seeds, found.images, found.low, found.high


QUESTIONS: dict[str, Question] = {
    "best": lambda panel: against_best(panel, larger=True),
    "reference": lambda panel: against(panel, 1, larger=True),
    "means": lambda panel: [panel.mean(level) for level in range(3)],
    "race": lambda panel: compare_with_best(panel, 0, 2, 0.05, larger=True),
    "plan": _plan,
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_one_image_a_patient_is_today_s_answer(question: str, world: object) -> None:
    """A panel by patient with single images is the panel by image, to the last bit."""
    shape = Shape(world, 3, 4, 300)  # type: ignore[arg-type]
    plain = draw(shape, np.random.default_rng(9))
    clusters = Clusters(np.random.default_rng(1).permutation(300))
    panel = Panel((clusters.linearise(plain.blocks[0]),), clusters=(clusters,))
    assert QUESTIONS[question](panel) == QUESTIONS[question](plain)


def _two(images: int = 60) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    chance = np.random.default_rng(3)
    return chance.random(images) < 0.9, chance.random(images) < 0.7


def test_two_networks_on_single_images_are_today_s_answer() -> None:
    """Exact test, intervals, bootstrap and areas equal those by image, to the last bit."""
    one, other = _two()
    single = Clusters(np.arange(60))
    mine, plain = mcnemar(one, other, single), mcnemar(one, other)
    assert (mine.p_value, mine.difference, mine.only_one) == (
        *(plain.p_value, plain.difference, plain.only_one),
    )
    assert share_of(one, single) == share_of(one, None) == wilson(int(one.sum()), 60)
    scores, others = np.random.default_rng(5).normal(size=(2, 60))
    truth = np.arange(60) % 2 == 0
    assert mean_difference(scores, others, single) == mean_difference(scores, others)
    assert delong(scores, truth, single) == delong(scores, truth)
    assert delong_difference(scores, others, truth, single) == (
        delong_difference(scores, others, truth)
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_test_over_patients_throws_all_signs(seed: int) -> None:
    """The p value is that of all sign patterns of ten patients' balances."""
    chance = np.random.default_rng(seed)
    one, other = chance.random((2, 40)) < np.array([[0.9], [0.6]])
    clusters = Clusters(np.concatenate([np.arange(10), chance.integers(0, 10, 30)]))
    balances = np.bincount(clusters.of_image, one * 1.0 - other)
    thrown = [abs(float(np.dot(signs, balances))) for signs in product((-1, 1), repeat=10)]
    wanted = np.mean(np.array(thrown) >= abs(balances.sum()) - 1e-9)
    assert mcnemar(one, other, clusters).p_value == pytest.approx(wanted)


def test_a_patient_who_decides_alone_decides_nothing() -> None:
    """50 images of one patient that only one network has right are not significant."""
    one = np.ones(200, bool)
    other = np.arange(200) >= 50
    clusters = Clusters(np.concatenate([np.zeros(50, int), np.arange(1, 151)]))
    assert mcnemar(one, other).p_value < 1e-10
    found = mcnemar(one, other, clusters)
    assert found.p_value == 1.0
    assert found.difference.low <= 0 <= found.difference.high
    assert found.patients == 151


def test_equal_copies_are_worth_one_image_each() -> None:
    """With 5 copies of each image the interval is, but for t, that of the images."""
    hits = np.random.default_rng(2).random(500) < 0.8
    clusters = Clusters(np.repeat(np.arange(500), 5))
    copied, plain = share_of(np.repeat(hits, 5), clusters), share_of(hits, None)
    assert copied.low == pytest.approx(plain.low, abs=3e-4)
    assert copied.high == pytest.approx(plain.high, abs=3e-4)
    twice = newcombe_paired(np.repeat(hits, 5), np.repeat(~hits, 5), clusters)
    once = newcombe_paired(hits, ~hits)
    assert twice.low == pytest.approx(once.low, abs=5e-3)


def test_the_area_s_variance_is_obuchowski_s() -> None:
    """For patients with images of both classes: her three sums over patients (1997)."""
    chance = np.random.default_rng(8)
    patients, each = 30, 4
    truth = np.tile([True, True, False, False], patients)
    scores = chance.normal(size=(patients, 1)) + chance.normal(size=(patients, each))
    scores = scores.ravel() + truth
    clusters = Clusters(np.repeat(np.arange(patients), each))
    found = delong(scores, truth, clusters)
    placed = placements(scores, truth)
    assert found is not None
    assert placed is not None
    ill = (placed.positives - placed.area).reshape(patients, 2).sum(axis=1)
    well = (placed.negatives - placed.area).reshape(patients, 2).sum(axis=1)
    m = n = patients * 2
    i = patients
    s10 = i / ((i - 1) * m) * (ill**2).sum()
    s01 = i / ((i - 1) * n) * (well**2).sum()
    s11 = i / (i - 1) * (ill * well).sum()
    variance = s10 / m + s01 / n + 2 / (m * n) * s11
    area = found.value
    logit = np.log(area / (1 - area))
    from scipy.stats import t

    parts = np.array([s10 / m, s01 / n])
    freedom = parts.sum() ** 2 / (parts**2 / (i - 1)).sum()
    half = t.ppf(0.975, freedom) * np.sqrt(variance) / (area * (1 - area))
    assert found.low == pytest.approx(1 / (1 + np.exp(-(logit - half))))
    assert found.high == pytest.approx(1 / (1 + np.exp(-(logit + half))))


def test_settings_that_prefer_patients_are_not_told_apart_by_them() -> None:
    """Without effects a third of studies is significant by image, at most 5 in 100 by patient."""
    world = PATIENTS[0]
    assert (world.by_patient, world.sizes) == (1.0, "equal")
    studies = 100

    def wrong(*, by_patient: bool) -> float:
        chance = np.random.default_rng(11)
        panels = [
            draw(Shape(world, 4, 5, 400), chance, by_patient=by_patient) for _ in range(studies)
        ]
        told = [any(one.differs for one in against_best(p, larger=True).others) for p in panels]
        return float(np.mean(told))

    assert wrong(by_patient=False) > 0.15
    assert wrong(by_patient=True) <= 0.06
    marks = dict(mark_null(Shape(world, 4, 5, 400), np.random.default_rng(0)))
    assert set(marks) >= {"any different", "mean covered", "difference covered"}
