"""A worker's reported load includes its trainer's, and never costs a lease."""

import subprocess
import sys

import psutil
import pytest
import sqlalchemy as sa

from tests.conftest import QUICK
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, make_spec
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.workers import Post
from tuner.store.overview import overview
from tuner.work import load
from tuner.work.load import Load, LoadMeter, gpu_load
from tuner.work.renewal import Renewal

BUSY = """
import time
x = bytearray(64 << 20)
end = time.monotonic() + 60
while time.monotonic() < end: pass
"""
"""Uses memory and processor time; ends by itself, whatever happens to the test."""


def test_a_trainer_counts_though_it_is_no_child() -> None:
    """Memory and processor time are those of the worker and its trainer, child or not."""
    # The shell ends at once, so that the program is not a child of this process.
    started = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 & echo $!', sys.executable, BUSY],
        capture_output=True,
        text=True,
        check=True,
    )
    trainer = psutil.Process(int(started.stdout))
    try:
        until(lambda: trainer.memory_info().rss > 64 << 20, "it has taken its memory")
        assert trainer.pid not in {one.pid for one in psutil.Process().children(recursive=True)}
        alone, both = LoadMeter("cpu", lambda: ()), LoadMeter("cpu", lambda: (trainer.pid,))
        first, without = both.measure(), alone.measure()
        assert first.cores is None
        assert first.memory is not None
        assert without.memory is not None
        assert first.memory >= without.memory + (40 << 20)
        until(lambda: (both.measure().cores or 0) > 0, "its processor time is seen")
    finally:
        trainer.kill()
    until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, "it ends")
    assert both.measure().memory is not None


def test_a_processor_has_no_gpu() -> None:
    """On a CPU no GPU is reported, nor on a machine whose driver does not answer."""
    assert gpu_load("cpu") == (None, None, None)
    assert len(gpu_load("cuda:7")) == 3


def test_the_load_stands_with_the_worker(database: Database) -> None:
    """A renewal stores the measurement, and the overview shows it beside the trial."""
    bench = Bench.launch(database, make_spec())
    holder = bench.worker()
    claim_trial(holder)
    renewal = Renewal(database, Post(bench.study.study_id, holder.worker_id), QUICK)
    renewal.measure = lambda: Load(1 << 30, 0.5, 0.25, 2 << 30, 8 << 30)
    renewal.start()

    def seen() -> object:
        with database.transaction() as connection:
            return overview(connection, bench.study).workers[0].load

    until(seen, "the load is stored")
    renewal.end()
    assert seen() == {
        "memory": 1 << 30,
        "cores": 0.5,
        "gpu": 0.25,
        "gpu_memory": 2 << 30,
        "gpu_total": 8 << 30,
    }


def test_a_measurement_that_fails_costs_no_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a driver raises, the lease is renewed; the load stays unknown."""
    bench = Bench.launch(database, make_spec())
    holder = bench.worker()
    lease = claim_trial(holder)

    def broken(_device: str) -> object:
        raise RuntimeError("the driver was replaced")

    monkeypatch.setattr(load, "gpu_load", broken)
    renewal = Renewal(database, Post(bench.study.study_id, holder.worker_id), QUICK)
    renewal.measure = LoadMeter("cuda:0", lambda: ()).measure
    renewal.hold(lease)

    def renewed() -> object:
        with database.transaction() as connection:
            return connection.execute(sa.select(t.lease.c.renewed)).scalar_one()

    before = renewed()
    renewal.start()
    until(lambda: renewed() != before, "the lease is renewed")
    renewal.end()
    with database.transaction() as connection:
        assert overview(connection, bench.study).workers[0].load is None
