"""`tuner launch --finish`: paused trials that a person has chosen are trained to their end."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.store.specs import SETUP, Bench, claim_trial, make_epoch
from tests.store.test_epoch_budget import limited
from tests.store.test_promotion_claims import EPOCHS, curve_of, go, small, train
from tests.store.test_spending import relaunch
from tuner.errors import UserError
from tuner.results.rows import trial_rows
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database


@pytest.fixture
def paused(database: Database) -> Bench:
    """Store a study of six settings whose trials pause."""
    return Bench.launch(database, small())


def finish(bench: Bench, *numbers: int) -> list[int]:
    """Choose trials as a person does."""
    return control.finish(bench.database, bench.binding, bench.study, numbers, "ann@lab")


def chosen(bench: Bench) -> Sequence[tuple[int, int | None, object]]:
    """Return first and last epoch of the stretches that a person chose, and who did."""
    rows = sorted(bench.rows(t.stretch), key=lambda row: row.stretch_id)
    return [(row.start, row.until, row.saw["who"]) for row in rows if row.why == "chosen"]


def test_chosen_trials_of_a_complete_study_are_trained_to_their_end(paused: Bench) -> None:
    """From where they paused, without another attempt, and nothing else is trained."""
    go(paused.worker())
    assert paused.state() == "complete"
    before = len(paused.rows(t.epoch))
    assert finish(paused, 5, 1) == [1, 5]
    assert paused.state() == "open"
    # The same command again, because the first one was interrupted.
    assert finish(paused, 1, 5) == []
    assert go(paused.worker()) == [(1, 3, None), (5, 1, None)]
    assert paused.state() == "complete"
    assert len(paused.rows(t.epoch)) == before + 6 + 8
    assert chosen(paused) == [(3, None, "ann@lab"), (1, None, "ann@lab")]
    with paused.database.transaction() as connection:
        rows = trial_rows(connection, paused.study)
    assert [row["state"] for row in rows if row["attempts"] == 1] == [
        *["COMPLETE"] * 2,
        *["PAUSED"] * 3,
        "COMPLETE",
    ]


def test_they_come_before_what_the_rule_would_choose(paused: Bench) -> None:
    """Also while the study is searching; the rule counts them among those that finish."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    finish(paused, 2)
    (lease,) = [row for row in paused.rows(t.lease) if row.state == "released"]
    assert lease.checkpoint == "key-2-1", "promised until a worker has it"
    held = claim_trial(worker)
    assert (held.number, held.stored_epochs, held.until) == (2, 1, None)
    assert paused.lease_row(held).checkpoint is None
    # Whoever dies with it hands it on as it is.
    paused.expire(held)
    assert go(paused.worker())[0] == (2, 1, None)


def test_what_cannot_be_finished_is_told_at_once(paused: Bench) -> None:
    """Trial by trial, each with its state; and then none of them is chosen."""
    worker = paused.worker()
    failing = claim_trial(worker)
    while worker.fail(failing, "broken") == "again":
        failing = claim_trial(worker)
    stopped = claim_trial(worker)
    worker.record(stopped, [make_epoch(1)])
    worker.prune(stopped, SETUP, "diverged at epoch 1")
    train(worker, claim_trial(worker))
    claim_trial(worker)
    with pytest.raises(UserError) as told:
        finish(paused, 0, 1, 2, 3, 99)
    assert str(told.value) == (
        "Only paused trials can be trained to their end: trial 0 failed (`tuner retry` starts it "
        "again); trial 1 was stopped for good (diverged at epoch 1); trial 3 is being trained, and "
        "can be chosen once it is paused; trial 99 does not exist."
    )
    assert chosen(paused) == []
    go(worker)
    complete = min(
        row.number
        for row in paused.rows(t.trial)
        if row.trial_id
        in {one.trial_id for one in paused.rows(t.outcome) if one.state == "COMPLETE"}
    )
    with pytest.raises(UserError, match=f"trial {complete} is complete"):
        finish(paused, complete)


def test_a_budget_in_epochs_has_room_for_them_or_they_are_refused(database: Database) -> None:
    """The error says how many are needed, and the launch that it suggests trains exactly those."""
    bench = Bench.launch(database, limited(small(), 4))
    go(bench.worker())
    assert bench.state() == "spent"
    with pytest.raises(UserError, match=r"takes 15 epochs, and 0 .* budget.epochs=19 "):
        finish(bench, 1, 0)
    assert (bench.state(), chosen(bench)) == ("spent", [])
    relaunch(bench, limited(small(), 19))
    # One of them was paused between two rungs.
    finish(bench, 1, 0)
    assert go(bench.worker()) == [(0, 2, None), (1, 1, None)]
    assert (bench.state(), len(bench.rows(t.epoch))) == ("spent", 2 * EPOCHS + 1)


def test_hours_that_are_spent_are_named(database: Database) -> None:
    """A worker would end the study before it trains anything."""
    spec = replace(small(), budget=replace(small().budget, hours=1e-9))
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, curve_of(held, 1))
    worker.pause(held, SETUP, "key")
    with database.transaction() as connection:
        connection.execute(t.worker.update().values(device_seconds=60.0))
    with pytest.raises(UserError, match=r"The budget of 1e-09 hours is spent\. Launch"):
        finish(bench, 0)
