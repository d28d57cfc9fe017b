"""The renewal thread keeps leases, survives outages, and knows when peers are silent."""

import time
from collections.abc import Iterator

import psycopg2
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import QUICK
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish, make_curve, make_spec, optuna_trials
from tests.work.conftest import Station
from tuner.settings import Timing
from tuner.store import control
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Answer, Claimed, Proposal
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.workers import Post
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a grid of three learning rates."""
    return Bench.launch(database, make_spec())


@pytest.fixture
def holder(bench: Bench) -> Ledger:
    """Join one worker."""
    return bench.worker()


@pytest.fixture
def renewal(bench: Bench, holder: Ledger) -> Iterator[Renewal]:
    """Start its renewal thread."""
    renewal = Renewal(bench.database, Post(bench.study.study_id, holder.worker_id), QUICK)
    renewal.start()
    yield renewal
    renewal.end()


def cut_all(database: Database) -> None:
    """End every connection to the test's database, pooled ones included."""
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with Database(database.address) as other, other.transaction() as connection:
        connection.execute(sa.text(statement))


def test_a_held_lease_is_kept(bench: Bench, holder: Ledger, renewal: Renewal) -> None:
    """While the main loop ticks, the lease is extended."""
    held = claim_trial(holder)
    renewal.hold(held)
    first = bench.lease_row(held).expires

    def moved() -> bool:
        renewal.tick()
        return bool(bench.lease_row(held).expires > first)

    until(moved, "the lease was renewed")
    assert not renewal.lost(held)


def test_a_main_loop_that_stands_still_loses_its_lease(bench: Bench) -> None:
    """Without ticks the lease expires, and a peer adopts the trial."""
    timing = Timing(lease=0.6, renew=0.1, grace=0.2)
    holder, peer = bench.worker(timing), bench.worker()
    renewal = Renewal(bench.database, Post(bench.study.study_id, holder.worker_id), timing)
    held = claim_trial(holder)
    renewal.hold(held)
    renewal.start()
    until(lambda: adopted(peer) == held.number, "the peer adopts")
    until(lambda: ticked_lost(renewal, held), "the old holder learns of it")
    renewal.end()


def adopted(peer: Ledger) -> int | None:
    """Claim with adoption; train a new trial, or return the number of an adopted one."""
    answer = peer.claim(None, adopt=True)
    if not isinstance(answer, Claimed):
        return None
    if answer.adopted:
        return answer.lease.number
    finish(peer, answer.lease)
    return None


def ticked_lost(renewal: Renewal, held: object) -> bool:
    """Tick and return whether the lease is lost."""
    renewal.tick()
    return renewal.lost(held)  # type: ignore[arg-type]


def test_the_thread_survives_outages(bench: Bench, holder: Ledger, renewal: Renewal) -> None:
    """With all connections cut repeatedly, the lease is still renewed afterwards."""
    held = claim_trial(holder)
    renewal.hold(held)
    for _ in range(3):
        cut_all(bench.database)
    first = bench.lease_row(held).renewed

    def moved() -> bool:
        renewal.tick()
        return bool(bench.lease_row(held).renewed > first)

    until(moved, "the lease was renewed after the outage")
    assert not renewal.lost(held)


def test_peers_count_as_silent_only_after_the_grace(renewal: Renewal) -> None:
    """At the start, and after each outage, expired leases are not adopted for a while."""
    assert not renewal.settled
    until(lambda: ticking(renewal).settled, "settled after the grace")
    renewal.unreachable()
    assert not renewal.settled
    seen = time.monotonic()
    until(lambda: ticking(renewal).settled, "settled again")
    assert time.monotonic() - seen >= QUICK.grace


def ticking(renewal: Renewal) -> Renewal:
    """Tick, as a main loop does."""
    renewal.tick()
    return renewal


def test_an_outage_seen_by_the_thread_unsettles(
    bench: Bench, renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that fails restarts the grace period, even if the main loop noticed nothing."""
    until(lambda: ticking(renewal).settled, "settled")
    reachable = bench.database.connect

    def refuse() -> None:
        raise psycopg2.OperationalError("no route to host")

    monkeypatch.setattr(bench.database.engine.pool, "_creator", lambda *_: refuse())
    cut_all(Database(bench.database.address))
    until(lambda: not ticking(renewal).settled, "unsettled")
    monkeypatch.setattr(bench.database.engine.pool, "_creator", lambda *_: reachable())
    until(lambda: ticking(renewal).settled, "settled again")


def test_the_study_speaks_to_its_workers(bench: Bench, holder: Ledger, renewal: Renewal) -> None:
    """A stop reaches a worker with its next renewal."""
    assert renewal.study_state == "open"
    control.stop(bench.database, bench.study)
    until(lambda: ticking(renewal).study_state == "stopped", "the stop is heard")


def test_active_time_is_the_time_trials_were_held(
    bench: Bench, holder: Ledger, renewal: Renewal
) -> None:
    """Hours are counted while a trial is held, not while waiting, and are stored."""
    assert renewal.used.active_seconds == 0.0
    held = claim_trial(holder)
    renewal.hold(held)
    until(lambda: ticking(renewal).used.active_seconds > 0.5, "time passes")
    renewal.release(held)
    spent = renewal.used.active_seconds
    until(lambda: active(bench, holder) == spent, "the database is told")
    assert renewal.used.active_seconds == spent


def active(bench: Bench, holder: Ledger) -> float:
    """Return the worker's active seconds as stored."""
    return float(
        next(
            row.active_seconds for row in bench.rows(t.worker) if row.worker_id == holder.worker_id
        )
    )


def test_a_supervisor_survives_outages_and_adopts_nobody(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With connections cut repeatedly the study is finished, and a slow peer keeps its trial."""
    bench = station.launch(make_spec(epochs=6))
    peer = bench.worker()
    held = claim_trial(peer)
    thread = station.in_thread("small", "slow", StopRequest())
    for count in range(1, 4):
        until(lambda at=count: stored(bench) >= 2 * at, "epochs come in")  # type: ignore[misc]
        cut_all(station.database)
    until(lambda: stored(bench) >= 12, "both other trials were trained")
    peer.record(held, make_curve(*[0.5] * 6))
    finish(peer, held, *[0.5] * 6)
    thread.join(30)
    assert not thread.is_alive()
    seen = optuna_trials(bench.worker())
    assert [one.state for one in seen] == [TrialState.COMPLETE] * 3


def stored(bench: Bench) -> int:
    """Return how many epochs are stored, or -1 while the database is away."""
    from tuner.store import tables as t

    try:
        return len(bench.rows(t.epoch))
    except sa.exc.DBAPIError:
        return -1


def test_a_claim_tried_again_after_an_outage_adopts_nobody(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether peers count as silent is checked again after each outage."""
    bench = station.launch(make_spec(dimensions=()))
    peer = bench.worker()
    held = claim_trial(peer)
    original = Ledger.claim
    asked: list[bool] = []
    cuts: list[int] = []

    def claim(self: Ledger, proposal: Proposal | None, *, adopt: bool) -> Answer:
        asked.append(adopt)
        if adopt and not cuts:
            cuts.append(len(asked))
            raise sa.exc.OperationalError("claim", {}, psycopg2.OperationalError("cut"))
        return original(self, proposal, adopt=adopt)

    monkeypatch.setattr(Ledger, "claim", claim)
    thread = station.in_thread("small", "quick", StopRequest())
    until(lambda: cuts and len(asked) > cuts[0], "the claim was tried again")
    assert asked[cuts[0]] is False
    finish(peer, held)
    thread.join(30)
    assert not thread.is_alive()
