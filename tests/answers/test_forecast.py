"""Forecasts of a study's remaining time and cost, their uncertainty, and the budget's limits."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from tuner.answers.forecast import BudgetWords, Guess, budget_words, forecast
from tuner.records import NATS
from tuner.store.overview import BudgetLine, Counts, Overview

BUDGET = BudgetLine(hours_spent=10.0, hours=40.0, money_spent=25.0, money=100.0)


def seen(done: int = 20, total: int = 120, **values: object) -> Overview:
    """Return a study of which this many trials have ended."""
    overview = Overview(
        title="small",
        question="Which?",
        state="open",
        reason="",
        metric="val_loss",
        unit=NATS,
        created=datetime.now(UTC),
        counts=Counts(total, complete=done),
        workers=(),
        best=None,
        epochs_recorded=0,
        epochs_reused=0,
        seconds_trained=0.0,
        eta_seconds=3600.0,
        adopted=(),
        done=float(done),
        variation=0.2,
        budget=BUDGET,
    )
    return replace(overview, **values)  # type: ignore[arg-type]


def test_the_rest_costs_what_was_spent_a_trial() -> None:
    """Time and cost are extrapolated by trial: 20 of 120 took 10 hours, so 100 more take 50."""
    future = forecast(seen())
    assert future is not None
    assert future.hours is not None
    assert future.money is not None
    assert future.trials is not None
    assert (future.hours.likely, future.money.likely) == (50.0, 125.0)
    assert future.trials.likely == 80.0
    assert future.seconds is not None
    assert future.seconds.likely == 3600.0


def test_a_prediction_interval_holds_what_comes() -> None:
    """In 90% of simulated studies the remaining time is within the prediction interval."""
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(4000):
        seconds = rng.gamma(9.0, size=60)
        ended = seconds[:15]
        budget = replace(BUDGET, hours_spent=float(ended.sum()), money_spent=None, money=None)
        variation = float(ended.std(ddof=1) / ended.mean())
        future = forecast(seen(15, 60, budget=budget, variation=variation))
        assert future is not None
        assert future.hours is not None
        assert future.hours.low is not None
        assert future.hours.high is not None
        within += future.hours.low <= seconds[15:].sum() <= future.hours.high
    assert within / 4000 == pytest.approx(0.9, abs=0.015)


def test_a_budget_that_is_too_small_is_told_early() -> None:
    """The forecast says how many trials fit into a budget that is too small, and what all need."""
    assert budget_words(seen()) == BudgetWords(
        spent="10.0 of 40 hours, cost 25.00 of 100",
        needed="about 50.0 hours (45.8 to 54.2) and a cost of 125.00 (114.41 to 135.59)",
        short="At this pace, about 80 of 120 trials (75 to 85) fit into the budget; all 120 trials "
        "need about 60.0 hours (55.8 to 64.2) and a cost of 150.00 (139.41 to 160.59).",
    )


@pytest.mark.parametrize(
    ("budget", "fitting"),
    [
        (replace(BUDGET, hours=60.0, money=150.0), None),
        (replace(BUDGET, hours=None, money=100.0), 80),
        (replace(BUDGET, hours=30.0, money=None), 60),
        (replace(BUDGET, hours=None, money=None), None),
        (replace(BUDGET, hours=40.0, money_spent=0.0), 80),
        (replace(BUDGET, hours=10.0), 20),
    ],
)
def test_the_narrower_limit_decides(budget: BudgetLine, fitting: int | None) -> None:
    """The tighter limit of hours and money decides; without a tight limit there is no warning."""
    future = forecast(seen(budget=budget))
    assert future is not None
    assert (future.trials and round(future.trials.likely)) == fitting
    told = budget_words(seen(budget=budget))
    assert told is not None
    assert bool(told.short) == (fitting is not None)


@pytest.mark.parametrize(
    "overview",
    [seen(0), seen(120), seen(state="spent"), seen(done=0)],
    ids=["nothing yet", "all", "spent", "new"],
)
def test_what_has_no_future_gets_no_guess(overview: Overview) -> None:
    """A study without remaining trials reports only what was spent."""
    assert forecast(overview) is None
    assert budget_words(overview) == BudgetWords("10.0 of 40 hours, cost 25.00 of 100")


def test_few_trials_give_a_guess_without_limits() -> None:
    """With few trials the forecast has no interval; without a budget it has only the time left."""
    future = forecast(seen(2, variation=None, budget=None))
    assert future is not None
    assert future.seconds == Guess(3600.0)
    assert future.hours is None
    assert budget_words(seen(budget=None)) is None


def test_a_budget_in_epochs_is_told_in_epochs() -> None:
    """A budget in epochs is reported in epochs; hours are reported only if they are limited too."""
    line = BudgetLine(10.0, None, None, None, epochs_spent=400, epochs=800)
    told = budget_words(seen(budget=line, variation=None))
    assert told == BudgetWords(
        "400 of 800 epochs",
        "about 50.0 hours",
        "At this pace, about 40 of 120 trials fit into the budget; all 120 trials need about "
        "2,400 epochs.",
    )
    both = BudgetLine(10.0, 40.0, None, None, epochs_spent=400, epochs=800)
    told = budget_words(seen(budget=both, variation=None))
    assert told is not None
    assert told.spent == "10.0 of 40 hours, 400 of 800 epochs"
    assert told.short.endswith("all 120 trials need about 60.0 hours and 2,400 epochs.")
