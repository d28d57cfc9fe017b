"""Trials claimed to be trained beside others: of one kind, in order, no more than a share."""

from collections.abc import Callable, Mapping

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, claim_trial, finish, make_ranged, make_spec
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Company, Ended, Lease, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.tables import event, lease, study, trial

Fits = Callable[[Mapping[str, Value], int], bool]


def join(worker: Ledger, *held: Lease, fits: Fits = lambda *_: True) -> Lease | str:
    """Claim a trial beside those that are held; return why there is none, if so."""
    answer = worker.claim(None, adopt=True, company=Company(held, fits))
    if isinstance(answer, Claimed):
        return answer.lease
    assert isinstance(answer, Wait | Ended)
    return answer.reason


def all_of(worker: Ledger) -> list[Lease]:
    """Claim a trial, and others beside it until there is none."""
    held = [claim_trial(worker)]
    while isinstance(found := join(worker, *held), Lease):
        held.append(found)
    return held


def test_companions_come_in_the_order_of_the_grid(database: Database) -> None:
    """Each once, each with a lease of its own, and each told of in its history."""
    bench = Bench.launch(database, make_spec(seeds=2))
    held = all_of(bench.worker())
    assert [one.number for one in held] == list(range(6))
    assert {row.state for row in bench.rows(lease)} == {"held"}
    joined = [row.text for row in bench.rows(event) if row.kind == "joined"]
    assert joined[:2] == ["trained beside 0", "trained beside 0, 1"]


def test_a_worker_takes_no_more_than_its_share(database: Database) -> None:
    """Of what is not over, each worker that is there gets as much; who leaves, leaves his."""
    bench = Bench.launch(database, make_spec(seeds=4))
    first, second, _third = (bench.worker() for _ in range(3))
    assert len(all_of(first)) == 4
    held = all_of(second)
    assert len(held) == 4
    for one in held:
        finish(second, one)
    # Of the 8 that are left each of the three has a share of 3.
    assert len(all_of(second)) == 3


def test_the_next_trial_is_not_passed_over(database: Database) -> None:
    """If the next one in order is of another kind, the worker goes on with what it has."""
    dimensions = (Choice("hidden", (4, 8), {}), Choice("lr", (1e-3, 1e-2), {}))
    bench = Bench.launch(database, make_spec(dimensions=dimensions, seeds=1))
    worker = bench.worker()
    first = claim_trial(worker)

    def fits(chosen: Mapping[str, Value], _seed: int) -> bool:
        return chosen["hidden"] == first.chosen["hidden"]

    second = join(worker, first, fits=fits)
    assert isinstance(second, Lease)
    assert join(worker, first, second, fits=fits) == "the next trial is of another kind"
    assert len(bench.rows(trial)) == 2


def test_nobody_is_adopted_into_company(database: Database) -> None:
    """A trial that was given back, or whose holder fell silent, waits for who trains it alone."""
    bench = Bench.launch(database, make_spec(seeds=2))
    gone, worker = bench.worker(), bench.worker()
    given_back, lost = claim_trial(gone), claim_trial(bench.worker())
    gone.give_back(given_back, "a test")
    bench.expire(lost)
    held = claim_trial(worker, adopt=False)
    assert held.number == given_back.number
    found = join(worker, held)
    assert isinstance(found, Lease)
    assert found.number == 2


def test_what_a_sampler_must_choose_first_is_left_to_others(database: Database) -> None:
    """A learning sampler is asked by who is free; seeds of a known configuration need none."""
    spec = make_ranged(trials=6, sampler="tpe", sampler_options={"n_startup_trials": 2})
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    held = claim_trial(worker)
    assert join(worker, held) == "the next trial is not known yet"


def test_a_claim_whose_answer_was_lost_gives_the_same_trial(database: Database) -> None:
    """The worker has it already, and does not know: it is found before any other is made."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker = bench.worker()
    first = claim_trial(worker)
    unanswered = join(worker, first)
    assert join(worker, first) == unanswered
    assert len(bench.rows(trial)) == 2


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_a_study_that_takes_no_more_gives_no_company(database: Database, state: str) -> None:
    """Whoever is in training goes on; nobody joins."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker = bench.worker()
    held = claim_trial(worker)
    with database.transaction() as connection:
        connection.execute(sa.update(study).values(state=state, reason="a test"))
    assert join(worker, held) == "a test"
