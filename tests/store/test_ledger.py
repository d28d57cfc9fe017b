"""The ledger as a whole: exactly N trials, and connections that break at the worst moments."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg2
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from tenacity.stop import stop_after_attempt

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_curve,
    make_ranged,
    make_result,
    make_spec,
    optuna_trials,
)
from tuner.spec.study import Spec
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database, is_outage, patiently
from tuner.store.ledger import claims, endings, recording
from tuner.store.ledger.leases import Claimed, Ended, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.transactions import Transaction

T = TypeVar("T")


def train_all(worker: Ledger) -> None:
    """Claim and finish trials until the study ends."""
    while True:
        answer = worker.claim(None, adopt=False)
        if isinstance(answer, Ended):
            return
        if isinstance(answer, Claimed):
            finish(worker, answer.lease)


@pytest.mark.parametrize(
    "spec",
    [make_spec(seeds=4), make_ranged(trials=13, sampler="random")],
    ids=["grid of 12", "13 random"],
)
def test_eight_threads_make_exactly_the_budget(database: Database, spec: Spec) -> None:
    """Eight workers on eight connections end with N trials, each pair and number once."""
    bench = Bench.launch(database, spec)
    databases = [Database(database.address) for _ in range(8)]
    crew = [bench.worker(database=one) for one in databases]
    with ThreadPoolExecutor(8) as pool:
        # A worker that claims another's trial violates a constraint, which would be raised here.
        assert list(pool.map(train_all, crew)) == [None] * 8
    for one in databases:
        one.close()

    trials = bench.rows(t.trial)
    assert sorted(row.number for row in trials) == list(range(spec.total_trials))
    pairs = Counter((row.configuration, row.seed) for row in trials)
    assert set(pairs.values()) == {1}
    assert len(bench.rows(t.epoch)) == 3 * spec.total_trials
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": spec.total_trials}
    seen = optuna_trials(bench.worker())
    assert [one.state for one in seen] == [TrialState.COMPLETE] * spec.total_trials
    assert bench.state() == "complete"


def terminate(database: Database, connection: sa.Connection) -> None:
    """Terminate a connection's backend, as an operator or a crash would."""
    victim = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    _terminate(database, victim)


def _terminate(database: Database, pid: int) -> None:
    with Database(database.address) as other, other.transaction() as killer:
        killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


def cut_around(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, database: Database, *, after: bool
) -> list[str]:
    """Cut the connection at one call in a transaction, before or after it; only once."""
    original = getattr(module, name)
    cuts: list[str] = []

    def cutting(first: Any, *rest: Any, **named: Any) -> Any:
        connection = first.connection if isinstance(first, Transaction) else _bound(first)
        if not cuts and not after:
            cuts.append(name)
            terminate(database, connection)
        result = original(first, *rest, **named)
        if not cuts:
            cuts.append(name)
            terminate(database, connection)
        return result

    monkeypatch.setattr(module, name, cutting)
    return cuts


def _bound(given: Any) -> sa.Connection:
    if isinstance(given, sa.Connection):
        return given
    connection: sa.Connection = given._backend.scoped_session.get_bind()
    return connection


def cut_at_commit(monkeypatch: pytest.MonkeyPatch, worker: Ledger, *, after: bool) -> list[str]:
    """Cut the connection just before the commit, or after it but before its answer; only once."""
    dialect = worker.database.engine.dialect
    original = dialect.do_commit
    cuts: list[str] = []

    def commit(connection: Any) -> None:
        if cuts:
            original(connection)
            return
        cuts.append("commit")
        pid = connection.get_backend_pid()
        if after:
            original(connection)
        _terminate(worker.database, pid)
        if not after:
            original(connection)
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(dialect, "do_commit", commit)
    return cuts


def persist(work: Callable[[], T]) -> T:
    """Run work as a supervisor does: again after each outage."""
    return patiently(work, stop=stop_after_attempt(5), before_sleep=lambda _: None)


@pytest.mark.parametrize(
    ("name", "after"),
    [("add_trial", False), ("add_trial", True), ("_insert_trial", True)],
    ids=["between count and creation", "after the creation", "with the lease written"],
)
def test_a_claim_cut_inside_creates_its_trial_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    """A connection lost between count and creation costs a retry, not a trial."""
    worker = bench.worker()
    cuts = cut_around(monkeypatch, claims, name, bench.database, after=after)
    held = persist(lambda: claim_trial(worker))
    assert cuts == [name]
    assert held.number == 0
    finish(worker, held)
    train_all(worker)
    assert_exact(bench, worker)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_claim_cut_at_its_commit_creates_its_trial_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A claim whose answer was lost finds its trial, and creates no second one."""
    worker = bench.worker()
    cuts = cut_at_commit(monkeypatch, worker, after=after)
    held = persist(lambda: claim_trial(worker))
    assert cuts
    assert (held.number, held.token) == (0, 1)
    finish(worker, held)
    train_all(worker)
    assert_exact(bench, worker)


def assert_exact(bench: Bench, worker: Ledger) -> None:
    """Check that the study has exactly its budget, in our tables and in Optuna's."""
    total = bench.study.spec.total_trials
    assert sorted(row.number for row in bench.rows(t.trial)) == list(range(total))
    assert [one.state for one in optuna_trials(worker)] == [TrialState.COMPLETE] * total
    assert [one.number for one in optuna_trials(worker)] == list(range(total))
    assert len(bench.rows(t.outcome)) == total


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_record_cut_at_its_commit_stores_each_epoch_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A record whose answer is lost is repeated without a second row or decision."""
    spec = make_spec(pruner="threshold", pruner_options={"upper": 0.9})
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    held = claim_trial(worker)
    cuts = cut_at_commit(monkeypatch, worker, after=after)
    answer = persist(lambda: worker.record(held, make_curve(0.5, 0.4, 1.5, 0.3)))
    assert cuts
    assert answer.stop_epoch == 3
    assert [row.epoch for row in bench.rows(t.epoch)] == [1, 2, 3]
    assert [(row.epoch, row.prune) for row in bench.rows(t.decision)] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    assert optuna_trials(worker)[0].intermediate_values == {1: 0.5, 2: 0.4, 3: 1.5}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_completion_cut_at_its_commit_happens_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A completion whose answer is lost is repeated without a second outcome."""
    worker = bench.worker()
    held = claim_trial(worker)
    curve = make_curve(0.6, 0.5)
    worker.record(held, curve)
    cuts = cut_at_commit(monkeypatch, worker, after=after)
    persist(lambda: worker.complete(held, SETUP, DATASET, make_result(curve)))
    assert cuts
    assert [row.state for row in bench.rows(t.outcome)] == ["COMPLETE"]
    assert len(bench.rows(t.prediction)) == 2
    assert [row.kind for row in bench.rows(t.event)].count("complete") == 1
    ended = optuna_trials(worker)[0]
    assert (ended.state, ended.value) == (TrialState.COMPLETE, 0.5)


@pytest.mark.parametrize(
    ("module", "name"),
    [(recording, "_insert_decisions"), (endings, "end_trial"), (endings, "_keep_outcome")],
    ids=["epochs", "end_trial", "outcome"],
)
def test_a_cut_inside_leaves_both_schemas_as_they_were(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """Our rows and Optuna's roll back together when the connection breaks between them."""
    worker = bench.worker()
    held = claim_trial(worker)
    curve = make_curve(0.6, 0.5)
    if module is endings:
        worker.record(held, curve)
    before = bench.contents()
    cuts = cut_around(monkeypatch, module, name, bench.database, after=True)
    deeds: dict[Any, Callable[[], object]] = {
        endings: lambda: worker.complete(held, SETUP, DATASET, make_result(curve)),
        recording: lambda: worker.record(held, curve),
    }
    with pytest.raises(Exception) as caught:  # noqa: PT011  # many types; distinguished just below
        deeds[module]()
    assert cuts == [name]
    assert is_outage(caught.value)
    assert bench.contents() == before
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))
    assert optuna_trials(worker)[0].state == TrialState.COMPLETE


def test_a_worker_waits_while_the_last_trials_run(bench: Bench) -> None:
    """When all trials are assigned the next worker waits, and then learns of the end."""
    first, second = bench.worker(), bench.worker()
    held = [claim_trial(bench.worker()) for _ in range(2)]
    assert len(held) == 2
    last = claim_trial(first)
    assert isinstance(second.claim(None, adopt=True), Wait)
    finish(first, last)
    assert isinstance(second.claim(None, adopt=True), Wait)


def test_a_claim_on_a_deleted_study_ends_the_worker(bench: Bench) -> None:
    """A worker whose study is deleted exits with a message."""
    worker = bench.worker()
    with bench.database.transaction() as connection:
        studies.delete(connection, bench.study)
    answer = worker.claim(None, adopt=True)
    assert answer == Ended("stopped", "The study was deleted.")
