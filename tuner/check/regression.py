"""Ridge-penalised logistic regression; the penalty keeps the weights finite in all cases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

STEPS = 50
"""Newton's method needs about eight; it stops after this many."""
ENOUGH = 1e-9
"""It stops when the expected decrease of the loss is below this, in units of one image."""


@dataclass(frozen=True)
class LinearScore:
    """A fitted linear score: a weight for each feature, and an intercept."""

    constant: float
    weights: Floats

    def scores(self, features: Floats) -> Floats:
        """Return the score of each row: above 0 if the second side is more likely."""
        return np.asarray(features @ self.weights + self.constant)


def fit(
    features: Floats, sides: NDArray[np.floating], importance: Floats, penalty: float
) -> LinearScore:
    """Return the linear score that separates rows of one side (-1) from the other (+1).

    It minimises the importance-weighted logistic loss plus half the penalty on the squared
    weights. The intercept is not penalised, so there must be rows of both sides.
    """
    rows = np.column_stack([np.ones(len(features)), features])
    costs = np.full(rows.shape[1], penalty)
    costs[0] = 0.0

    def loss(at: Floats) -> float:
        fitting = importance @ np.logaddexp(0, -sides * (rows @ at))
        return float(fitting + (costs * at) @ at / 2)

    solution = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        wrong = expit(-sides * (rows @ solution))
        gradient = costs * solution - rows.T @ (importance * sides * wrong)
        hessian = (rows.T * (importance * wrong * (1 - wrong))) @ rows + np.diag(costs)
        step = -np.linalg.solve(hessian, gradient)
        decrement = -float(gradient @ step)
        # Backtracking line search (Armijo's rule): on a quadratic, the step achieves half of the
        # predicted decrease; if it achieves hardly any of it, the step is too long.
        least, length = loss(solution), 1.0
        while (
            decrement > ENOUGH
            and loss(solution + length * step) > least - 1e-4 * length * decrement
        ):
            length /= 2
        solution += length * step
        if decrement <= ENOUGH:
            break
    return LinearScore(float(solution[0]), solution[1:])
