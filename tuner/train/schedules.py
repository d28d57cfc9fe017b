"""Learning-rate schedules: pure functions of the epoch, the step and the curve so far.

No schedule keeps anything between calls, so the rate of an epoch is the same
whether the training reached it in one go or was resumed on the way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.records import Epoch
from tuner.train.recipe import Recipe

STEP_DECAY = 0.1
EXPONENTIAL_DECAY = 0.95


@dataclass(frozen=True)
class Position:
    """Where a training stands when it asks for a rate; epochs count from 1, steps from 0."""

    epoch: int
    step: int = 0
    curve: tuple[Epoch, ...] = ()


Schedule = Callable[[Recipe, Position], float]


def rate(recipe: Recipe, position: Position) -> float:
    """Return the learning rate of a step under the recipe's schedule."""
    return SCHEDULES[recipe.scheduler](recipe, position)


def constant(recipe: Recipe, _position: Position) -> float:
    """Return the same rate in every epoch."""
    return recipe.lr


def step(recipe: Recipe, position: Position) -> float:
    """Return the rate after one drop by `decay` every `step_size` epochs."""
    drops = (position.epoch - 1) // recipe.step_size
    return recipe.lr * float((recipe.decay or STEP_DECAY) ** drops)


def exponential(recipe: Recipe, position: Position) -> float:
    """Return the rate after one factor `decay` an epoch."""
    return recipe.lr * float((recipe.decay or EXPONENTIAL_DECAY) ** (position.epoch - 1))


def cosine(recipe: Recipe, position: Position) -> float:
    """Return half a cosine's fall from `lr` to 0 over all epochs of the recipe."""
    return recipe.lr * (1 + math.cos(math.pi * (position.epoch - 1) / recipe.epochs)) / 2


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
}
