"""The penalised logistic regression, compared with scipy's minimiser and scikit-learn."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from tuner.check.regression import Floats, LinearScore, fit

CHANCE = np.random.default_rng(24)
PENALTY = 30.0


def drawn(rows: int, features: int, shift: float) -> tuple[Floats, Floats, Floats]:
    """Draw correlated features, two sides that differ by a shift, and weights."""
    sides = np.where(CHANCE.random(rows) < 0.3, -1.0, 1.0)
    sides[:2] = -1, 1
    values = CHANCE.standard_normal((rows, features)) @ CHANCE.standard_normal((features, features))
    values += shift * sides[:, None] * CHANCE.standard_normal(features)
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / spread, sides, np.where(sides > 0, 0.7, 1.6)


def loss(
    at: Floats, values: Floats, sides: Floats, importance: Floats, penalty: float
) -> tuple[float, Floats]:
    """Return the loss and its gradient, constant first."""
    margin = sides * (values @ at[1:] + at[0])
    slope = -importance * sides * expit(-margin)
    downhill = np.concatenate(([slope.sum()], values.T @ slope + penalty * at[1:]))
    fitting = float((importance * np.logaddexp(0, -margin)).sum())
    return fitting + penalty / 2 * float(at[1:] @ at[1:]), downhill


def together(line: LinearScore) -> Floats:
    """Concatenate constant and weights."""
    return np.concatenate(([line.constant], line.weights))


@pytest.mark.parametrize(
    ("rows", "features", "shift"),
    [(6, 80, 0.2), (30, 81, 0.0), (200, 80, 3.0), (1000, 80, 0.0), (1000, 80, 20.0), (500, 1, 50)],
)
@pytest.mark.parametrize("penalty", [PENALTY, 1e-3])
def test_line_is_the_one_of_the_least_loss(
    rows: int, features: int, shift: float, penalty: float
) -> None:
    """The gradient is zero and scipy finds no lower loss, even for separable data."""
    data = (*drawn(rows, features, shift), penalty)
    found = together(fit(*data))
    least, slope = loss(found, *data)
    assert np.abs(slope).max() < 1e-6
    start = np.zeros(features + 1)
    other = minimize(loss, start, data, jac=True, method="L-BFGS-B", options={"maxiter": 100}).x
    assert least <= loss(other, *data)[0] + 1e-9
    if penalty == PENALTY:
        assert found == pytest.approx(other, abs=1e-3)


def test_line_is_that_of_scikit_learn() -> None:
    """The fit is scikit-learn's, with C = 1 / penalty and an unpenalised constant."""
    values, sides, importance = drawn(400, 12, 0.3)
    found = fit(values, sides, importance, PENALTY)
    other = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10_000)
    other.fit(values, sides, sample_weight=importance)
    assert found.weights == pytest.approx(other.coef_[0], abs=1e-6)
    assert found.constant == pytest.approx(float(other.intercept_[0]), abs=1e-6)
    shown = CHANCE.standard_normal((50, 12))
    assert found.scores(shown) == pytest.approx(other.decision_function(shown), abs=1e-5)


def test_a_feature_that_says_all_has_a_finite_weight() -> None:
    """Three copies of a perfect feature share one finite weight, limited by the penalty alone."""
    sides = np.repeat([-1.0, 1.0], 25)
    found = fit(np.repeat(sides[:, None], 3, axis=1), sides, np.ones(50), 1e-6)
    assert found.weights == pytest.approx([found.weights[0]] * 3)
    assert 1 < found.weights[0] < 20
    assert found.constant == pytest.approx(0, abs=1e-9)


def test_steps_too_far_are_halved() -> None:
    """With outliers and weights of every size, Newton steps that go too far are halved."""
    random = np.random.default_rng(0)
    for _ in range(400):
        rows = int(random.integers(4, 40))
        sides = np.where(random.random(rows) < random.choice([0.05, 0.5]), -1.0, 1.0)
        sides[:2] = -1, 1
        values, importance = random.standard_cauchy((rows, 1)), 10 ** random.uniform(-3, 2, rows)
        data = (values, sides, importance, float(10 ** random.uniform(-6, -1)))
        _, slope = loss(together(fit(*data)), *data)
        assert np.abs(slope).max() < 1e-6 * importance.sum()


def test_features_that_say_nothing_weigh_nothing() -> None:
    """Constant features, as of blank images, get weight 0; the constant gives the class shares."""
    sides = np.repeat([-1.0, 1.0], [10, 30])
    found = fit(np.zeros((40, 5)), sides, np.ones(40), PENALTY)
    assert found.weights == pytest.approx([0.0] * 5)
    assert found.constant == pytest.approx(np.log(3))
