"""How long a study will still take, what it will cost, and whether its budget is enough for it.

Future trials are assumed to be like those that have ended. With n ended trials whose times have the
coefficient of variation v, the time of k further ones is k times the mean, with a relative error of

    t(n - 1) × v × sqrt(1/k + 1/n)

with Student's t for a 90% prediction interval: 1/k for the variation of the future trials, 1/n for
that of the mean. If a grid trains its cheap settings first, the estimate is too low until the
expensive ones have been trained.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from tuner.store.overview import Overview

__all__ = ["BudgetWords", "Forecast", "Guess", "budget_words", "fit_sentence", "forecast"]

SHARE = 0.95
"""Quantile of the upper limit of the 90% interval."""


@dataclass(frozen=True)
class Guess:
    """An estimate of a future figure, with its 90% prediction interval if known."""

    likely: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, likely: float, part: float | None) -> "Guess":
        """Return a guess with this relative error."""
        if part is None:
            return cls(likely)
        return cls(likely, likely * max(0.0, 1.0 - part), likely * (1.0 + part))

    def plus(self, more: float) -> "Guess":
        """Return the guess with a known figure added."""
        limits = (None if end is None else end + more for end in (self.low, self.high))
        return Guess(self.likely + more, *limits)


@dataclass(frozen=True)
class Forecast:
    """What remains of a study, if it is not changed."""

    seconds: Guess | None
    """Until the last trial ends, with the current workers; None without workers."""
    hours: Guess | None = None
    """Device hours of the remaining trials."""
    money: Guess | None = None
    """Their cost, if a price is known."""
    trials: Guess | None = None
    """How many trials fit into the budget; None if all of them do."""


def forecast(overview: Overview) -> Forecast | None:
    """Return what remains; None before the first complete trial, and at the end."""
    counts, budget = overview.counts, overview.budget
    left = counts.total - overview.done
    # How many epochs paused trials will still be trained is unknown.
    if overview.over or overview.done < 1 or left <= 0 or counts.paused:
        return None
    part = _part(overview, left)
    eta = overview.eta_seconds
    seconds = None if eta is None else Guess.of(eta, part)
    if budget is None or not budget.hours_spent:
        return Forecast(seconds)
    more, money = left / overview.done, budget.money_spent
    limits = (
        (budget.hours, budget.hours_spent),
        (budget.money, money),
        (budget.epochs, budget.epochs_spent),
    )
    reach = [limit / spent for limit, spent in limits if limit is not None and spent]
    fits = overview.done * min(reach) if reach else counts.total
    return Forecast(
        seconds,
        Guess.of(budget.hours_spent * more, part),
        None if money is None else Guess.of(money * more, part),
        _fitting(overview, fits) if fits < counts.total else None,
    )


def _fitting(overview: Overview, fits: float) -> Guess:
    more = max(0.0, fits - overview.done)
    guess = Guess.of(more, _part(overview, more) if more else None).plus(overview.done)
    if guess.high is None:
        return guess
    return Guess(guess.likely, guess.low, min(guess.high, float(overview.counts.total)))


def _part(overview: Overview, trials: float) -> float | None:
    """Return the relative error of the estimated time of further trials."""
    if overview.variation is None:
        return None
    # Loads SciPy, which a finished study does not need.
    from tuner.statistics import students

    ended = overview.counts.ended
    quantile = students(SHARE, ended - 1)
    return quantile * overview.variation * sqrt(1 / trials + 1 / ended)


@dataclass(frozen=True)
class BudgetWords:
    """What to report about a budget; empty fields have nothing to report."""

    spent: str
    needed: str = ""
    """For the remaining trials."""
    short: str = ""
    """A sentence if not all trials fit into the budget."""


def budget_words(overview: Overview) -> BudgetWords | None:
    """Say what is spent and still needed, and whether the budget is enough; None without one."""
    budget, future = overview.budget, forecast(overview)
    if budget is None:
        return None
    spent = []
    if budget.hours is not None or budget.money_spent is not None:
        spent.append(_of(_hours(budget.hours_spent), budget.hours, "hours"))
    if budget.epochs is not None:
        spent.append(f"{budget.epochs_spent:,} of {budget.epochs:,} epochs")
    if budget.money_spent is not None:
        spent.append(f"cost {_of(_money(budget.money_spent), budget.money)}")
    if future is None or future.hours is None:
        return BudgetWords(", ".join(spent))
    needed = f"about {' and '.join(_needs(future.hours, future.money))}"
    if future.trials is None:
        return BudgetWords(", ".join(spent), needed)
    hours = future.hours.plus(budget.hours_spent) if budget.hours is not None else None
    money = future.money.plus(budget.money_spent or 0.0) if budget.money and future.money else None
    needs = _needs(hours, money)
    if budget.epochs is not None:
        epochs = budget.epochs_spent / overview.done * overview.counts.total
        needs.insert(1 if hours else 0, f"{_count(epochs)} epochs")
    fit = fit_sentence(future.trials, overview.counts.total)
    short = f"{fit}; all {overview.counts.total:,} trials need about {' and '.join(needs)}."
    return BudgetWords(", ".join(spent), needed, short)


def _needs(hours: Guess | None, money: Guess | None) -> list[str]:
    needs = [] if hours is None else [_range(hours, _hours, "hours")]
    return needs if money is None else [*needs, f"a cost of {_range(money, _money)}"]


def fit_sentence(trials: Guess, total: int) -> str:
    """Say how many of a study's trials fit into its budget."""
    return (
        f"At this pace, about {_range(trials, _count, f'of {total:,} trials')} fit into the budget"
    )


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _money(money: float) -> str:
    return f"{money:,.2f}"


def _count(trials: float) -> str:
    return f"{round(trials):,}"


def _of(spent: str, limit: float | None, unit: str = "") -> str:
    return f"{spent if limit is None else f'{spent} of {limit:,.10g}'} {unit}".rstrip()


def _range(guess: Guess, write: Callable[[float], str], unit: str = "") -> str:
    text = f"{write(guess.likely)} {unit}".rstrip()
    if guess.low is None or guess.high is None:
        return text
    low, high = write(guess.low), write(guess.high)
    return text if low == high else f"{text} ({low} to {high})"
