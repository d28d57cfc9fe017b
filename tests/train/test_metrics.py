"""Figures agree with independent computations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import recall_score

from tuner.train.metrics import area_under_curve, is_right, score


def predictions(logits: list[list[float]]) -> NDArray[np.float32]:
    """Return the log-probabilities of logits."""
    return np.asarray(log_softmax(np.array(logits), axis=1), dtype=np.float32)


def pair_count(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve by comparing every pair."""
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[positive]
        for n in scores[~positive]
    ]
    return float(np.mean(wins))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_area_counts_pairs_with_ties_as_half(cases: list[tuple[int, bool]]) -> None:
    """The binary area equals the brute-force count of pairs, ties included."""
    labels = np.array([int(label) for _, label in cases])
    area = area_under_curve(predictions([[0.0, float(z)] for z, _ in cases]), labels)
    if len(set(labels.tolist())) < 2:
        assert math.isnan(area)
        return
    scores = np.array([float(z) for z, _ in cases])
    assert area == pytest.approx(pair_count(scores, labels == 1))


def test_area_of_several_classes_is_the_one_vs_rest_mean() -> None:
    """With three classes, the area is the unweighted mean over the classes."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    given_predictions = predictions((random.normal(size=(60, 3)) + np.eye(3)[labels]).tolist())
    each = [pair_count(given_predictions[:, k].astype(np.float64), labels == k) for k in range(3)]
    assert area_under_curve(given_predictions, labels) == pytest.approx(np.mean(each))


def test_sure_predictions_still_have_an_order() -> None:
    """Log-odds rank cases whose probability of class 1 rounds to one."""
    sure = predictions([[0.0, 30.0], [0.0, 40.0]])
    assert area_under_curve(sure, np.array([0, 1])) == 1.0


def test_scores_agree_with_direct_computation() -> None:
    """NLL, accuracy and balanced accuracy equal numpy's."""
    random = np.random.default_rng(1)
    labels = (random.random(200) < 0.2).astype(np.int64)
    logits = random.normal(size=(200, 2)) + np.eye(2)[labels]
    scores = score(predictions(logits.tolist()), labels)
    guess = logits.argmax(axis=1)
    recall = [(guess[labels == k] == k).mean() for k in (0, 1)]
    direct = -log_softmax(logits, axis=1)[np.arange(200), labels].mean()
    assert scores.loss == pytest.approx(direct, rel=1e-6)
    assert scores.acc == pytest.approx((guess == labels).mean())
    assert scores.balanced_acc == pytest.approx(np.mean(recall))
    assert scores.balanced_acc != pytest.approx(scores.acc)


def test_a_tie_is_class_one() -> None:
    """p >= 0.5 means class 1."""
    tie = predictions([[0.0, 0.0]])
    assert is_right(tie, np.array([1])).tolist() == [True]
    assert is_right(tie, np.array([0])).tolist() == [False]


def test_a_prediction_that_is_no_number_is_wrong() -> None:
    """NaN is never counted as right, whatever the label, and has no area."""
    broken = np.full((2, 2), np.nan, dtype=np.float32)
    scores = score(broken, np.array([0, 1]))
    assert scores.acc == 0
    assert math.isnan(scores.loss)
    assert math.isnan(scores.auc)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=40))
def test_sensitivity_and_specificity_are_recalls(cases: list[tuple[int, int]]) -> None:
    """With two classes they are the recalls of 1 and of 0; with three the one-vs-rest means."""
    for classes in (2, 3):
        labels = np.array([label % classes for label, _ in cases])
        taken = np.array([taken % classes for _, taken in cases])
        found = score(predictions((4.0 * np.eye(classes)[taken]).tolist()), labels)
        if len(set(labels.tolist())) < classes:
            assert math.isnan(found.sensitivity)
            assert math.isnan(found.specificity)
            continue
        recalls = recall_score(labels, taken, average=None, zero_division=0.0)
        others = [recall_score(labels != k, taken != k) for k in range(classes)]
        if classes == 2:
            assert (found.sensitivity, found.specificity) == (recalls[1], recalls[0])
        else:
            assert found.sensitivity == pytest.approx(np.mean(recalls))
            assert found.specificity == pytest.approx(np.mean(others))


def test_a_prediction_that_is_no_number_is_wrong_in_every_way() -> None:
    """A NaN prediction is neither a true positive nor a true negative of any class."""
    logits = predictions([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    logits[2] = np.nan
    found = score(logits, np.array([1, 0, 0]))
    assert (found.sensitivity, found.specificity) == (1.0, 0.5)


def test_there_is_one_rule_for_the_class_of_a_prediction() -> None:
    """Ties go to the higher class everywhere: figures, tables, calibration and saved networks."""
    from tuner.records import most_probable
    from tuner.statistics.calibration import reliability

    logs = np.log(np.array([[0.5, 0.5], [0.4, 0.6], [0.5, 0.5]], dtype=np.float32))
    labels = np.array([1, 1, 0])
    assert most_probable(logs).tolist() == [1, 1, 1]
    assert is_right(logs, labels).tolist() == [True, True, False]
    bins = reliability(np.exp(logs.astype(np.float64)), labels).bins
    assert sum(one.images * one.accuracy for one in bins) == 2
