"""Logistic regression with a penalty on its weights, which keeps them finite in any case."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

STEPS = 50
"""Newton's method takes about eight; more than this is left as it is."""
ENOUGH = 1e-9
"""How much less the loss would still become, in units of one image."""


@dataclass(frozen=True)
class Line:
    """What is added up to a score: a weight for each feature, and a constant."""

    constant: float
    weights: Floats

    def scores(self, features: Floats) -> Floats:
        """Return the score of each row: above 0 where the second side is more likely."""
        return np.asarray(features @ self.weights + self.constant)


def fit(features: Floats, sides: NDArray[np.floating], importance: Floats, penalty: float) -> Line:
    """Return the line that tells rows of one side (-1) from those of the other (+1).

    It has the least loss: that of each row by its importance, and half the penalty on the squared
    weights; the constant costs nothing, so that there must be rows of both sides.
    """
    rows = np.column_stack([np.ones(len(features)), features])
    costs = np.full(rows.shape[1], penalty)
    costs[0] = 0.0

    def loss(at: Floats) -> float:
        fitting = importance @ np.logaddexp(0, -sides * (rows @ at))
        return float(fitting + (costs * at) @ at / 2)

    found = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        wrong = expit(-sides * (rows @ found))
        slope = costs * found - rows.T @ (importance * sides * wrong)
        bend = (rows.T * (importance * wrong * (1 - wrong))) @ rows + np.diag(costs)
        step = -np.linalg.solve(bend, slope)
        promised = -float(slope @ step)
        # A parabola would keep half of the promise; hardly any of it kept is a step too far.
        least, length = loss(found), 1.0
        while promised > ENOUGH and loss(found + length * step) > least - 1e-4 * length * promised:
            length /= 2
        found += length * step
        if promised <= ENOUGH:
            break
    return Line(float(found[0]), found[1:])
