"""What a study has spent: hours of its devices, money, and epochs.

A device counts while its worker holds a trial: from the claim until the trial has ended or is given
back, including failed and interrupted attempts. Waiting for a trial costs nothing. Trials that a
worker trains together use its device once; workers on one GPU share its time.

    hours = sum of device seconds over the study's workers / 3600
    money = sum of each worker's hours × the price of its machine, or else the study's
    epochs = stored epochs of its trials, without those reused from another trial

The limits of hours and money may be exceeded by trials in training when they are reached
(docs/fleet.md). The limit of epochs is exact: `ledger/grants` never grants more.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from tuner.spec.study import Budget, Spec
from tuner.store import tables as t


@dataclass(frozen=True)
class Used:
    """One worker's usage so far; always sent as a total, so that repeating it adds nothing."""

    active_seconds: float = 0.0
    """How long it has held a trial."""
    device_seconds: float = 0.0
    """The same, less the share of other workers on its device."""


@dataclass(frozen=True)
class Spending:
    """What all workers of a study have spent so far."""

    hours: float = 0.0
    money: float | None = None
    """None if no price is known."""
    epochs: int = 0

    def exhausts(self, budget: Budget) -> str:
        """Return a sentence about the limit of hours or money that is reached; empty if none is."""
        if budget.hours is not None and self.hours >= budget.hours:
            hours = "hour" if budget.hours == 1 else "hours"
            return f"The budget of {amount(budget.hours)} {hours} is spent."
        if budget.money is not None and (self.money or 0.0) >= budget.money:
            return f"The cost limit of {amount(budget.money)} is reached."
        return ""


def read_spending(connection: sa.Connection, study_id: int, budget: Budget) -> Spending:
    """Sum up what a study's workers have spent, including those that left or died."""
    seconds = sa.func.coalesce(t.worker.c.device_seconds, t.worker.c.active_seconds)
    price = sa.func.coalesce(t.worker.c.price_per_hour, sa.cast(budget.price_per_hour, sa.Double))
    row = connection.execute(
        sa.select(
            (sa.func.coalesce(sa.func.sum(seconds), 0.0) / 3600.0).label("hours"),
            # NULL if no worker has a price.
            (sa.func.sum(seconds * price) / 3600.0).label("money"),
            sa.func.coalesce(sa.func.sum(t.worker.c.trained), 0).label("epochs"),
        ).where(t.worker.c.study_id == study_id)
    ).one()
    known = row.money is not None or budget.price_per_hour is not None
    money = float(row.money or 0.0) if known else None
    return Spending(float(row.hours), money, int(row.epochs))


def exhausted(connection: sa.Connection, study_id: int, budget: Budget) -> str:
    """Return why a study may spend no more hours or money, as a sentence; empty if it may."""
    # Most studies only limit their trials; their claims and renewals need no statement here.
    return read_spending(connection, study_id, budget).exhausts(budget) if budget.limited else ""


def epochs_spent(spec: Spec) -> str:
    """Say that a study's budget in epochs is spent."""
    full, limit = spec.budget.full, spec.epoch_limit
    epochs = f"{limit:,} {'epoch' if limit == 1 else 'epochs'}"
    if full is not None and limit == spec.full_epochs:
        runs = "training run" if full == 1 else "training runs"
        epochs = f"{amount(full)} full {runs} ({epochs})"
    return f"The budget of {epochs} is spent."


def amount(value: float) -> str:
    """Return a limit as the study file writes it: 40, 2.5."""
    return f"{value:,.10g}"
