"""A worker from start to end: waiting, outages, deletion, hours; learning samplers."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish, make_ranged, make_spec, optuna_trials
from tests.work.conftest import Station
from tuner.errors import DatabaseUnreachableError, UnknownStudyError
from tuner.store import studies, turns
from tuner.store import tables as t
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Ended
from tuner.work import worker as worker_module
from tuner.work.stopping import StopRequest
from tuner.work.worker import Visit, rest_after, work


def test_a_study_that_never_appears_is_told(station: Station) -> None:
    """After its patience a worker names the study that it waited for."""
    orders = replace(station.orders("nowhere", "quick"), patience_seconds=0.1)
    with pytest.raises(UnknownStudyError, match="nowhere"):
        work(station.settings, orders, StopRequest())


def test_a_database_that_never_answers_is_told(station: Station) -> None:
    """After its patience a worker names the database that it waited for."""
    orders = replace(station.orders("small", "quick"), patience_seconds=0.1)
    nowhere = replace(station.settings, database_url="postgresql://me@127.0.0.1:1/x")
    with pytest.raises(DatabaseUnreachableError, match=r"127\.0\.0\.1"):
        work(nowhere, orders, StopRequest())


def test_a_connection_lost_at_the_start_is_waited_out(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarts just as a worker finds its study and joins does no harm."""
    bench = station.launch(make_spec(dimensions=(), epochs=1))
    lost = []

    def flaky(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(connection: sa.Connection, *rest: Any) -> Any:
            if name not in lost:
                lost.append(name)
                connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
            return original(connection, *rest)

        return call

    monkeypatch.setattr(studies, "find", flaky("find", studies.find))
    monkeypatch.setattr(workers, "join", flaky("join", workers.join))
    assert station.work("small", "quick").state == "complete"
    assert lost == ["find", "join"]
    assert len(bench.rows(t.worker)) == 1


def test_a_study_deleted_while_it_is_trained_ends_the_worker(station: Station) -> None:
    """A worker in the middle of a trial notices the deletion and exits without an error."""
    bench = station.launch(make_spec(epochs=500))
    ended = []

    def run() -> None:
        ended.append(work(station.settings, station.orders("small", "chatty"), StopRequest()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: bench.rows(t.epoch), "an epoch was recorded")
    with station.database.transaction() as connection:
        studies.delete(connection, bench.study)
    thread.join(30)
    assert [(one.state, one.reason) for one in ended] == [("stopped", "The study was deleted.")]


def test_a_trial_that_is_taken_away_is_dropped(station: Station) -> None:
    """A worker whose trial was adopted by a peer stops training it and claims another."""
    bench = station.launch(make_spec(dimensions=(), seeds=2, epochs=4))
    thread = station.in_thread("small", "held", StopRequest())
    until(lambda: bench.rows(t.lease), "the trial was claimed")
    with station.database.transaction() as connection:
        connection.execute(sa.update(t.lease).values(token=2, worker_id=10**6))
    until(lambda: len(bench.rows(t.trial)) == 2, "the worker has taken the next trial")
    with station.database.transaction() as connection:
        connection.execute(sa.update(t.lease).values(state="released").where(t.lease.c.token == 2))
    (station.folder / "go").touch()
    thread.join(30)
    assert [row.token for row in sorted(bench.rows(t.outcome), key=lambda r: r.trial_id)] == [3, 1]
    assert len(bench.rows(t.epoch)) == 8


def test_when_the_hours_are_spent_trials_are_given_back(station: Station) -> None:
    """Running trials finish their epoch and are given back, and the study ends with the reason."""
    bench = station.launch(make_spec(epochs=500, hours=1.0))
    ended = []

    def run() -> None:
        ended.append(work(station.settings, station.orders("small", "slow"), StopRequest()))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: bench.rows(t.epoch), "an epoch was recorded")
    with station.database.transaction() as connection:
        connection.execute(
            sa.insert(t.worker).values(
                study_id=bench.study.study_id, host="h", pid=1, device="cpu", active_seconds=3600
            )
        )
    thread.join(30)
    (answer,) = ended
    assert (answer.state, answer.reason) == ("spent", "The budget of 1 hour is spent.")
    assert [row.state for row in bench.rows(t.lease)] == ["released"]
    told = [row.text for row in bench.rows(t.event) if row.kind == "given back"]
    assert told == ["the budget is spent"]


def test_a_learning_study_is_trained_to_its_end(station: Station) -> None:
    """With TPE and replicates every configuration is trained under each seed."""
    spec = make_ranged("small", trials=6, sampler="tpe", sampler_options={"n_startup_trials": 2})
    spec = replace(spec, replicates=replace(spec.replicates, seeds=2))
    bench = station.launch(spec)
    assert station.work("small", "quick").state == "complete"
    rows = bench.rows(t.trial)
    assert Counter(row.configuration for row in rows) == {0: 2, 1: 2, 2: 2}
    chosen = {(row.configuration, str(row.chosen)) for row in rows}
    assert len(chosen) == 3


def test_a_silent_peer_s_trial_is_adopted_after_the_grace(station: Station) -> None:
    """A worker alone with an expired lease waits for the grace period, then finishes the trial."""
    bench = station.launch(make_spec(dimensions=(), epochs=3))
    dead = bench.worker()
    held = claim_trial(dead)
    bench.expire(held)
    assert station.work("small", "quick").state == "complete"
    (row,) = bench.rows(t.outcome)
    assert (row.state, row.token) == ("COMPLETE", 2)
    assert optuna_trials(dead)[0].state == TrialState.COMPLETE


def test_a_complete_study_is_left_at_once(station: Station) -> None:
    """A worker that starts after the end says so and trains nothing."""
    bench = station.launch(make_spec(dimensions=()))
    early = bench.worker()
    finish(early, claim_trial(early))
    assert station.work("small", "quick").state == "complete"
    assert len(bench.rows(t.trial)) == 1


def test_a_lifetime_ends_a_worker_politely(station: Station) -> None:
    """It finishes its epoch, gives the trial back, and names its lifetime as the reason."""
    bench = station.launch(make_spec(dimensions=(), epochs=500))
    stop = StopRequest()
    thread = station.in_thread("small", "slow", stop)
    until(lambda: bench.rows(t.epoch), "an epoch was recorded")
    stop.after(0.0)
    thread.join(30)
    assert not thread.is_alive()
    assert stop.lifetime_over
    assert [row.state for row in bench.rows(t.lease)] == ["released"]
    assert bench.state() == "open"


def test_an_idle_worker_leaves_a_study_whose_trials_others_have(station: Station) -> None:
    """It waits only for its idle time, not for the end of the study."""
    bench = station.launch(make_spec(dimensions=()))
    claim_trial(bench.worker())
    orders = replace(station.orders("small", "quick"), idle_seconds=0.1)
    ended = work(station.settings, orders, StopRequest())
    assert ended.state == "open"
    assert "No trial was free" in ended.reason


def test_an_idle_worker_waits_for_a_study_to_be_launched(station: Station) -> None:
    """Its idle time is also its patience for the study."""
    orders = replace(station.orders("small", "quick"), idle_seconds=30.0, patience_seconds=0.0)
    ended: list[str] = []
    thread = threading.Thread(
        target=lambda: ended.append(work(station.settings, orders, StopRequest()).state)
    )
    thread.start()
    station.launch(make_spec(dimensions=(), epochs=1))
    thread.join(30)
    assert ended == ["complete"]


def ends_of(bench: Bench) -> list[Any]:
    """Return when a study's own trials ended."""
    own = {row.trial_id for row in bench.rows(t.trial) if row.study_id == bench.study.study_id}
    return [row.ended for row in bench.rows(t.outcome) if row.trial_id in own]


def test_a_worker_on_any_study_trains_them_by_priority(station: Station) -> None:
    """The studies are trained by priority until nothing is left."""
    order = []
    for name, priority in (("low", -1), ("usual", 0), ("high", 1)):
        bench = station.launch(make_spec(name, dimensions=(), epochs=1))
        with station.database.transaction() as connection:
            turns.set_priority(connection, bench.study, priority, "a test")
        order.append(bench)
    orders = replace(station.orders("", "quick"), study=None)
    ended = work(station.settings, orders, StopRequest())
    assert ended == Ended("complete", "No open study is left.")
    ends = [end for bench in reversed(order) for end in ends_of(bench)]
    assert len(ends) == 3
    assert ends == sorted(ends)


def test_a_worker_on_any_study_waits_out_an_outage_between_two_studies(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that restarts while the worker looks for its next study does no harm."""
    for name in ("first", "second"):
        station.launch(make_spec(name, dimensions=(), epochs=1))
    original, visited = turns.read, []

    def flaky(connection: sa.Connection) -> list[turns.QueuedStudy]:
        visited.append(connection)
        if len(visited) in {1, 4}:
            connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
        return original(connection)

    monkeypatch.setattr(turns, "read", flaky)
    orders = replace(station.orders("", "quick"), study=None, patience_seconds=0.0)
    assert work(station.settings, orders, StopRequest()).reason == "No open study is left."
    assert len(visited) > 4


def test_visits_in_vain_become_rarer() -> None:
    """Intervals grow to five minutes; a visit with a trial resets them."""
    vain, trained = Visit(Ended("open", "")), Visit(Ended("open", ""), active_seconds=1.0)
    rests = [0.0]
    for visit in (vain,) * 7 + (trained, vain):
        rests.append(rest_after(visit, rests[-1]))
    assert rests[1:] == [15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 15.0, 30.0]


def test_a_worker_on_any_study_leaves_those_whose_objective_is_elsewhere(station: Station) -> None:
    """It would fail every trial there and pause the study; it waits, and exits when idle."""
    foreign = station.launch(replace(make_spec("foreign"), objective="not_here"))
    station.launch(make_spec("small", dimensions=(), epochs=1))
    orders = replace(station.orders("", "quick"), study=None, idle_seconds=0.2)
    ended = work(station.settings, orders, StopRequest())
    assert ended.state == "complete"
    assert foreign.study.study_id not in {row.study_id for row in foreign.rows(t.trial)}
    assert foreign.state() == "open"


def test_a_worker_on_any_study_changes_between_two_trials(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that becomes urgent is trained before the rest of the current one."""
    monkeypatch.setattr(worker_module, "QUEUE_SECONDS", 0.0)
    long = station.launch(make_spec("long", epochs=20))
    urgent = station.launch(make_spec("urgent", dimensions=(), epochs=1))
    orders = replace(station.orders("", "slow"), study=None)
    thread = threading.Thread(target=work, args=(station.settings, orders, StopRequest()))
    with station.database.transaction() as connection:
        turns.set_priority(connection, long.study, 1, "a test")
    thread.start()
    until(lambda: long.rows(t.epoch), "the first has begun")
    with station.database.transaction() as connection:
        turns.set_priority(connection, urgent.study, 2, "a test")
    thread.join(60)
    ends = sorted(ends_of(long))
    (end,) = ends_of(urgent)
    assert ends[0] < end < ends[1]
