"""SIGSTOP past the lease, adoption by a peer, SIGCONT: the resumed worker is fenced off."""

import signal
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.faults.proof import (
    assert_as_undisturbed,
    assert_whole,
    events_of,
    kinds,
    rows_of_trial,
)
from tests.faults.sabotage import Fault
from tests.faults.scenery import UNHARMED, Scene, Sizes, expired, held_by, worker_of
from tests.harness.processes import freeze, is_frozen, thaw, trainers_of, until
from tests.store.specs import Bench, claim_trial, make_spec
from tests.train.blobs import Blobs, nothing
from tuner.settings import Timing
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease
from tuner.store.ledger.ledger import Ledger

TIMING = Timing(lease=2.0, renew=0.3, grace=0.5, poll=0.15)


@pytest.mark.parametrize("frozen", ["supervisor", "both", "recorder"])
def test_frozen_in_training_past_its_lease(scene: Scene, frozen: str) -> None:
    """Resumed after a peer's adoption, a worker writes nothing of that trial and takes another."""
    scene.settings = replace(scene.settings, timing=TIMING)
    bench = scene.launch(Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=60))
    # The recorder stops inside the transaction that records, which has locked its lease's row.
    fault = Fault("record", "before", nth=3, signal=signal.SIGSTOP, idle="4s")
    sleeper = scene.start(fault if frozen == "recorder" else UNHARMED)
    me = worker_of(bench, sleeper)
    if frozen == "recorder":
        until(lambda: is_frozen(sleeper.pid), "it sleeps while it records")
        asleep = [sleeper.pid]
    else:
        until(lambda: len(bench.rows(t.epoch)) >= 5, "5 epochs")
        asleep = [sleeper.pid, *(trainers_of(sleeper.pid) if frozen == "both" else [])]
    (mine,) = held_by(bench, me)
    freeze(*asleep)
    until(lambda: expired(bench), "the lease ran out")
    peer = bench.worker(Timing(lease=600.0))
    held = claim_trial(peer)
    assert held.trial_id == mine
    before = rows_of_trial(bench, mine)
    thaw(*asleep)
    until(lambda: set(held_by(bench, me)) - {mine}, "it has taken another trial")
    assert rows_of_trial(bench, mine) == before, "the sleeper wrote to a trial that it had lost"
    train(bench, scene.blobs, peer, held)
    assert sleeper.wait(120) == 0, scene.said()
    assert_whole(bench)
    assert sorted(row.token for row in bench.rows(t.outcome)) == [1, 1, 1, 2]
    assert trained_by(bench, me) == {row.trial_id for row in bench.rows(t.trial)} - {mine}
    assert_as_undisturbed(bench, scene.blobs)


def train(bench: Bench, blobs: Blobs, peer: Ledger, held: Lease) -> None:
    """Train a claimed trial to its end in this process, as a peer would."""
    workbench, job = blobs.workbench(), bench.study.spec.job(held.chosen, held.seed)
    run = workbench.begin(job)
    peer.record(held, list(run.epochs(nothing)))
    peer.complete(held, run.setup, workbench.dataset(job), run.result())


def trained_by(bench: Bench, worker_id: int) -> set[int]:
    """Return the trials that a worker completed."""
    told = [row for row in bench.rows(t.event) if row.worker_id == worker_id and row.trial_id]
    return {row.trial_id for row in told if row.kind == "complete"}


@pytest.mark.parametrize(("point", "idle"), [("create", "2s"), ("adopt", "")])
def test_frozen_inside_a_claim(scene: Scene, point: str, idle: str) -> None:
    """The server ends its transaction; its peers finish meanwhile, and it wakes too late."""
    bench = Bench.launch(scene.database, make_spec(seeds=2, epochs=3))
    if point == "adopt":
        bench.expire(claim_trial(bench.worker()))
    trainer = scene.double("quick")
    sleeper = scene.start(Fault(point, "before", signal=signal.SIGSTOP, idle=idle, trainer=trainer))
    until(lambda: is_frozen(sleeper.pid), "it sleeps inside its claim")
    assert holds_the_study(bench), "the freeze is inside the transaction"
    assert scene.work("quick").state == "complete"
    assert is_frozen(sleeper.pid), "its peers did not need it to wake"
    before = bench.contents()
    thaw(sleeper.pid)
    assert sleeper.wait(60) == 0, scene.said()
    assert bench.contents() == before, "it wrote after its transaction had been ended"
    assert_whole(bench)


def holds_the_study(bench: Bench) -> bool:
    """Return whether the study's advisory lock is held."""
    query = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    with bench.database.transaction() as connection:
        return bool(connection.execute(query).scalar_one())


def test_peers_that_slept_together_take_nothing_from_each_other(scene: Scene) -> None:
    """After a machine was suspended, an idle peer does not adopt a busy one's trial."""
    # Half of the lease is for a busy machine: the last renewal may be this old.
    scene.settings = replace(scene.settings, timing=replace(TIMING, lease=4.0))
    bench = scene.launch(Sizes(rates=(1e-3,), epochs=150))
    busy = scene.start()
    until(lambda: held_by(bench, worker_of(bench, busy)), "one has the trial")
    idle = scene.start()
    worker_of(bench, idle)
    until(lambda: len(bench.rows(t.epoch)) >= 5, "5 epochs")
    everyone = [busy.pid, *trainers_of(busy.pid), idle.pid]
    freeze(*everyone)
    until(lambda: expired(bench), "the lease ran out")
    thaw(idle.pid, busy.pid, *everyone)
    assert [process.wait(120) for process in (busy, idle)] == [0, 0], scene.said()
    assert_whole(bench)
    assert kinds(bench)["adopted"] == 0, events_of(bench)
