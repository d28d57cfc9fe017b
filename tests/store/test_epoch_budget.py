"""A budget in epochs is met exactly, through deaths, pruning, reuse, pauses and resumption."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

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
from tests.store.test_promotion_claims import go, small, train
from tests.store.test_spending import PATIENT, company, relaunch
from tuner.records import Epoch
from tuner.spec.study import Spec
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import claims, grants
from tuner.store.ledger.leases import Claimed, Ended, Lease, LeaseLostError, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.transactions import Transaction

EPOCHS = 9


def limited(spec: Spec, epochs: int | None, **more: Any) -> Spec:
    """Return a study with another budget in epochs."""
    return replace(spec, budget=replace(spec.budget, epochs=epochs, **more))


def trained(bench: Bench) -> int:
    """Count the stored epochs that were not reused."""
    return sum(not row.reused for row in bench.rows(t.epoch))


def left(bench: Bench, spec: Spec) -> int:
    """Return how many epochs are not granted yet."""
    with bench.database.transaction() as connection:
        transaction = Transaction(connection, lambda: bench.binding.storage, bench.study, 0)
        more = grants.left(transaction, spec)
    assert more is not None
    return more.free


@dataclass
class Simulated:
    """A worker that stores epochs without training."""

    ledger: Ledger
    held: list[Lease] = field(default_factory=list)
    curves: dict[int, list[Epoch]] = field(default_factory=dict)


@dataclass
class Simulation:
    """Workers on one study that train a few epochs at a time, in any order, until it ends."""

    bench: Bench
    chance: random.Random
    epochs: int
    workers: list[Simulated] = field(default_factory=list)

    def run(self, workers: int) -> None:
        """Train until no worker is left."""
        self.workers = [Simulated(self.bench.worker(PATIENT)) for _ in range(workers)]
        for step in range(3000):
            if not self.workers:
                return
            worker = self.chance.choice(self.workers)
            if worker.held and self.chance.random() < 0.8:
                self._train(worker, self.chance.choice(worker.held))
            else:
                self._claim(worker)
            if self.workers and self.chance.random() < 0.03:
                self._kill(self.chance.choice(self.workers))
            limit = self.bench.study.spec.epoch_limit
            assert limit is not None
            if step % 4:
                continue
            assert left(self.bench, self.bench.study.spec) >= 0
            assert trained(self.bench) <= limit
        raise AssertionError("the study does not end")

    def _claim(self, worker: Simulated) -> None:
        beside = company(worker.held) if worker.held else None
        if len(worker.held) > 1:
            return
        answer = worker.ledger.claim(None, adopt=True, company=beside)
        if isinstance(answer, Ended) and not worker.held:
            self.workers.remove(worker)
        elif isinstance(answer, Claimed):
            worker.held.append(answer.lease)
            curve = make_curve(*(1 / epoch for epoch in range(1, answer.lease.stored_epochs + 1)))
            # A new trial may begin with another trial's epochs.
            if not curve and self.chance.random() < 0.3:
                curve = [replace(make_epoch(1), reused=True)]
                worker.ledger.record(answer.lease, curve)
            worker.curves[answer.lease.trial_id] = curve

    def _train(self, worker: Simulated, lease: Lease) -> None:
        curve, until = worker.curves[lease.trial_id], lease.until or self.epochs
        new = [
            make_epoch(len(curve) + place + 1, 1 / (len(curve) + place + 1))
            for place in range(min(self.chance.randint(1, 3), until - len(curve)))
        ]
        curve += new
        worker.ledger.record(lease, new)
        deed = self.chance.random()
        if len(curve) == until and lease.until is None:
            worker.ledger.complete(lease, SETUP, DATASET, make_result(curve))
        elif len(curve) == until:
            worker.ledger.pause(lease, SETUP, f"key-{lease.trial_id}-{until}")
        elif deed < 0.03:
            worker.ledger.prune(lease, SETUP, "patient at epoch 3")
        elif deed < 0.06:
            worker.ledger.fail(lease, "broken")
        elif deed < 0.09:
            worker.ledger.give_back(lease, "a test")
        else:
            return
        worker.held.remove(lease)

    def _kill(self, worker: Simulated) -> None:
        """Kill a worker like kill -9: nothing is recorded, and its leases expire."""
        for lease in worker.held:
            self.bench.expire(lease)
        self.workers.remove(worker)
        self.workers.append(Simulated(self.bench.worker(PATIENT)))


def kinds() -> Sequence[Any]:
    """Return studies of several kinds, each with more than 40 epochs to train."""
    raced = small(trials=14 + 4, finish=3)
    raced = replace(raced, replicates=replace(raced.replicates, seeds=3, of="top", top=2))
    return [
        pytest.param(make_spec(seeds=4, epochs=EPOCHS), id="a grid over seeds"),
        pytest.param(make_spec(trials=12, epochs=EPOCHS, sampler="random"), id="random"),
        pytest.param(small(trials=20, finish=6), id="promoting"),
        pytest.param(raced, id="promoting, then a race"),
    ]


@pytest.mark.parametrize("spec", kinds())
def test_the_budget_is_met_exactly(database: Database, spec: Spec) -> None:
    """Workers die, prune, fail and reuse; larger budgets continue until the study is complete."""
    bench = Bench.launch(database, limited(spec, 25))
    simulation = Simulation(bench, random.Random(spec.total_trials), EPOCHS)
    for limit, workers in ((25, 5), (39, 1), (40, 3)):
        relaunch(bench, limited(spec, limit))
        simulation.run(workers)
        assert bench.state() == "spent"
        assert trained(bench) == limit
        with database.transaction() as connection:
            reasons = connection.execute(sa.select(t.study.c.reason)).scalars().all()
        assert reasons == [f"The budget of {limit} epochs is spent."]
    relaunch(bench, limited(spec, 10_000))
    simulation.run(4)
    assert bench.state() == "complete"
    assert not [row for row in bench.rows(t.lease) if row.state in ("held", "released")]
    if not spec.promotes:
        assert {row.state for row in bench.rows(t.lease)} == {"ended"}


def test_a_trial_pauses_where_the_budget_ends_and_goes_on_from_there(database: Database) -> None:
    """It resumes before all others, as the same attempt, with the epochs that others leave."""
    spec = make_spec(epochs=EPOCHS)
    bench = Bench.launch(database, limited(spec, 14))
    worker, peer = bench.worker(), bench.worker()
    first, second = claim_trial(worker), claim_trial(peer)
    assert (first.until, second.until) == (None, 5)
    train(peer, second)
    assert peer.claim(None, adopt=True) == Wait(claims.OUT, 2)
    # The other trial is stopped early, so six of its nine epochs are left.
    worker.record(first, make_curve(0.5, 0.4, 0.3))
    worker.prune(first, SETUP, "patient at epoch 3")
    again = claim_trial(peer)
    assert (again.number, again.stored_epochs, again.until) == (1, 5, None)
    third = claim_trial(worker)
    assert (third.number, third.until) == (2, 2)
    train(peer, again)
    train(worker, third)
    assert worker.claim(None, adopt=True) == Ended("spent", "The budget of 14 epochs is spent.")
    assert trained(bench) == 14
    # Without a limit it continues too.
    relaunch(bench, spec)
    last = claim_trial(bench.worker())
    assert (last.number, last.stored_epochs, last.until) == (2, 2, None)
    assert bench.rows(t.stretch) == []
    events = [row.text for row in bench.rows(t.event) if row.kind == "trial paused"]
    assert events == [f"at epoch {n}: the budget of epochs reaches no further" for n in (5, 2)]


def test_a_trial_that_the_budget_paused_is_compared_at_its_rungs_only(database: Database) -> None:
    """Between rungs its decision stands, and no further one is made."""
    spec = small(finish=2)
    bench = Bench.launch(database, limited(spec, 4))
    assert go(bench.worker()) == [(0, 0, 1), (1, 0, 1), (2, 0, 1), (0, 1, 2)]
    assert bench.state() == "spent"
    relaunch(bench, limited(spec, 10))
    assert go(bench.worker()) == [(0, 2, 3), (0, 3, 8)]
    starts = sorted((row.start, row.until) for row in bench.rows(t.stretch) if row.start)
    assert starts == [(1, 3), (3, None)]
    relaunch(bench, limited(spec, 16))
    told = go(bench.worker())
    assert told == [(0, 8, None), *[(n, 0, 1) for n in (3, 4, 5)], (1, 1, 3)]
    # The last one paused exactly at its rung, with the last epoch of the budget.
    relaunch(bench, limited(spec, 18))
    assert go(bench.worker()) == [(1, 3, 5)]


def test_reused_epochs_cost_nothing_until_they_have_to_be_trained(database: Database) -> None:
    """If reused epochs differ the trial is given back, and the epochs are granted again."""
    bench = Bench.launch(database, limited(make_spec(epochs=EPOCHS), 10))
    worker = bench.worker()
    held = claim_trial(worker)
    reused = [replace(one, reused=True) for one in make_curve(*[0.5] * 6)]
    worker.record(held, [*reused, make_epoch(7)])
    assert (trained(bench), left(bench, bench.study.spec)) == (1, 7)
    bench.expire(held)
    elsewhere = bench.worker()
    again = claim_trial(elsewhere)
    elsewhere.record(again, make_curve(0.7))
    assert trained(bench) == 0
    with pytest.raises(LeaseLostError):
        elsewhere.record(again, make_curve(0.7, 0.7))
    train(elsewhere, claim_trial(elsewhere))
    assert claim_trial(elsewhere).until == 10 - EPOCHS


def test_a_retried_trial_is_granted_its_epochs_anew(database: Database) -> None:
    """Its epochs were given to others meanwhile; it waits for a larger budget."""
    spec = make_spec(epochs=EPOCHS)
    bench = Bench.launch(database, limited(spec, 11))
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1)])
    while worker.fail(held, "broken") == "again":
        held = claim_trial(worker)
    train(worker, claim_trial(worker))
    assert control.retry(database, bench.binding, bench.study, []) == [0]
    train(worker, claim_trial(worker))
    assert isinstance(worker.claim(None, adopt=True), Ended)
    assert (bench.state(), trained(bench)) == ("spent", 11)
    relaunch(bench, limited(spec, 13))
    more = claim_trial(bench.worker())
    assert (more.number, more.stored_epochs, more.until) == (0, 2, 4)


def test_the_limit_that_is_reached_is_named(database: Database) -> None:
    """Of hours and epochs the first limit is named; full trainings are shown as in the file."""
    both = make_spec(epochs=EPOCHS, hours=1.0, full=0.5)
    assert both.epoch_limit == 4
    bench = Bench.launch(database, both)
    worker = bench.worker()
    train(worker, claim_trial(worker))
    told = "The budget of 0.5 full training runs (4 epochs) is spent."
    assert worker.claim(None, adopt=True) == Ended("spent", told)
    with database.transaction() as connection:
        connection.execute(sa.update(t.worker).values(device_seconds=3600.0))
    relaunch(bench, make_spec(epochs=EPOCHS, hours=1.0, full=2))
    assert bench.worker().claim(None, adopt=True) == Ended(
        "spent", "The budget of 1 hour is spent."
    )
