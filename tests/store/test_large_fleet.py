"""What large fleets need: claims without reading trials, few statements, no queue to notify."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import QUICK
from tests.store.specs import (
    Bench,
    claim_trial,
    finish,
    make_epoch,
    make_ranged,
    make_spec,
    optuna_trials,
)
from tests.store.test_ledger import cut_at_commit, persist
from tests.store.test_past import existing
from tuner.spec.study import Replicates
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.assignments import Assignment, next_assignment
from tuner.store.ledger.leases import Claimed, Wait
from tuner.store.ledger.ledger import Ledger

PATIENT = replace(QUICK, lease=600.0)
"""Leases too long to expire on a busy machine."""
LOCK = "pg_advisory_xact_lock"


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Record every statement that is sent."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("seed", range(3))
def test_the_next_cell_is_the_first_without_a_trial(database: Database, seed: int) -> None:
    """With or without gaps, also if trials and seeds are added while workers run."""
    spec = replace(make_ranged(trials=4, sampler="random"), replicates=Replicates(2))
    bench = Bench.launch(database, spec)
    chance = random.Random(seed)
    workers = [bench.worker(PATIENT) for _ in range(3)]
    trials, seeds = 4, 2
    for _ in range(25):
        worker = chance.choice(workers)
        if chance.random() < 0.25:
            trials, seeds = trials + 2 * chance.randrange(2), seeds + chance.randrange(2)
            trials += -trials % seeds
            if (trials, seeds) != (spec.budget.trials, spec.replicates.seeds):
                study = control.extend(database, bench.study, trials=trials, seeds=seeds)
                spec = study.spec
        expected = next_assignment(spec, existing(worker))
        answer = worker.claim(None, adopt=True)
        if expected is None:
            continue
        assert isinstance(expected, Assignment)
        assert isinstance(answer, Claimed)
        assert (answer.lease.configuration, answer.lease.seed) == (
            expected.configuration,
            expected.seed,
        )
        finish(worker, answer.lease)


def claimed_under_lock(worker: Ledger) -> list[str]:
    """Return the statements of a claim while it holds the study's lock."""
    with statements(worker.database) as sent:
        lease = claim_trial(worker)
    place = next(n for n, statement in enumerate(sent) if LOCK in statement)
    finish(worker, lease)
    # The number of values in a statement depends on the trial's parameters.
    return [statement.partition("VALUES")[0] for statement in sent[place + 1 :]]


def test_a_claim_is_as_short_after_many_trials(database: Database) -> None:
    """Under the lock, a claim sends the same few statements and reads no list of trials."""
    bench = Bench.launch(database, make_ranged(trials=12, sampler="random"))
    worker = bench.worker(PATIENT)
    first = claimed_under_lock(worker)
    for _ in range(8):
        claimed_under_lock(worker)
    last = claimed_under_lock(bench.worker(PATIENT))
    assert last == first
    assert len(last) <= 6
    assert not [sent for sent in last if "outcome" in sent]


def test_a_sampler_is_told_of_what_has_changed(database: Database) -> None:
    """A worker reads all trials once; after that only new and newly ended ones."""
    bench = Bench.launch(database, make_ranged(trials=8, sampler="tpe"))
    peer, worker = bench.worker(PATIENT), bench.worker(PATIENT)
    for _ in range(3):
        finish(peer, claim_trial(peer))
    held, other = claim_trial(peer), claim_trial(bench.worker(PATIENT))
    read: list[int] = []

    def count(_connection: object, cursor: Any, statement: str, *_: object) -> None:
        if "chosen" in statement:
            read.append(cursor.rowcount)

    sa.event.listen(database.engine, "after_cursor_execute", count)
    try:
        worker.observations()
        worker.observations()
        finish(peer, held)
        new = claim_trial(peer)
        read.append(-1)
        seen = worker.observations()
    finally:
        sa.event.remove(database.engine, "after_cursor_execute", count)
    assert read[:2] == [5, 0]
    assert read[read.index(-1) :] == [-1, 2]
    running = [one.number for one in seen if one.state == TrialState.RUNNING]
    assert running == [other.number, new.number]
    assert optuna_trials(worker)[-1].number == new.number


def test_an_idle_worker_is_told_how_many_wait(database: Database) -> None:
    """The more workers there are, the less often each of them polls."""
    bench = Bench.launch(database, make_spec())
    for _ in range(3):
        claim_trial(bench.worker(PATIENT))
    answer = bench.worker(PATIENT).claim(None, adopt=True)
    assert isinstance(answer, Wait)
    assert answer.workers == 4


def test_an_epoch_is_stored_by_one_statement(bench: Bench) -> None:
    """After the fence one statement stores our row, Optuna's value and the checkpoint's event."""
    worker = bench.worker(PATIENT)
    lease = claim_trial(worker)
    worker.record(lease, [make_epoch(1)])
    with statements(worker.database) as sent:
        worker.record(lease, [make_epoch(2), make_epoch(3)], checkpoint=3)
    assert len(sent) == 2
    assert "FOR UPDATE" in sent[0]
    assert optuna_trials(worker)[0].intermediate_values.keys() == {1, 2, 3}
    assert [row.text for row in bench.rows(t.event) if row.kind == "checkpoint"] == ["at epoch 3"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_checkpoint_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Also if the commit's answer is lost, and if only known epochs come with it."""
    worker = bench.worker(PATIENT)
    lease = claim_trial(worker)
    cuts = cut_at_commit(monkeypatch, worker, after=after)
    persist(lambda: worker.record(lease, [make_epoch(1)], checkpoint=1))
    assert cuts
    worker.record(lease, [make_epoch(1)], checkpoint=1)
    assert [row.text for row in bench.rows(t.event) if row.kind == "checkpoint"] == ["at epoch 1"]


def test_transactions_do_not_queue_to_announce(bench: Bench) -> None:
    """Of concurrent transactions one notifies about the study; the other commits without it."""
    first, second = bench.worker(PATIENT), bench.worker(PATIENT)
    leases = [claim_trial(first), claim_trial(second)]
    listener = bench.database.connect()
    listener.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)

    def announced() -> list[str]:
        listener.cursor().execute("SELECT 1")
        payloads = [note.payload for note in listener.notifies]
        listener.notifies.clear()
        return payloads

    try:
        listener.cursor().execute("LISTEN tuner")
        mine = str(bench.study.study_id)
        with first._transaction() as transaction:
            first._recorder.record(transaction, leases[0], [make_epoch(1)], 0)
            second.record(leases[1], [make_epoch(1)])
            assert announced() == []
        assert announced() == [mine]
        second.record(leases[1], [make_epoch(2)])
        assert announced() == [mine]
        # A change of the study itself always notifies.
        with first._transaction() as transaction:
            first._recorder.record(transaction, leases[0], [make_epoch(2)], 0)
            control.pause(bench.database, bench.study)
            assert announced() == [mine]
    finally:
        listener.close()


def test_a_renewal_writes_to_no_index() -> None:
    """Columns that change every few seconds are in no index, so renewals write to none."""
    renewed = {"lease": {"renewed", "expires"}, "worker": {"seen", "active_seconds", "load"}}
    for table in (t.lease, t.worker):
        for index in table.indexes:
            where = str(index.dialect_options["postgresql"]["where"])
            words = {column.name for column in index.columns} | set(re.findall(r"\w+", where))
            assert not words & renewed[table.name]
