"""Whether a study's budget is enough for its trials, before any training."""

from dataclasses import replace

import pytest

from tests.store.specs import make_spec
from tests.store.test_promotion import promoting
from tuner.check.cost import Cost, EpochCost
from tuner.spec.study import Budget

COST = Cost(
    measured=(EpochCost({}, 60.0, 1000, 1, "", together=False),),
    memory_bytes=10**9,
    on="cpu",
    epochs=240,
    seconds=20 * 3600.0,
    workers=4,
    all_epochs=960,
    all_seconds=80 * 3600.0,
)
"""80 device hours in total, on any number of devices."""


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(120), None),
        (Budget(120, hours=80.0), None),
        (
            Budget(120, hours=40.0),
            "about 60 of 120 trials fit into the budget; all 120 trials need about 80 hours",
        ),
        (
            Budget(120, hours=40.0, money=50.0, price_per_hour=2.5),
            (
                "about 30 of 120 trials fit into the budget; all 120 trials need about 80 hours "
                "and a cost of 200.00"
            ),
        ),
        (Budget(120, money=300.0, price_per_hour=2.5), None),
        (Budget(120, epochs=960), None),
        (
            Budget(120, epochs=240),
            (
                "about 30 of 120 trials fit into the budget; all 120 trials need about 80 hours "
                "and 960 epochs"
            ),
        ),
        (
            Budget(120, hours=10.0, epochs=240),
            (
                "about 15 of 120 trials fit into the budget; all 120 trials need about 80 hours "
                "and 960 epochs"
            ),
        ),
    ],
)
def test_a_budget_that_is_too_small_is_told_before_a_launch(
    budget: Budget, said: str | None
) -> None:
    """The tightest limit decides; the remark says what all trials need."""
    spec = replace(make_spec(), budget=budget)
    told = [] if said is None else [f"At this pace, {said}"]
    assert list(COST.short(spec)) == told


def test_a_study_whose_trials_pause_is_to_train_its_epochs_not_its_trials() -> None:
    """With pausing, a budget in epochs may be below full training; too few hours are remarked."""
    spec = promoting(120, 40)
    paused = [
        (Budget(120, epochs=240), []),
        (Budget(120, epochs=240, hours=20.0), []),
        (
            Budget(120, epochs=240, hours=10.0),
            [
                (
                    "At this pace, about 120 of 240 epochs fit into the budget; all 120 trials "
                    "need about 20 hours"
                )
            ],
        ),
    ]
    for budget, told in paused:
        assert list(COST.short(replace(spec, budget=budget))) == told
