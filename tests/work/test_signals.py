"""Signals, the end of the parent and kill -9, with real worker processes."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness.processes import is_alive, until
from tests.store.specs import Bench, claim_trial, make_spec
from tests.work.conftest import Station
from tuner.store import control
from tuner.store import tables as t


def held_by_someone(bench: Bench) -> bool:
    """Return whether any worker holds a trial."""
    return any(row.state == "held" for row in bench.rows(t.lease))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_finishes_the_epoch_and_gives_the_trial_back(
    station: Station, number: int, code: int
) -> None:
    """The running epoch is recorded, and a peer may continue at once; no strike is counted."""
    bench = station.launch(make_spec(dimensions=(), epochs=500))
    process = station.start("small", "slow")
    until(lambda: len(bench.rows(t.epoch)) >= 1, "an epoch was recorded")
    before = len(bench.rows(t.epoch))
    process.send_signal(number)
    assert process.wait(30) == code, station.said()
    (row,) = bench.rows(t.lease)
    assert (row.state, row.strikes) == ("released", 0)
    after = len(bench.rows(t.epoch))
    assert before < after < 500
    again = claim_trial(bench.worker(), adopt=False)
    assert (again.number, again.stored_epochs) == (0, after)


def test_two_signals_leave_at_once(station: Station) -> None:
    """A second signal does not wait for the epoch, and still gives the trial back."""
    bench = station.launch(make_spec(dimensions=(), epochs=5))
    process = station.start("small", "held")
    until(lambda: held_by_someone(bench), "the trial was claimed")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130, station.said()
    (row,) = bench.rows(t.lease)
    assert row.state == "released"
    assert bench.rows(t.epoch) == []


def test_a_hangup_is_polite(station: Station) -> None:
    """A closed terminal counts as a polite request, like SIGTERM."""
    bench = station.launch(make_spec(dimensions=(), epochs=500))
    process = station.start("small", "slow")
    until(lambda: len(bench.rows(t.epoch)) >= 1, "an epoch was recorded")
    process.send_signal(signal.SIGHUP)
    process.wait(30)
    assert [row.state for row in bench.rows(t.lease)] == ["released"]


def test_a_worker_follows_its_parent(station: Station) -> None:
    """With --follow-stdin the end of the pipe asks the worker to leave politely."""
    bench = station.launch(make_spec(dimensions=(), epochs=500))
    process = station.start("small", "slow", "--follow-stdin")
    until(lambda: len(bench.rows(t.epoch)) >= 1, "an epoch was recorded")
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 143, station.said()
    assert [row.state for row in bench.rows(t.lease)] == ["released"]


def test_a_signal_while_waiting_for_the_study_ends_the_worker(station: Station) -> None:
    """A worker that waits for a study that never comes can be interrupted."""
    process = station.start("nowhere", "quick")
    log = station.folder / "worker-0.log"
    until(lambda: "Waiting up to" in log.read_text(), "the worker waits")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, station.said()


def test_a_signal_while_waiting_for_the_database_ends_the_worker(station: Station) -> None:
    """A worker whose database does not answer can be interrupted; that is not a failure."""
    process = station.start("small", "quick", "--database", "postgresql://me@127.0.0.1:1/x")
    log = station.folder / "worker-0.log"
    until(lambda: "Waiting up to" in log.read_text(), "the worker waits")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143, station.said()


def test_a_killed_worker_takes_its_trainer_along(station: Station) -> None:
    """kill -9 of the supervisor ends its trainer too."""
    bench = station.launch(make_spec(dimensions=(), epochs=5))
    process = station.start("small", "held")
    until(lambda: held_by_someone(bench), "the trial was claimed")
    until(station.trainer_pids, "the trainer has started")
    (trainer,) = station.trainer_pids()
    assert os.getsid(trainer) != os.getsid(process.pid), "Ctrl-C reaches the supervisor alone"
    process.kill()
    process.wait()
    until(lambda: not is_alive(trainer), "the trainer has gone")


def test_a_stopped_study_ends_its_workers(station: Station) -> None:
    """After `tuner stop` a worker finishes its epoch, gives its trial back and exits with 0."""
    bench = station.launch(make_spec(dimensions=(), epochs=500))
    process = station.start("small", "slow")
    until(lambda: len(bench.rows(t.epoch)) >= 1, "an epoch was recorded")
    control.stop(bench.database, bench.study)
    assert process.wait(30) == 0, station.said()
    assert [row.state for row in bench.rows(t.lease)] == ["released"]
    told = [row.text for row in bench.rows(t.event) if row.kind == "given back"]
    assert told == ["the study is stopped"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_trainer_of_a_real_worker_has_no_password_in_its_environment(
    station: Station,
) -> None:
    """The worker's environment has the database's address; its trainer's does not."""
    bench = station.launch(make_spec(dimensions=(), epochs=5))
    process = station.start("small", "held", executed=True)
    until(lambda: held_by_someone(bench), "the trial was claimed")
    until(station.trainer_pids, "the trainer has started")
    (trainer,) = station.trainer_pids()
    worker, child = Path(f"/proc/{process.pid}"), Path(f"/proc/{trainer}")
    assert b"TUNER_DATABASE_URL=" in (worker / "environ").read_bytes()
    assert b"TUNER_DATABASE_URL=" not in (child / "environ").read_bytes()
    for one in (worker, child):
        assert b"postgres" not in (one / "cmdline").read_bytes()
