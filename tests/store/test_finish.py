"""`tuner launch --finish`: paused trials chosen by a user are trained to their end."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.store.specs import SETUP, Bench, claim_trial, make_curve, make_epoch
from tests.store.test_epoch_budget import limited
from tests.store.test_promotion_claims import EPOCHS, curve_of, go, small, train
from tests.store.test_spending import PATIENT, relaunch
from tuner.errors import UserError
from tuner.results.rows import trial_rows
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Wait


@pytest.fixture
def paused(database: Database) -> Bench:
    """Store a study of six settings whose trials pause."""
    return Bench.launch(database, small())


def finish(bench: Bench, *numbers: int) -> list[int]:
    """Choose trials as a user does."""
    return control.finish(bench.database, bench.binding, bench.study, numbers, "ann@lab")


def chosen(bench: Bench) -> Sequence[tuple[int, int | None, object]]:
    """Return first and last epoch of the stretches chosen by a user, and the user."""
    rows = sorted(bench.rows(t.stretch), key=lambda row: row.stretch_id)
    return [(row.start, row.until, row.saw["who"]) for row in rows if row.why == "chosen"]


def test_chosen_trials_of_a_complete_study_are_trained_to_their_end(paused: Bench) -> None:
    """They continue from where they paused, in the same attempt, and nothing else is trained."""
    go(paused.worker())
    assert paused.state() == "complete"
    before = len(paused.rows(t.epoch))
    assert finish(paused, 5, 1) == [1, 5]
    assert paused.state() == "open"
    # The same command is repeated, as after an interruption.
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
    """Chosen trials come first, also during a search, and count among those to finish."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    finish(paused, 2)
    (lease,) = [row for row in paused.rows(t.lease) if row.state == "released"]
    assert lease.checkpoint == "key-2-1", "promised until a worker has it"
    held = claim_trial(worker)
    assert (held.number, held.stored_epochs, held.until) == (2, 1, None)
    assert paused.lease_row(held).checkpoint is None
    # If its worker dies, the trial is passed on unchanged.
    paused.expire(held)
    assert go(paused.worker())[0] == (2, 1, None)


def test_what_cannot_be_finished_is_told_at_once(paused: Bench) -> None:
    """Each refused trial is listed with its state, and none is chosen."""
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
        "Only paused trials can be trained to completion: trial 0 failed (`tuner retry` starts it "
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
    """The error has the number of epochs needed, and the suggested launch suffices exactly."""
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
    """If the hours are used up this is refused: a worker would end the study at once."""
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


def test_the_hint_names_each_limit_that_is_too_small(database: Database) -> None:
    """Each limit that is too small is named, also in full trainings; the suggestion suffices."""
    spec = small()
    full = replace(spec, budget=replace(spec.budget, full=0.45))
    assert full.epoch_limit == 4
    bench = Bench.launch(database, full)
    go(bench.worker())
    with pytest.raises(UserError, match=r"Add  --set budget\.full=2\.1112  to the launch") as told:
        finish(bench, 1, 0)
    assert "budget.epochs" not in str(told.value)
    relaunch(bench, replace(spec, budget=replace(spec.budget, full=2.1112)))
    assert finish(bench, 1, 0) == [0, 1]
    both = replace(spec, budget=replace(spec.budget, full=2.2, epochs=20))
    relaunch(bench, both)
    with pytest.raises(
        UserError,
        match=r"takes 8 epochs beside the 15 of trials chosen before, and 15 .* "
        r"--set budget\.epochs=27 --set budget\.full=3  to",
    ):
        finish(bench, 2)


def test_what_was_given_back_takes_no_epoch_of_a_chosen_trial(database: Database) -> None:
    """The budget suffices only for the chosen trial, which is trained first."""
    bench = Bench.launch(database, small(trials=8))
    worker, peer = bench.worker(PATIENT), bench.worker(PATIENT)
    given, held = claim_trial(worker), claim_trial(peer)
    train(peer, held)
    with pytest.raises(UserError, match="trial 0 is being trained, and can"):
        finish(bench, 0)
    worker.give_back(given, "a test")
    with pytest.raises(UserError, match="trial 0 waits for a worker, and can"):
        finish(bench, 0)
    relaunch(bench, limited(small(trials=8), 1 + EPOCHS - 1))
    finish(bench, 1)
    first = claim_trial(worker)
    assert (first.number, first.stored_epochs, first.until) == (1, 1, None)
    assert isinstance(peer.claim(None, adopt=True), Wait)


def test_an_interrupted_chosen_trial_keeps_its_epochs(database: Database) -> None:
    """After three interruptions in a row others go first, but only with epochs left over."""
    bench = Bench.launch(database, limited(small(trials=8), 12))
    worker = bench.worker()
    train(worker, claim_trial(worker))
    finish(bench, 0)
    for _ in range(3):
        held = claim_trial(worker)
        assert held.number == 0
        worker.interrupt(held, "killed from outside")
    stretches = go(worker)
    assert [one[:2] for one in stretches[:-1]] == [(1, 0), (2, 0), (3, 0)]
    assert stretches[-1] == (0, 1, None)
    assert (bench.state(), len(bench.rows(t.epoch))) == ("spent", 12)


def test_nobody_else_is_promoted_because_chosen_trials_pass_rungs(database: Database) -> None:
    """After finishing chosen trials the study is complete again, with no other promotion."""
    bench = Bench.launch(database, small(trials=12))
    go(bench.worker())
    assert bench.state() == "complete"
    ended = {row.trial_id for row in bench.rows(t.lease) if row.state == "ended"}
    numbers = sorted(row.number for row in bench.rows(t.trial) if row.trial_id not in ended)[-3:]
    finish(bench, *numbers)
    assert go(bench.worker()) == [(number, 1, None) for number in numbers]
    assert bench.state() == "complete"


def test_a_trial_is_chosen_again_at_an_epoch_where_it_was_chosen_before(paused: Bench) -> None:
    """After a retraining elsewhere a budget may end at the same epoch: it can be chosen again."""
    worker, elsewhere = paused.worker(PATIENT), paused.worker(PATIENT)
    go(worker)
    finish(paused, 1)
    held = claim_trial(worker)
    worker.record(held, curve_of(held, 4)[3:])
    worker.give_back(held, "a test")
    held = claim_trial(elsewhere)
    elsewhere.record(held, make_curve(0.77))
    elsewhere.give_back(held, "a test")
    relaunch(paused, limited(small(), len(paused.rows(t.epoch)) + 2))
    held = claim_trial(elsewhere)
    assert (held.stored_epochs, held.until) == (1, 3)
    elsewhere.record(held, make_curve(0.77, 0.77, 0.77)[1:])
    elsewhere.pause(held, SETUP, "key")
    relaunch(paused, limited(small(), 100))
    assert finish(paused, 1) == [1]
    newest = max(paused.rows(t.stretch), key=lambda row: row.stretch_id)
    assert (newest.start, newest.until, newest.why) == (3, None, "chosen")
    held = claim_trial(worker)
    assert (held.number, held.until) == (1, None)


def test_a_trial_that_was_chosen_twice_counts_once_among_those_that_finish(
    database: Database,
) -> None:
    """A trial paused by the budget has two stretches to its end, and counts once."""
    spec = small()
    bench = Bench.launch(database, limited(spec, 4))
    worker = bench.worker(PATIENT)
    go(worker)
    relaunch(bench, limited(spec, 40))
    finish(bench, 0)
    relaunch(bench, limited(spec, 6))
    go(worker)
    relaunch(bench, limited(spec, 40))
    assert finish(bench, 0) == [0]
    assert claim_trial(worker).until is None
    claim_trial(bench.worker(PATIENT))
    newest = max(bench.rows(t.stretch), key=lambda row: row.stretch_id)
    assert (newest.why, newest.saw["finishing"]) == ("begun", 1)
