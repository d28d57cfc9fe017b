"""Claims of trials to train beside others: of one kind, in order, within a worker's share."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.conftest import QUICK
from tests.store.specs import Bench, claim_trial, finish, make_ranged, make_spec
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Company, Ended, Lease, Wait
from tuner.store.ledger.ledger import Ledger

PATIENT = replace(QUICK, lease=600.0)
"""No lease expires, and no worker counts as gone, because a machine is busy."""
Fits = Callable[[Mapping[str, Value], int], bool]


def join(worker: Ledger, *held: Lease, fits: Fits = lambda *_: True) -> Lease | str:
    """Claim a trial beside those already held, or return why there is none."""
    answer = worker.claim(None, adopt=True, company=Company(held, fits))
    if isinstance(answer, Claimed):
        return answer.lease
    assert isinstance(answer, Wait | Ended)
    return answer.reason


def all_of(worker: Ledger) -> list[Lease]:
    """Claim a trial, and others beside it until there are none."""
    held = [claim_trial(worker)]
    while isinstance(found := join(worker, *held), Lease):
        held.append(found)
    return held


def test_companions_come_in_the_order_of_the_grid(database: Database) -> None:
    """Each is claimed once, with its own lease, and recorded in its history."""
    bench = Bench.launch(database, make_spec(seeds=2))
    held = all_of(bench.worker(PATIENT))
    assert [one.number for one in held] == list(range(6))
    assert {row.state for row in bench.rows(t.lease)} == {"held"}
    joined = [row.text for row in bench.rows(t.event) if row.kind == "joined"]
    assert joined[:2] == ["trained together with 0", "trained together with 0, 1"]


def test_a_worker_takes_no_more_than_its_share(database: Database) -> None:
    """Workers share the unfinished trials equally; a worker that leaves frees its share."""
    bench = Bench.launch(database, make_spec(seeds=4))
    first, second, _third = (bench.worker(PATIENT) for _ in range(3))
    assert len(all_of(first)) == 4
    held = all_of(second)
    assert len(held) == 4
    for one in held:
        finish(second, one)
    # Of the 8 remaining trials each of the three workers has a share of 3.
    assert len(all_of(second)) == 3


def test_the_next_trial_is_not_passed_over(database: Database) -> None:
    """If the next trial in order is of another kind, the worker continues with what it has."""
    dimensions = (Choice("hidden", (4, 8), {}), Choice("lr", (1e-3, 1e-2), {}))
    bench = Bench.launch(database, make_spec(dimensions=dimensions, seeds=1))
    worker = bench.worker(PATIENT)
    first = claim_trial(worker)

    def fits(chosen: Mapping[str, Value], _seed: int) -> bool:
        return chosen["hidden"] == first.chosen["hidden"]

    second = join(worker, first, fits=fits)
    assert isinstance(second, Lease)
    assert join(worker, first, second, fits=fits) == "the next trial is of another kind"
    assert len(bench.rows(t.trial)) == 2


def test_a_trial_that_was_given_back_joins_before_new_ones(database: Database) -> None:
    """It resumes in a pack if it is of the same kind and has never failed."""
    bench = Bench.launch(database, make_spec(seeds=2))
    gone, worker = bench.worker(PATIENT), bench.worker(PATIENT)
    held, given_back = claim_trial(worker), claim_trial(gone)
    gone.give_back(given_back, "a test")
    found = join(worker, held)
    assert isinstance(found, Lease)
    assert (found.number, found.token) == (given_back.number, 2)
    worker.give_back(found, "a test")
    assert join(worker, held, fits=lambda *_: False) == "an unfinished trial goes first"


@pytest.mark.parametrize("deed", ["interrupt", "fail", "expire"])
def test_who_was_interrupted_is_waited_for_and_not_joined_by(database: Database, deed: str) -> None:
    """No companion is claimed while an interrupted trial waits, which must be trained alone."""
    bench = Bench.launch(database, make_spec(seeds=2))
    other, worker = bench.worker(PATIENT), bench.worker(PATIENT)
    held, odd = claim_trial(worker), claim_trial(other)
    if deed == "interrupt":
        other.interrupt(odd, "its trainer was killed")
    elif deed == "fail":
        other.fail(odd, "broken")
    else:
        bench.expire(odd)
    assert join(worker, held) == "an unfinished trial goes first"
    finish(worker, held)
    adopted = claim_trial(worker)
    assert (adopted.number, adopted.alone) == (odd.number, True)


def test_workers_that_died_have_no_share(database: Database) -> None:
    """A killed worker's exit is not recorded; not seen for a lease, it has no share."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker, dead = bench.worker(PATIENT), bench.worker(PATIENT)
    with database.transaction() as connection:
        long_ago = sa.func.clock_timestamp() - sa.text("interval '1 hour'")
        gone = t.worker.c.worker_id == dead.worker_id
        connection.execute(sa.update(t.worker).where(gone).values(seen=long_ago))
    assert len(all_of(worker)) == 6


def test_what_a_sampler_must_choose_first_is_left_to_others(database: Database) -> None:
    """Only a free worker asks a learning sampler; seeds of a known configuration need none."""
    spec = make_ranged(trials=6, sampler="tpe", sampler_options={"n_startup_trials": 2})
    bench = Bench.launch(database, spec)
    worker = bench.worker(PATIENT)
    held = claim_trial(worker)
    assert join(worker, held) == "the next trial is not decided yet"


def test_a_claim_whose_answer_was_lost_gives_the_same_trial(database: Database) -> None:
    """The worker has it already without knowing: it is returned before a new one is created."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker = bench.worker(PATIENT)
    first = claim_trial(worker)
    unanswered = join(worker, first)
    assert join(worker, first) == unanswered
    assert len(bench.rows(t.trial)) == 2


@pytest.mark.parametrize("state", ["paused", "stopped"])
def test_a_study_that_takes_no_more_gives_no_company(database: Database, state: str) -> None:
    """In a stopped or paused study trials in training continue; none joins."""
    bench = Bench.launch(database, make_spec(seeds=2))
    worker = bench.worker(PATIENT)
    held = claim_trial(worker)
    with database.transaction() as connection:
        connection.execute(sa.update(t.study).values(state=state, reason="a test"))
    assert join(worker, held) == "a test"
