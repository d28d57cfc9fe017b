"""The built-in metrics agree with scikit-learn, and with the statistics' values by image."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from tuner.records import READY
from tuner.results.measures import brier_parts, f1_parts
from tuner.train.ready_metrics import FUNCTIONS, brier, f1, sensitivity_at_95_specificity

CLASSES = pytest.mark.parametrize("classes", [2, 3, 5])


def predicted(classes: int, images: int = 300) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and correlated probabilities."""
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, images)
    logits = random.normal(0, 1, (images, classes)) + 1.2 * np.eye(classes)[labels]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, shares


def test_every_ready_metric_has_a_function() -> None:
    """Every metric that a study may name can be computed."""
    assert set(FUNCTIONS) == set(READY)


@CLASSES
def test_f1_is_that_of_scikit_learn(classes: int) -> None:
    """It is that of class 1 for two classes, else the macro mean; 0 for a class never predicted."""
    labels, shares = predicted(classes)
    average = "binary" if classes == 2 else "macro"
    taken = shares.argmax(axis=1)
    assert f1(labels, shares) == pytest.approx(sklearn.f1_score(labels, taken, average=average))
    zeros = np.zeros(4, np.int64)
    assert f1(zeros, np.eye(2)[zeros]) == 0


@CLASSES
def test_sensitivity_at_95_specificity_is_the_best_point_of_the_roc_curve(classes: int) -> None:
    """The largest true positive rate whose false positive rate is 5% at most."""
    labels, shares = predicted(classes)
    wanted = []
    for k in [1] if classes == 2 else range(classes):
        false, true, _ = sklearn.roc_curve(labels == k, shares[:, k], drop_intermediate=False)
        wanted.append(true[false <= 0.05 + 1e-12].max())
    assert sensitivity_at_95_specificity(labels, shares) == pytest.approx(np.mean(wanted))


def test_sensitivity_counts_whole_images() -> None:
    """One of 20 negatives may be above the threshold; positives tied with the next do not count."""
    labels = np.array([0] * 20 + [1] * 4)
    scores = np.array([0.9, 0.8, *np.linspace(0.1, 0.5, 18), 0.95, 0.85, 0.8, 0.7])
    shares = np.column_stack([1 - scores, scores])
    assert sensitivity_at_95_specificity(labels, shares) == 0.5
    # With 19 negatives none may be above.
    assert sensitivity_at_95_specificity(labels[1:], shares[1:]) == 0.5
    assert np.isnan(sensitivity_at_95_specificity(labels[:20], shares[:20]))


@CLASSES
def test_brier_is_the_squared_error_over_classes(classes: int) -> None:
    """It is twice scikit-learn's for two classes, because that counts only one of them."""
    labels, shares = predicted(classes)
    wanted = ((shares - np.eye(classes)[labels]) ** 2).sum(axis=1).mean()
    assert brier(labels, shares) == pytest.approx(wanted)
    if classes == 2:
        half = sklearn.brier_score_loss(labels, shares[:, 1])
        assert brier(labels, shares) == pytest.approx(2 * half)


@CLASSES
def test_values_by_image_have_the_metric_as_their_mean(classes: int) -> None:
    """So the judged figure is the one in tables."""
    labels, shares = predicted(classes)
    logs = np.log(shares).astype(np.float32)
    exact = np.exp(logs.astype(np.float64))
    for parts, function in ((f1_parts(logs, labels), f1), (brier_parts(logs, labels), brier)):
        assert parts is not None
        assert parts.mean() == pytest.approx(function(labels, exact), abs=1e-12)


@CLASSES
def test_values_by_image_vary_as_the_metric_does(classes: int) -> None:
    """The standard error of linearised F1 is that of a bootstrap over images."""
    labels, shares = predicted(classes)
    logs = np.log(shares).astype(np.float32)
    parts = f1_parts(logs, labels)
    assert parts is not None
    random = np.random.default_rng(0)
    draws = [random.integers(0, len(labels), len(labels)) for _ in range(2000)]
    spread = np.std([f1(labels[drawn], shares[drawn]) for drawn in draws])
    assert parts.std() / np.sqrt(len(labels)) == pytest.approx(spread, rel=0.1)


def test_predictions_that_are_no_numbers_have_no_values_by_image() -> None:
    """As with the AUC, the trainer stores no figure for them."""
    logs = np.full((3, 2), np.nan, np.float32)
    labels = np.array([0, 1, 1])
    assert f1_parts(logs, labels) is None
    assert brier_parts(logs, labels) is None
