"""Hours and money: stored with what they paid for, never counted twice, and bounded."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import sqlalchemy as sa

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_epoch,
    make_result,
    make_spec,
)
from tuner.settings import Timing
from tuner.spec.study import Budget, Spec
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import (
    Claimed,
    Company,
    Ended,
    Lease,
    LeaseLostError,
    Renewed,
    Wait,
)
from tuner.store.ledger.ledger import Ledger
from tuner.store.spending import Spending, Used, read_spending

HOUR = 3600.0
PATIENT = Timing(lease=HOUR)
"""Simulated workers keep their leases, however long the machine takes for a step."""


def spent(bench: Bench, price: float | None = None) -> Spending:
    """Return the study's stored spending."""
    with bench.database.transaction() as connection:
        return read_spending(connection, bench.study.study_id, Budget("grid", price_per_hour=price))


def renew(bench: Bench, who: Ledger, used: Used, *held: Lease) -> Renewed:
    """Renew as the worker's thread does."""
    post = workers.Post(bench.study.study_id, who.worker_id)
    with bench.database.transaction() as connection:
        return workers.renew(connection, post, held, who.timing, used)


def relaunch(bench: Bench, spec: Spec) -> None:
    """Launch the study's file again, changed."""
    bench.study = studies.launch(bench.database, bench.binding, spec, {}, new_version=False).study


def test_the_hours_are_those_of_all_workers_of_the_study(database: Database) -> None:
    """Those of workers that have left are included; those of another study are not."""
    bench, other = (Bench.launch(database, make_spec(name, hours=1.0)) for name in ("a", "b"))
    first, second = bench.worker(), bench.worker()
    renew(other, other.worker(), Used(99_999.0, 99_999.0))
    assert not renew(bench, first, Used(900.0, 900.0)).spent
    with database.transaction() as connection:
        post = workers.Post(bench.study.study_id, first.worker_id)
        workers.leave(connection, post, Used(1800.0, 1800.0))
    assert not renew(bench, second, Used(1799.0, 1799.0)).spent
    assert renew(bench, second, Used(1800.0, 1800.0)).spent == "The budget of 1 hour is spent."
    assert spent(bench) == Spending(1.0, None)


def test_workers_on_one_gpu_divide_its_hours(bench: Bench) -> None:
    """The device's time counts; a worker of an older version counts as alone on its device."""
    renew(bench, bench.worker(), Used(3600.0, 1800.0))
    with bench.database.transaction() as connection:
        old = {"study_id": bench.study.study_id, "host": "h", "pid": 1, "device": "cuda:0"}
        connection.execute(sa.insert(t.worker).values(**old, active_seconds=7200.0))
    assert spent(bench).hours == pytest.approx(2.5)


def test_money_is_hours_at_the_price_of_the_machine_or_of_the_study(database: Database) -> None:
    """A machine's own price takes precedence, even a price of 0."""
    bench = Bench.launch(database, make_spec(money=10.0, price=2.5))
    prices = (None, 4.0, 0.0)
    for price in prices:
        who = workers.Worker("here", 1, "cuda:0", price)
        with database.transaction() as connection:
            post = workers.join(connection, bench.study.study_id, who)
            workers.charge(connection, post.worker_id, Used(HOUR, HOUR))
    assert spent(bench, price=2.5) == Spending(3.0, 6.5)
    assert spent(bench) == Spending(3.0, 4.0), "only where a price is known"
    worker = bench.worker()
    assert not renew(bench, worker, Used(1.3 * HOUR, 1.3 * HOUR)).spent
    assert renew(bench, worker, Used(1.4 * HOUR, 1.4 * HOUR)).spent == (
        "The cost limit of 10 is reached."
    )


def test_a_renewal_that_comes_late_takes_nothing_back(bench: Bench) -> None:
    """The thread may have read its clock before the main loop stored a later time."""
    worker = bench.worker()
    worker.used = lambda: Used(50.0, 25.0)
    held = claim_trial(worker)
    finish(worker, held)
    renew(bench, worker, Used(49.0, 24.5))
    (row,) = bench.rows(t.worker)
    assert (row.active_seconds, row.device_seconds) == (50.0, 25.0)


@pytest.mark.parametrize("deed", ["record", "complete", "prune", "fail", "interrupt", "give back"])
def test_what_is_stored_is_paid_for_in_the_same_transaction(database: Database, deed: str) -> None:
    """If the transaction fails, or the lease was lost, neither is stored."""
    bench = Bench.launch(database, make_spec(hours=1.0))
    worker = bench.worker()
    held = claim_trial(worker)
    curve = [make_epoch(number, seconds=10.0) for number in (1, 2, 3)]
    if deed == "complete":
        worker.record(held, curve)
    worker.used = lambda: Used(40.0, 40.0)

    def act(lease: Lease) -> object:
        acts: dict[str, Callable[[], object]] = {
            "record": lambda: worker.record(lease, curve),
            "complete": lambda: worker.complete(lease, SETUP, DATASET, make_result(curve)),
            "prune": lambda: worker.prune(lease, SETUP, "median at epoch 1"),
            "fail": lambda: worker.fail(lease, "broken"),
            "interrupt": lambda: worker.interrupt(lease, "killed"),
            "give back": lambda: worker.give_back(lease, "a test"),
        }
        return acts[deed]()

    before = bench.contents()
    with pytest.raises(LeaseLostError):
        act(replace(held, token=7))
    with database.transaction() as connection:
        # The last statement of the transaction, which charges the worker, fails.
        connection.execute(
            sa.text("ALTER TABLE tuner.worker ADD CONSTRAINT broke CHECK (active_seconds < 1)")
        )
    with pytest.raises(sa.exc.IntegrityError):
        act(held)
    assert bench.contents() == before
    with database.transaction() as connection:
        connection.execute(sa.text("ALTER TABLE tuner.worker DROP CONSTRAINT broke"))
    act(held)
    assert bench.contents() != before
    assert spent(bench).hours == pytest.approx(40.0 / HOUR)


def test_a_study_whose_trials_have_all_ended_is_complete(database: Database) -> None:
    """Even if the last of them has used the budget up."""
    bench = Bench.launch(database, make_spec(dimensions=(), hours=0.5))
    worker = bench.worker()
    worker.used = lambda: Used(HOUR, HOUR)
    finish(worker, claim_trial(worker))
    assert worker.claim(None, adopt=True) == Ended("complete", "")
    assert bench.state() == "complete"


def test_a_larger_budget_goes_on_where_the_study_was(database: Database) -> None:
    """Trials that were given back resume under their numbers, with their epochs."""
    bench = Bench.launch(database, make_spec(hours=1.0))
    worker = bench.worker()
    held = claim_trial(worker)
    worker.used = lambda: Used(HOUR, HOUR)
    worker.record(held, [make_epoch(1)])
    assert renew(bench, worker, worker.used(), held).spent
    worker.give_back(held, "the budget is spent")
    assert worker.claim(None, adopt=True) == Ended("spent", "The budget of 1 hour is spent.")
    assert renew(bench, bench.worker(), Used()).study_state == "spent"
    relaunch(bench, make_spec(hours=1.0))
    again = bench.worker().claim(None, adopt=True)
    assert again == Ended("spent", "The budget of 1 hour is spent."), "not larger"
    relaunch(bench, make_spec(hours=2.0))
    assert bench.state() == "open"
    # A worker that never left notices it too.
    assert not renew(bench, worker, worker.used()).spent
    lease = claim_trial(bench.worker())
    assert (lease.number, lease.stored_epochs) == (held.number, 1)
    assert spent(bench).hours == 1.0


@dataclass
class Simulated:
    """A worker that trains nothing: its clock is the simulation's."""

    ledger: Ledger
    joined: float
    used_seconds: float = 0.0
    renewed: float = 0.0
    held: list[Lease] = field(default_factory=list)
    done: Counter[int] = field(default_factory=Counter)
    leaving: bool = False
    epoch_ends: float = 0.0


@dataclass
class Simulation:
    """Many workers on one study, in steps of a second: kills, adoptions, packs of two.

    `truth` is what devices really trained, kept apart from everything stored.
    """

    bench: Bench
    rng: random.Random
    epochs: int
    renew_seconds: float = 5.0
    now: float = 0.0
    truth: float = 0.0
    killed: list[int] = field(default_factory=list)
    """Ids of workers."""
    workers: list[Simulated] = field(default_factory=list)

    def join(self) -> None:
        """Add a worker, whose ledger reads the simulation's clock."""
        worker = Simulated(self.bench.worker(PATIENT), self.now, renewed=self.now)
        worker.ledger.used = lambda: Used(worker.used_seconds, worker.used_seconds)
        self.workers.append(worker)

    def step(self) -> None:
        """Let a second pass for all workers."""
        self.now += 1.0
        for worker in self.workers:
            if worker.held:
                worker.used_seconds += 1.0
                self.truth += 1.0
        for worker in list(self.workers):
            self._act(worker)

    def _act(self, worker: Simulated) -> None:
        if worker.held and self.now >= worker.epoch_ends:
            self._end_epoch(worker)
        if self.now - worker.renewed >= self.renew_seconds:
            worker.renewed = self.now
            told = renew(self.bench, worker.ledger, worker.ledger.used(), *worker.held)
            worker.leaving = bool(told.spent) or told.study_state != "open"
        if not worker.held:
            answer = worker.ledger.claim(None, adopt=True)
            if isinstance(answer, Ended):
                self.workers.remove(worker)
            elif isinstance(answer, Claimed):
                self._take(worker, answer.lease)
            else:
                assert isinstance(answer, Wait)
        elif len(worker.held) == 1 and not worker.leaving and self.rng.random() < 0.2:
            second = worker.ledger.claim(None, adopt=True, company=company(worker.held))
            if isinstance(second, Claimed):
                self._take(worker, second.lease)

    def _take(self, worker: Simulated, lease: Lease) -> None:
        if not worker.held:
            worker.epoch_ends = self.now + self.rng.randint(1, 8)
        worker.held.append(lease)
        worker.done[lease.trial_id] = lease.stored_epochs

    def _end_epoch(self, worker: Simulated) -> None:
        worker.epoch_ends = self.now + self.rng.randint(1, 8)
        for lease in list(worker.held):
            worker.done[lease.trial_id] += 1
            number = worker.done[lease.trial_id]
            worker.ledger.record(lease, [make_epoch(number, seconds=0.5)])
            if number == self.epochs:
                curve = [make_epoch(one, seconds=0.5) for one in range(1, number + 1)]
                worker.ledger.complete(lease, SETUP, DATASET, make_result(curve))
                worker.held.remove(lease)
            elif worker.leaving:
                worker.ledger.give_back(lease, "the budget is spent")
                worker.held.remove(lease)

    def kill(self) -> None:
        """Kill a worker like kill -9: nothing is recorded, and its leases expire."""
        victim = self.rng.choice(self.workers)
        self.workers.remove(victim)
        self.killed.append(victim.ledger.worker_id)
        for lease in victim.held:
            self.bench.expire(lease)


def company(held: list[Lease]) -> Company:
    """Return the company of a worker that wants a second trial of any kind."""
    return Company(held, lambda _chosen, _seed: True)


def test_a_simulated_fleet_keeps_its_bounds(database: Database) -> None:
    """Six workers, one killed now and then, until the hours are spent; then again with more.

    At most one renewal per kill is missing in what was really trained. Beyond the budget each
    worker trains at most two renewals and an epoch.
    """
    budget = 100.0
    spec = make_spec(seeds=8, epochs=4, hours=budget / HOUR)
    simulation = Simulation(Bench.launch(database, spec), random.Random(1), epochs=4)
    bench = simulation.bench
    for limit in (budget, 2 * budget):
        for _ in range(6):
            simulation.join()
        while simulation.workers:
            simulation.step()
            if len(simulation.workers) > 3 and simulation.rng.random() < 0.04:
                simulation.kill()
                simulation.join()
            if simulation.now % 3:
                continue
            counted = spent(bench).hours * HOUR
            missing = simulation.truth - counted
            running = sum(bool(worker.held) for worker in simulation.workers)
            assert missing + 1e-6 >= 0
            assert missing <= simulation.renew_seconds * (len(simulation.killed) + running) + 1e-6
            paid = sum(row.seconds for row in bench.rows(t.epoch))
            assert paid <= counted + 1e-6, "no epoch without its cost"
        over = spent(bench).hours * HOUR - limit
        assert bench.state() == "spent"
        assert 0 <= over <= 6 * (2 * simulation.renew_seconds + 8)
        held = {row.worker_id for row in bench.rows(t.lease) if row.state == "held"}
        assert held <= {*simulation.killed}, "all others have given their trials back"
        relaunch(bench, make_spec(seeds=8, epochs=4, hours=2 * budget / HOUR))
    assert simulation.killed
