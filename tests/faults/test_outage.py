"""The database goes away, for all or for one worker: who keeps its trial, and who may adopt."""

import json
import signal
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.proof import (
    assert_whole,
    events_of,
    kinds,
    rows_of_trial,
)
from tests.faults.proxy import Cut, Proxy
from tests.faults.sabotage import Fault
from tests.faults.scenery import Scene, Sizes, epochs_of, expired, held_by, worker_of
from tests.harness import warm
from tests.harness.postgres import Server
from tests.harness.processes import environment, freeze, thaw, until
from tests.harness.warm import Started
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.settings import Timing
from tuner.store import tables as t

NOTHING_THERE = "postgresql://me@127.0.0.1:1/nowhere"
LATE = timedelta(seconds=3.5)
"""Time in which a waiting worker has retried, whatever its pause between two tries."""
UNDISTURBED = {"lost", "adopted", "attempt failed", "given back", "failed", "resumed"}
"""Events that no trial may have after an outage."""


@pytest.mark.parametrize(
    ("outage_seconds", "timing"),
    [
        pytest.param(5.0, Timing(lease=3.0, renew=0.3, grace=15.0, poll=0.15), id="5 s"),
        pytest.param(
            60.0,
            Timing(lease=20.0, renew=2.0, grace=15.0, poll=0.2),
            id="60 s",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_restart_of_the_server_costs_nobody_a_trial(
    mortal: Scene, own_server: Server, outage_seconds: float, timing: Timing
) -> None:
    """A stop longer than a lease: training continues, its epochs arrive, no trial is adopted."""
    mortal.settings = replace(mortal.settings, timing=timing)
    bench = mortal.launch(Sizes(epochs=int(40 * outage_seconds), every=1))
    busy = [mortal.start(), mortal.start()]
    until(lambda: len({row.trial_id for row in bench.rows(t.epoch)}) == 2, "both are training")
    # The third has nothing to train: if it ever considered a peer dead, it would adopt.
    idle = mortal.start(Fault(trainer=mortal.double("quick")))
    joined = seen(bench, worker_of(bench, idle))
    until(lambda: seen(bench, worker_of(bench, idle)) > joined, "it is at work")
    stored = len(bench.rows(t.epoch))
    own_server.stop_at_once()
    stopped = time.monotonic()
    until_after(stopped + outage_seconds)
    until(lambda: checkpointed(mortal) > stored + 20, "training goes on without a database")
    # The holders are late: the idle one is back first, and looks for abandoned trials.
    freeze(*(process.pid for process in busy))
    own_server.start()
    back = server_time(bench)
    until(lambda: seen(bench, worker_of(bench, idle)) > back + LATE, "the idle one looks around")
    thaw(*(process.pid for process in busy))
    assert [process.wait(300) for process in (*busy, idle)] == [0, 0, 0], mortal.said()
    assert not UNDISTURBED & set(kinds(bench)), events_of(bench)
    assert_whole(bench)
    assert {row.token for row in bench.rows(t.outcome)} == {1}


def server_time(bench: Bench) -> datetime:
    """Return the time by the database's clock."""
    with bench.database.transaction() as connection:
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment


def seen(bench: Bench, worker_id: int) -> datetime:
    """Return when a worker was last seen."""
    moment: datetime = next(row.seen for row in bench.rows(t.worker) if row.worker_id == worker_id)
    return moment


def until_after(deadline: float) -> None:
    """Let an outage last for a fixed time."""
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(left)


def checkpointed(scene: Scene) -> int:
    """Return how many epochs the trainers have finished, according to their checkpoints."""
    newest: dict[str, int] = {}
    for path in (scene.settings.home / "checkpoints").glob("*.json"):
        told = read_json(path)
        if told:
            trial = str(told["labels"]["trial"])
            newest[trial] = max(newest.get(trial, 0), int(told["epoch"]))
    return sum(newest.values())


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest; return nothing for one that is being replaced."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


@pytest.mark.parametrize("side", ["before", "after"])
def test_connections_cut_at_commits(
    mortal: Scene, own_server: Server, proxy: Proxy, side: Cut
) -> None:
    """Every third COMMIT or its answer is lost: everything is stored, and once."""
    mortal.settings = replace(mortal.settings, timing=Timing(lease=60, renew=0.5, poll=0.15))
    bench = Bench.launch(mortal.database, make_spec(seeds=2, epochs=3))
    proxy.cut_at.update(dict.fromkeys(range(3, 1000, 3), side))
    process = mortal.start(
        Fault(trainer=mortal.double("quick")), url=own_server.url(port=proxy.port)
    )
    assert process.wait(120) == 0, mortal.said()
    assert proxy.cuts >= 5
    assert_whole(bench)
    assert not UNDISTURBED & set(kinds(bench)), events_of(bench)
    assert {row.token for row in bench.rows(t.outcome)} == {1}


def test_a_slow_connection_only_takes_longer(
    mortal: Scene, own_server: Server, proxy: Proxy
) -> None:
    """If every answer is late, nothing is retried, lost or recorded twice."""
    bench = Bench.launch(mortal.database, make_spec(dimensions=(), epochs=3))
    proxy.delay = 0.005
    process = mortal.start(
        Fault(trainer=mortal.double("quick")), url=own_server.url(port=proxy.port)
    )
    assert process.wait(120) == 0, mortal.said()
    assert "trying again" not in mortal.said()
    assert_whole(bench)
    assert not UNDISTURBED & set(kinds(bench))


@pytest.mark.parametrize("how", ["refused", "stalled"])
def test_a_worker_cut_off_alone_loses_its_trial_and_nothing_else(
    mortal: Scene, own_server: Server, proxy: Proxy, how: str
) -> None:
    """Peers adopt its trial; when it is back, it is fenced off and takes another."""
    bench = Bench.launch(mortal.database, make_spec(epochs=20))
    trainer = mortal.double("slow")
    cut_off = mortal.start(Fault(trainer=trainer), url=own_server.url(port=proxy.port))
    until(lambda: len(bench.rows(t.epoch)) >= 3, "3 epochs")
    (mine,) = held_by(bench, worker_of(bench, cut_off))
    (proxy.refuse if how == "refused" else proxy.stall)()
    until(lambda: expired(bench), "its lease ran out")
    peer = bench.worker()
    held = claim_trial(peer)
    assert held.trial_id == mine
    finish(peer, held, *[0.5] * 20)
    before = rows_of_trial(bench, mine)
    (proxy.open if how == "refused" else proxy.flow)()
    assert cut_off.wait(120) == 0, mortal.said()
    assert rows_of_trial(bench, mine) == before
    assert_whole(bench)
    assert sorted(row.token for row in bench.rows(t.outcome)) == [1, 1, 2]
    told = {row.kind for row in events_of(bench, mine)}
    assert {"lost", "adopted", "complete"} <= told


def test_a_worker_may_be_asked_to_leave_during_an_outage(
    mortal: Scene, own_server: Server, proxy: Proxy
) -> None:
    """It cannot give its trial back, says so, and exits with its signal's code."""
    bench = Bench.launch(mortal.database, make_spec(dimensions=(), epochs=2000))
    trainer = mortal.double("slow")
    process = mortal.start(Fault(trainer=trainer), url=own_server.url(port=proxy.port))
    until(lambda: len(bench.rows(t.epoch)) >= 3, "3 epochs")
    proxy.refuse()
    until(lambda: "database is away" in mortal.said(), "the worker has noticed")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, mortal.said()
    assert "Traceback" not in mortal.said()
    assert [row.state for row in bench.rows(t.lease)] == ["held"], "for a peer to adopt in time"
    (trial_id,) = {row.trial_id for row in bench.rows(t.lease)}
    assert epochs_of(bench, trial_id) == list(range(1, len(bench.rows(t.epoch)) + 1))


@pytest.mark.parametrize("command", ["launch", "worker"])
def test_a_server_that_refuses_is_waited_for_and_then_named(scene: Scene, command: str) -> None:
    """The wait is announced; at its end comes an error with the address, and exit code 3."""
    settings = replace(scene.settings, database_url=NOTHING_THERE)
    process = start_tuner(scene, settings, command, "--wait", "1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, out + err
    assert "Waiting up to 1 s" in err
    assert err.rstrip().count("Error: The database at postgresql://me@127.0.0.1:1/nowhere") == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize("command", ["launch", "worker"])
def test_a_server_that_comes_late_is_in_time(
    mortal: Scene, own_server: Server, proxy: Proxy, command: str
) -> None:
    """A launch and a worker started before their server do their work once it answers."""
    if command == "worker":
        mortal.launch(Sizes(rates=(1e-3,), epochs=3))
    proxy.refuse()
    url = own_server.url(port=proxy.port)
    process = start_tuner(mortal, replace(mortal.settings, database_url=url), command)
    assert process.stderr is not None
    told = process.stderr.readline()
    while "Waiting up to" not in told:
        assert told, "it never said that it waits"
        told = process.stderr.readline()
    proxy.open()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def start_tuner(scene: Scene, settings: object, command: str, *more: str) -> Started:
    """Start `tuner launch` or `tuner worker` on the small study, as from a shell."""
    study = str(scene.folder / "studies" / "small.toml") if command == "launch" else "small"
    scene.spec(Sizes(rates=(1e-3,), epochs=3))
    devices = ["--device", "cpu", *(["--workers", "1"] if command == "launch" else [])]
    arguments = [command, "--study", study, *devices, "--objectives", str(scene.blobs.folder)]
    return warm.start([*arguments, *more], scene.folder, environment(settings))  # type: ignore[arg-type]
