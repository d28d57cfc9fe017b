"""How long a study will still take, what it will cost, and whether its budget is enough for it.

Trials to come are taken to be like those that have ended. So with n ended trials whose time has the
coefficient of variation v, the time of k further ones is k times the mean, give or take the part

    t(n - 1) × v × sqrt(1/k + 1/n)

with Student's t for a 90% prediction interval: 1/k for the chance in the trials to come, 1/n for
that in the mean. Where a grid trains its cheap settings first the guess is too low until the
expensive ones have had their turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from tuner.store.overview import Overview

__all__ = ["BudgetWords", "Forecast", "Guess", "fit_sentence", "forecast", "tell_budget"]

SHARE = 0.95
"""Of the upper limit of the 90% interval."""


@dataclass(frozen=True)
class Guess:
    """A figure of the future, with its 90% prediction interval where one is known."""

    likely: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, likely: float, part: float | None) -> "Guess":
        """Return a guess that may be off by a part of itself."""
        if part is None:
            return cls(likely)
        return cls(likely, likely * max(0.0, 1.0 - part), likely * (1.0 + part))

    def plus(self, more: float) -> "Guess":
        """Return the guess of this and of a known figure together."""
        limits = (None if end is None else end + more for end in (self.low, self.high))
        return Guess(self.likely + more, *limits)


@dataclass(frozen=True)
class Forecast:
    """What remains of a study, if it is not changed."""

    seconds: Guess | None
    """Until its last trial ends, with the workers of now; None without workers."""
    hours: Guess | None = None
    """Of devices, for the remaining trials."""
    money: Guess | None = None
    """For them, where a price is known."""
    trials: Guess | None = None
    """How many trials of the study fit into its budget, if that is not all of them."""


def forecast(overview: Overview) -> Forecast | None:
    """Return what is still to come; None before a whole trial is done, and at the end."""
    counts, budget = overview.counts, overview.budget
    left = counts.total - overview.done
    # How far paused trials will go, nobody knows.
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
    """Return by which part the time of further trials may differ from what is likely."""
    if overview.variation is None:
        return None
    # Loads scipy, which a study without a future does not need.
    from tuner.statistics import students

    ended = overview.counts.ended
    quantile = students(SHARE, ended - 1)
    return quantile * overview.variation * sqrt(1 / trials + 1 / ended)


@dataclass(frozen=True)
class BudgetWords:
    """What to report about a budget; fields without anything to report are empty."""

    spent: str
    needed: str = ""
    """For the remaining trials."""
    short: str = ""
    """That not all trials fit into the budget."""


def tell_budget(overview: Overview) -> BudgetWords | None:
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
        spent.append(_of(_money(budget.money_spent), budget.money, "in money"))
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
    short = f"{fit}; all of them need about {' and '.join(needs)}."
    return BudgetWords(", ".join(spent), needed, short)


def _needs(hours: Guess | None, money: Guess | None) -> list[str]:
    known = ((hours, _hours, "hours"), (money, _money, "in money"))
    return [_range(guess, write, unit) for guess, write, unit in known if guess is not None]


def fit_sentence(trials: Guess, total: int) -> str:
    """Say how many trials of a study fit into its budget."""
    return (
        f"At this pace about {_range(trials, _count, f'of {total:,} trials')} fit into the budget"
    )


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _money(money: float) -> str:
    return f"{money:,.2f}"


def _count(trials: float) -> str:
    return f"{round(trials):,}"


def _of(spent: str, limit: float | None, unit: str) -> str:
    return f"{spent} {unit}" if limit is None else f"{spent} of {limit:,.10g} {unit}"


def _range(guess: Guess, write: Callable[[float], str], unit: str) -> str:
    text = f"{write(guess.likely)} {unit}"
    if guess.low is None or guess.high is None:
        return text
    low, high = write(guess.low), write(guess.high)
    return text if low == high else f"{text} ({low} to {high})"
