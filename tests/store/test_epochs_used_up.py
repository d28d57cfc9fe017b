"""When a budget in epochs is used up: trials that need no epoch still end; it is never exceeded."""

from dataclasses import replace

import pytest

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    make_curve,
    make_epoch,
    make_result,
    make_spec,
)
from tests.store.test_epoch_budget import EPOCHS, limited, trained
from tests.store.test_promotion_claims import train
from tests.store.test_spending import PATIENT, relaunch
from tuner.records import Epoch
from tuner.store import tables as t
from tuner.store import turns
from tuner.store.database import Database
from tuner.store.ledger import claims, grants, workers
from tuner.store.ledger.leases import Claimed, Ended, Lease, NeedsLook, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.transactions import Transaction
from tuner.store.spending import Used


def complete(worker: Ledger, held: Lease, curve: list[Epoch]) -> None:
    """Store a trial's epochs and end it."""
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))


@pytest.mark.parametrize("way", ["given back", "failed", "interrupted often"])
def test_a_trial_with_all_its_epochs_is_completed(database: Database, way: str) -> None:
    """A trial interrupted between its last epoch and its end completes at no cost."""
    bench = Bench.launch(database, make_spec(budget_epochs=9))
    worker = bench.worker()
    for _ in range(2):
        complete(worker, claim_trial(worker), make_curve(0.5, 0.4, 0.3))
    held = claim_trial(worker)
    worker.record(held, make_curve(0.5, 0.4, 0.3))
    if way == "given back":
        worker.give_back(held, "the worker was asked to stop")
    elif way == "failed":
        worker.fail(held, "CUDA out of memory")
    else:
        for _ in range(claims.YIELDS):
            worker.interrupt(held, "the trainer was killed")
            held = claim_trial(worker)
        worker.interrupt(held, "the trainer was killed")
    again = claim_trial(bench.worker())
    assert (again.number, again.stored_epochs, again.until) == (2, 3, None)


def test_a_trial_with_some_epochs_is_paused_and_one_with_none_waits(database: Database) -> None:
    """With a larger budget both continue like the others."""
    spec = make_spec(epochs=EPOCHS)
    bench = Bench.launch(database, spec)
    worker, peer = bench.worker(PATIENT), bench.worker(PATIENT)
    begun, new = claim_trial(worker), claim_trial(peer)
    worker.record(begun, make_curve(0.5, 0.4))
    worker.give_back(begun, "a test")
    peer.give_back(new, "a test")
    relaunch(bench, limited(spec, 2))
    again = claim_trial(worker)
    assert (again.number, again.stored_epochs, again.until) == (0, 2, 2)
    worker.pause(again, SETUP, "key")
    assert worker.claim(None, adopt=True) == Ended("spent", "The budget of 2 epochs is spent.")
    states = [row.state for row in sorted(bench.rows(t.lease), key=lambda row: row.trial_id)]
    assert states == ["paused", "released"]
    relaunch(bench, limited(spec, 30))
    assert [claim_trial(who).stored_epochs for who in (worker, peer)] == [0, 2]


def test_a_trial_that_is_given_back_during_a_claim_ends_no_study(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker gives a trial back without the study's lock; its epochs are free again."""
    bench = Bench.launch(database, make_spec(budget_epochs=3))
    worker, peer = bench.worker(), bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1)])
    look = grants.any_in_training

    def give_back_first(transaction: Transaction) -> bool:
        monkeypatch.setattr(grants, "any_in_training", look)
        worker.give_back(held, "the worker was asked to stop")
        return look(transaction)

    monkeypatch.setattr(grants, "any_in_training", give_back_first)
    again = claim_trial(peer)
    assert (again.number, again.stored_epochs) == (held.number, 1)


def test_a_limit_that_comes_later_holds_for_trials_in_training(database: Database) -> None:
    """Reused epochs may have to be trained after all, and the new limit does not allow that."""
    spec = make_spec(epochs=EPOCHS)
    bench = Bench.launch(database, spec)
    worker, elsewhere, third = (bench.worker(PATIENT) for _ in range(3))
    held = claim_trial(worker)
    reused = [replace(one, reused=True) for one in make_curve(*[0.5] * 6)]
    worker.record(held, [*reused, make_epoch(7)])
    bench.expire(held)
    again = claim_trial(elsewhere)
    assert bench.lease_row(again).granted is None
    relaunch(bench, limited(spec, 10))
    beside = claim_trial(third)
    assert beside.until == 10 - 3
    assert bench.lease_row(again).granted == EPOCHS
    # The trial is given back instead of trained beyond the limit.
    elsewhere.record(again, make_curve(0.7))
    assert bench.lease_row(again).state == "released"
    train(third, beside)
    assert trained(bench) <= 10


def test_the_last_look_of_a_race_is_taken(database: Database) -> None:
    """A look costs no epoch, and may complete the study."""
    spec = make_spec(trials=12, sampler="random", epochs=2)
    spec = replace(
        spec,
        budget=replace(spec.budget, trials=4 + 2 * 4),
        replicates=replace(spec.replicates, seeds=5, of="top", top=2),
    )
    bench = Bench.launch(database, spec)
    worker = bench.worker(PATIENT)
    while isinstance(answer := worker.claim(None, adopt=True), Claimed):
        loss = answer.lease.configuration / 10
        complete(worker, answer.lease, make_curve(0.5 + loss, 0.4 + loss))
    assert isinstance(answer, NeedsLook)
    relaunch(bench, limited(spec, trained(bench)))
    assert isinstance(bench.worker(PATIENT).claim(None, adopt=True), NeedsLook)
    assert bench.state() == "open"


def test_no_worker_is_drawn_to_a_study_that_has_epochs_for_nobody(database: Database) -> None:
    """After a visit without a trial no worker visits, until something happens in the study."""
    bench = Bench.launch(database, make_spec(budget_epochs=4))
    worker, peer = bench.worker(PATIENT), bench.worker(PATIENT)
    held = claim_trial(worker)
    peer.give_back(claim_trial(peer), "the worker was asked to stop")
    relaunch(bench, make_spec(budget_epochs=3))

    def has_work() -> bool:
        with database.transaction() as connection:
            return turns.read(connection)[0].has_work

    assert has_work()
    visitor = bench.worker(PATIENT)
    assert visitor.claim(None, adopt=True) == Wait(claims.OUT, 3)
    with database.transaction() as connection:
        post = workers.Post(bench.study.study_id, visitor.worker_id)
        workers.leave(connection, post, Used(), {"claim_seconds": 0.01})
    assert not has_work()
    worker.give_back(held, "the worker was asked to stop")
    assert has_work()
