"""Learning-rate schedules: pure functions of the epoch, the step and the curve so far.

Schedules have no state, so the rate of a step is the same whether the training
ran through or was resumed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tuner.records import Epoch
from tuner.train.recipe import Recipe

STEP_DECAY = 0.1
EXPONENTIAL_DECAY = 0.95
PLATEAU_DECAY = 0.1

CLIMB = 0.3
"""The share of all steps in which onecycle rises."""
START = 25.0
"""onecycle starts at `lr` over this,"""
END = 1e4
"""and ends at its start over this, as in the paper and in torch."""


@dataclass(frozen=True)
class Position:
    """The point of a training for which a rate is computed; epochs count from 1, steps from 0."""

    epoch: int
    step: int = 0
    steps: int = 1
    """Steps per epoch."""
    curve: tuple[Epoch, ...] = ()


Schedule = Callable[[Recipe, Position], float]


def rates(
    recipe: Recipe, epoch: int, steps: int, curve: tuple[Epoch, ...] = ()
) -> tuple[float, ...]:
    """Return the rates of an epoch's steps; if all are equal, a single rate."""
    count = steps if moves_within(recipe, epoch) else 1
    after = after_warm_up(recipe)
    return tuple(_rate(recipe, after, Position(epoch, step, steps, curve)) for step in range(count))


def moves_within(recipe: Recipe, epoch: int) -> bool:
    """Return whether the rate changes from step to step within an epoch."""
    return recipe.scheduler == "onecycle" or epoch <= recipe.warmup_epochs


def reads_curve(recipe: Recipe) -> bool:
    """Return whether rates depend on the training curve."""
    return recipe.scheduler == "plateau"


def rate(recipe: Recipe, position: Position) -> float:
    """Return the learning rate of a step: linear warm-up, then the recipe's schedule."""
    return _rate(recipe, after_warm_up(recipe), position)


def after_warm_up(recipe: Recipe) -> Recipe:
    """Return the recipe that the schedule follows once the warm-up is over."""
    if not recipe.warmup_epochs:
        return recipe
    return replace(recipe, epochs=max(1, recipe.epochs - recipe.warmup_epochs))


def _rate(recipe: Recipe, after: Recipe, position: Position) -> float:
    schedule, warm = SCHEDULES[recipe.scheduler], recipe.warmup_epochs
    if not warm:
        return schedule(recipe, position)
    if position.epoch > warm:
        curve = position.curve[warm:] if reads_curve(recipe) else ()
        moved = Position(position.epoch - warm, position.step, position.steps, curve)
        return schedule(after, moved)
    done = (position.epoch - 1) * position.steps + position.step + 1
    first = schedule(after, Position(1, steps=position.steps))
    return first * done / (warm * position.steps)


def constant(recipe: Recipe, _position: Position) -> float:
    """Return the same rate in every epoch."""
    return recipe.lr


def step(recipe: Recipe, position: Position) -> float:
    """Return the rate that drops by the factor `decay` every `step_size` epochs."""
    drops = (position.epoch - 1) // recipe.step_size
    return recipe.lr * float((recipe.decay or STEP_DECAY) ** drops)


def exponential(recipe: Recipe, position: Position) -> float:
    """Return the rate that falls by the factor `decay` every epoch."""
    return recipe.lr * float((recipe.decay or EXPONENTIAL_DECAY) ** (position.epoch - 1))


def cosine(recipe: Recipe, position: Position) -> float:
    """Return the rate that falls along half a cosine from `lr` to 0 over all epochs."""
    return recipe.lr * (1 + math.cos(math.pi * (position.epoch - 1) / recipe.epochs)) / 2


def onecycle(recipe: Recipe, position: Position) -> float:
    """Return the rate that rises along half a cosine to `lr`, then falls along one to almost 0.

    Momentum stays constant.
    """
    last = recipe.epochs * position.steps - 1
    place = (position.epoch - 1) * position.steps + position.step
    top = CLIMB * (last + 1) - 1
    if top > 0 and place <= top:
        return _between(recipe.lr / START, recipe.lr, place / top)
    return _between(recipe.lr, recipe.lr / START / END, (place - top) / (last - top))


def plateau(recipe: Recipe, position: Position) -> float:
    """Return the rate that drops by the factor `decay` whenever the validation loss plateaus.

    A plateau is `plateau_patience` epochs in a row without a lower loss; after a drop,
    the count restarts.
    """
    lowest, still, drops = math.inf, 0, 0
    for epoch in position.curve:
        still = 0 if epoch.val_loss < lowest else still + 1
        lowest = min(lowest, epoch.val_loss)
        if still == recipe.plateau_patience:
            drops, still = drops + 1, 0
    return recipe.lr * float((recipe.decay or PLATEAU_DECAY) ** drops)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "onecycle": onecycle,
    "plateau": plateau,
}


def course(recipe: Recipe, epoch: int, steps: int) -> tuple[Sequence[float], str]:
    """Return what determines an epoch's rates before training: the rates, or a rule.

    A training is a function of its settings, so even if rates follow the curve, they are
    equal when the rule and everything else is.
    """
    if not reads_curve(recipe):
        return rates(recipe, epoch, steps), ""
    decay = recipe.decay or PLATEAU_DECAY
    rule = f"plateau {decay.hex()} {recipe.plateau_patience} after {recipe.warmup_epochs}"
    return (recipe.lr,), rule


def _between(start: float, end: float, way: float) -> float:
    """Interpolate from start (way 0) to end (way 1) along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * way))
