"""Schedules are pure functions that agree with torch's stateful ones."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from tuner.records import Epoch
from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import SCHEDULES, Position, rate, rates

RATES = st.floats(1e-6, 1.0)
DECAYS = st.floats(0.01, 1.0)
EPOCHS = st.integers(1, 60)
FALLING = st.sampled_from(sorted({*SCHEDULES} - {"onecycle"}))


def recipe(scheduler: str, lr: float, epochs: int, step_size: int = 10, decay: float = 0) -> Recipe:
    """Return a recipe that differs from the defaults only in its schedule."""
    return replace(
        read_recipe({}), scheduler=scheduler, lr=lr, epochs=epochs, step_size=step_size, decay=decay
    )


def optimizer(lr: float) -> SGD:
    """Return an optimizer for a torch scheduler to drive."""
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def torch_rates(scheduler: LRScheduler, epochs: int) -> list[float]:
    """Return the rates of torch's scheduler, stepped once per epoch."""
    rates = []
    for _ in range(epochs):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def our_rates(chosen: Recipe) -> list[float]:
    """Return our rates of all epochs, computed backwards: the order must not matter."""
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
@given(
    name=st.sampled_from(sorted({*SCHEDULES} - {"onecycle"})), lr=RATES, epochs=EPOCHS, decay=DECAYS
)
def test_rates_begin_at_lr_and_never_rise(name: str, lr: float, epochs: int, decay: float) -> None:
    """Every schedule but onecycle starts at lr, never rises and never goes below 0."""
    rates = our_rates(recipe(name, lr, epochs, decay=decay))
    assert rates[0] == lr
    assert all(0 <= later <= earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize(("name", "factor"), [("step", 0.1), ("exponential", 0.95)])
def test_decay_zero_means_the_usual_factor(name: str, factor: float) -> None:
    """A decay of 0 stands for 0.1 in step and 0.95 in exponential."""
    usual = recipe(name, 1.0, 20, step_size=3)
    assert our_rates(usual) == our_rates(replace(usual, decay=factor))


def test_more_epochs_share_a_step_schedule_s_prefix() -> None:
    """Step rates do not depend on the number of epochs; cosine rates do."""
    assert our_rates(recipe("step", 0.1, 60))[:20] == our_rates(recipe("step", 0.1, 20))
    assert our_rates(recipe("cosine", 0.1, 60))[:20] != our_rates(recipe("cosine", 0.1, 20))


@settings(deadline=None, max_examples=40)
@given(lr=RATES, epochs=st.integers(1, 12), steps=st.integers(1, 9))
def test_onecycle_agrees_with_torch(lr: float, epochs: int, steps: int) -> None:
    """Stepped batch by batch, the rates are OneCycleLR's with its usual settings."""
    if epochs * steps < 4:
        return  # torch's own has hardly any warm-up below that, or divides by zero
    theirs = torch_rates(
        OneCycleLR(optimizer(lr), lr, total_steps=epochs * steps, cycle_momentum=False),
        epochs * steps - 1,
    )
    ours = by_step(recipe("onecycle", lr, epochs), steps)
    assert len(ours) == epochs * steps
    assert ours[:-1] == pytest.approx(theirs, rel=1e-9)
    assert ours[-1] == pytest.approx(lr / 25 / 1e4, rel=1e-6)


@given(lr=RATES, epochs=st.integers(1, 3), steps=st.integers(1, 3))
def test_a_short_onecycle_stays_within_its_bounds(lr: float, epochs: int, steps: int) -> None:
    """Trainings of a few steps have rates too, none above lr and none below 0."""
    ours = by_step(recipe("onecycle", lr, epochs), steps)
    assert len(ours) == epochs * steps
    assert all(0 < one <= lr for one in ours)


@settings(deadline=None, max_examples=40)
@given(lr=RATES, warm=st.integers(1, 4), steps=st.integers(1, 9))
def test_warm_up_agrees_with_torch(lr: float, warm: int, steps: int) -> None:
    """The rate climbs in equal steps to the schedule's own, like LinearLR from one step up."""
    total = warm * steps
    climb = LinearLR(optimizer(lr), start_factor=1 / total, total_iters=total - 1)
    theirs = torch_rates(climb, total) if total > 1 else [lr]
    warmed = replace(recipe("constant", lr, warm + 3), warmup_epochs=warm)
    assert by_step(warmed, steps)[:total] == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_after_warm_up_the_schedule_runs_over_the_epochs_that_remain(name: str) -> None:
    """Three epochs of warm-up and seven of a schedule are the schedule of seven, shifted."""
    whole = replace(recipe(name, 0.1, 10, step_size=2), warmup_epochs=3)
    alone = replace(whole, epochs=7, warmup_epochs=0)
    for epoch in range(1, 8):
        assert rates(whole, epoch + 3, 5) == rates(alone, epoch, 5)
    climb = [one for epoch in (1, 2, 3) for one in rates(whole, epoch, 5)]
    assert climb[-1] == rates(alone, 1, 5)[0]
    assert all(0 < earlier < later for earlier, later in pairwise(climb))


def test_warm_up_may_be_longer_than_the_training() -> None:
    """Then training ends during the warm-up."""
    long = replace(recipe("cosine", 0.1, 2), warmup_epochs=5)
    assert by_step(long, 2) == pytest.approx([0.01, 0.02, 0.03, 0.04])


@settings(deadline=None, max_examples=60)
@given(
    losses=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=30),
    patience=st.integers(1, 4),
)
def test_plateau_agrees_with_torch(losses: list[float], patience: int) -> None:
    """Drops come where ReduceLROnPlateau's do, whose patience counts one epoch less."""
    torch_optimizer = optimizer(1.0)
    theirs = ReduceLROnPlateau(
        torch_optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
    )
    chosen = replace(recipe("plateau", 1.0, 50, decay=0.5), plateau_patience=patience)
    for number in range(len(losses) + 1):
        curve = tuple(
            Epoch(k + 1, 0, 0, 0, loss, 0, 0, 0, 0, 0) for k, loss in enumerate(losses[:number])
        )
        expected = torch_optimizer.param_groups[0]["lr"]
        assert rates(chosen, number + 1, 4, curve) == pytest.approx([expected])
        if number < len(losses):
            theirs.step(losses[number])


def test_plateau_forgets_the_losses_of_its_warm_up() -> None:
    """Epochs of the warm-up do not count towards the plateau's patience."""
    chosen = replace(recipe("plateau", 1.0, 50), plateau_patience=2, warmup_epochs=3)
    curve = tuple(Epoch(k, 0, 0, 0, 0.5, 0, 0, 0, 0, 0) for k in range(1, 6))
    assert rates(chosen, 6, 4, curve) == (1.0,)
    assert rates(chosen, 7, 4, (*curve, replace(curve[-1], epoch=6))) == pytest.approx([0.1])


def by_step(chosen: Recipe, steps: int) -> list[float]:
    """Return the rate of every step of a training, repeating rates that are per epoch."""
    found: list[float] = []
    for epoch in range(1, chosen.epochs + 1):
        given_ = rates(chosen, epoch, steps)
        found += given_ if len(given_) > 1 else given_ * steps
    return found
