"""A worker remembers ended trials: claims read only the rest, with the same decisions."""

import random
from dataclasses import replace

import pytest

from tests.conftest import QUICK
from tests.store.specs import Bench, claim_trial, finish, limited, make_spec
from tuner.spec.space import Choice
from tuner.spec.study import Replicates
from tuner.store import control
from tuner.store.database import Database
from tuner.store.ledger import claims
from tuner.store.ledger.assignments import Existing
from tuner.store.ledger.leases import Claimed, Ended, Wait
from tuner.store.ledger.ledger import Ledger

PATIENT = replace(QUICK, lease=600.0)
"""Leases too long to expire on a busy machine."""
RATES = Choice("lr", tuple(1e-3 * (1 + n) for n in range(6)))


@pytest.fixture(autouse=True)
def remembered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember a trial as soon as it has ended, not some seconds later."""
    monkeypatch.setattr(claims, "FRESH_SECONDS", 0.0)


def existing(worker: Ledger) -> list[Existing]:
    """Return the trials as this worker's claim sees them."""
    with worker._transaction() as transaction:
        transaction.lock_study()
        return claims._existing(transaction, worker.study.spec)


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_remembers_sees_what_a_new_one_sees(database: Database, seed: int) -> None:
    """In any order of claims, ends, failures and retries."""
    spec = make_spec(dimensions=(RATES,), trials=9)
    spec = replace(spec, replicates=Replicates(2, "top", 3))
    bench = Bench.launch(database, limited(spec, attempts=1))
    chance = random.Random(seed)
    worker = bench.worker(PATIENT)
    held = []
    for step in range(25):
        answer = worker.claim(None, adopt=True) if chance.random() < 0.6 else None
        if isinstance(answer, Claimed):
            held.append((worker, answer.lease))
            worker = bench.worker(PATIENT)  # a worker with a trial claims no other
        if held and chance.random() < 0.6:
            worker, lease = held.pop(chance.randrange(len(held)))
            if chance.random() < 0.3:
                worker.fail(lease, f"reason {step}")
            else:
                finish(worker, lease, chance.random())
        if chance.random() < 0.2:
            control.retry(database, bench.binding, bench.study, [])
        assert existing(worker) == existing(bench.worker(PATIENT))


def test_a_study_is_not_complete_while_a_trial_was_opened_again(database: Database) -> None:
    """A worker that remembers a trial as failed waits for the peer that trains it again."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker, peer = bench.worker(PATIENT), bench.worker(PATIENT)
    worker.fail(claim_trial(worker), "one thing")
    finish(worker, claim_trial(worker))
    finish(worker, claim_trial(worker))
    assert [trial.ended for trial in existing(worker)] == [True] * 3
    control.retry(database, bench.binding, bench.study, [0])
    assert claim_trial(peer).number == 0
    assert isinstance(worker.claim(None, adopt=True), Wait)
    assert bench.state() == "open"


def test_no_trial_is_read_that_ended_before(database: Database) -> None:
    """Ended trials are remembered; a running one is read again, with those after it."""
    bench = Bench.launch(database, make_spec(dimensions=(RATES,)))
    worker, peer = bench.worker(PATIENT), bench.worker(PATIENT)
    finish(worker, claim_trial(worker))
    slow = claim_trial(peer)
    for _ in range(3):
        finish(worker, claim_trial(worker))
    assert len(existing(worker)) == 5
    assert worker._past.floor == slow.number == 1
    finish(peer, slow)
    finish(worker, claim_trial(worker))
    assert isinstance(worker.claim(None, adopt=True), Ended)
    assert len(existing(worker)) == 6
    assert worker._past.floor == 6
