"""Schedules are pure functions that agree with torch's stateful ones."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, StepLR

from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import SCHEDULES, Position, rate

RATES = st.floats(1e-6, 1.0)
DECAYS = st.floats(0.01, 1.0)
EPOCHS = st.integers(1, 60)


def recipe(scheduler: str, lr: float, epochs: int, step_size: int = 10, decay: float = 0) -> Recipe:
    """Return a recipe that differs from the defaults in its schedule only."""
    return replace(
        read_recipe({}), scheduler=scheduler, lr=lr, epochs=epochs, step_size=step_size, decay=decay
    )


def optimizer(lr: float) -> SGD:
    """Return an optimizer for a torch scheduler to drive."""
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def torch_rates(scheduler: LRScheduler, epochs: int) -> list[float]:
    """Return the rates that torch's scheduler gives when it is stepped once an epoch."""
    rates = []
    for _ in range(epochs):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def our_rates(chosen: Recipe) -> list[float]:
    """Return our rates of all epochs, asked for backwards: order must not matter."""
    rates = [rate(chosen, Position(epoch)) for epoch in range(chosen.epochs, 0, -1)]
    return rates[::-1]


@settings(deadline=None, max_examples=40)
@given(lr=RATES, epochs=EPOCHS, step_size=st.integers(1, 20), decay=DECAYS)
def test_step_agrees_with_torch(lr: float, epochs: int, step_size: int, decay: float) -> None:
    """The step schedule gives StepLR's rates."""
    theirs = torch_rates(StepLR(optimizer(lr), step_size, gamma=decay), epochs)
    ours = our_rates(recipe("step", lr, epochs, step_size, decay))
    assert ours == pytest.approx(theirs, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(lr=RATES, epochs=EPOCHS, decay=DECAYS)
def test_exponential_agrees_with_torch(lr: float, epochs: int, decay: float) -> None:
    """The exponential schedule gives ExponentialLR's rates."""
    theirs = torch_rates(ExponentialLR(optimizer(lr), gamma=decay), epochs)
    assert our_rates(recipe("exponential", lr, epochs, decay=decay)) == pytest.approx(
        theirs, rel=1e-9
    )


@settings(deadline=None, max_examples=40)
@given(lr=RATES, epochs=EPOCHS)
def test_cosine_agrees_with_torch(lr: float, epochs: int) -> None:
    """The cosine schedule gives the rates of CosineAnnealingLR to 0 over all epochs."""
    theirs = torch_rates(CosineAnnealingLR(optimizer(lr), T_max=epochs), epochs)
    assert our_rates(recipe("cosine", lr, epochs)) == pytest.approx(theirs, rel=1e-9, abs=lr * 1e-9)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(SCHEDULES)), lr=RATES, epochs=EPOCHS, decay=DECAYS)
def test_rates_begin_at_lr_and_never_rise(name: str, lr: float, epochs: int, decay: float) -> None:
    """Every schedule starts at lr, never rises and never reaches below 0."""
    rates = our_rates(recipe(name, lr, epochs, decay=decay))
    assert rates[0] == lr
    assert all(0 <= later <= earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize(("name", "factor"), [("step", 0.1), ("exponential", 0.95)])
def test_decay_zero_means_the_usual_factor(name: str, factor: float) -> None:
    """A decay of 0 stands for 0.1 in step and 0.95 in exponential."""
    usual = recipe(name, 1.0, 20, step_size=3)
    assert our_rates(usual) == our_rates(replace(usual, decay=factor))


def test_more_epochs_share_a_step_schedule_s_prefix() -> None:
    """Step rates do not depend on how many epochs there are, cosine rates do."""
    assert our_rates(recipe("step", 0.1, 60))[:20] == our_rates(recipe("step", 0.1, 20))
    assert our_rates(recipe("cosine", 0.1, 60))[:20] != our_rates(recipe("cosine", 0.1, 20))
