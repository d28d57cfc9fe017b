"""Workers whose clocks are an hour off: leases, adoption and events use the database's clock."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.scenes import Scene, held, states, told
from tests.harness.processes import until
from tests.harness.warm import Started
from tests.store.specs import Bench
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database

HOUR = 3600.0

WRONG_CLOCK = '''
"""Put the wall clock of this process off; started by Python before anything else."""

import datetime
import os
import time

OFF = float(os.environ["CLOCK_OFF_SECONDS"])
true_time, true_localtime, true_gmtime = time.time, time.localtime, time.gmtime


class Datetime(datetime.datetime):
    """Datetimes whose now is off."""

    @classmethod
    def now(cls, tz=None):
        """Return the wrong time."""
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        """Return the wrong time."""
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


time.time = lambda: true_time() + OFF
time.time_ns = lambda: int(time.time() * 1e9)
time.localtime = lambda seconds=None: true_localtime(time.time() if seconds is None else seconds)
time.gmtime = lambda seconds=None: true_gmtime(time.time() if seconds is None else seconds)
datetime.datetime = Datetime
'''


@dataclass
class Wrong:
    """Worker processes, each with its own clock, and trainers that inherit it."""

    scene: Scene
    folder: Path

    def start(self, study: str, off_seconds: float) -> Started:
        """Start a real worker whose clock is off."""
        return self.scene.start_worker(
            study, PYTHONPATH=str(self.folder), CLOCK_OFF_SECONDS=str(off_seconds)
        )


@pytest.fixture
def wrong(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Wrong]:
    """Set up the scene, with a clock that can be changed."""
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
    wrong = Wrong(Scene(settings, database, tmp_path), folder)
    yield wrong
    wrong.scene.workers.close()


def events(bench: Bench) -> Sequence[Any]:
    """Return the study's history in the order in which it was written."""
    return sorted(bench.rows(t.event), key=lambda row: row.event_id)


def database_time(bench: Bench) -> Any:
    """Return the database's time."""
    with bench.database.transaction() as connection:
        return connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()


def test_the_wrong_clock_is_wrong(wrong: Wrong) -> None:
    """A worker sees the changed time, by both ways of reading the clock."""
    command = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"
    printed = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"PYTHONPATH": str(wrong.folder), "CLOCK_OFF_SECONDS": str(-HOUR)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    right = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(printed) == 2
    assert all(-3660 < float(a) - float(b) < -3540 for a, b in zip(printed, right, strict=True))


def test_a_wrong_clock_neither_takes_nor_loses_a_trial(wrong: Wrong) -> None:
    """Two workers, an hour fast and an hour slow, share a study; none takes the other's trial.

    One is then killed: the other adopts its trial, though by its clock the
    lease runs for hours, or ran out hours ago.
    """
    bench = wrong.scene.launch(
        "clocks",
        space={"variant": [0, 1]},
        fixed={"fault": "waits"},
    )
    began = database_time(bench)
    fast, slow = wrong.start("clocks", HOUR), wrong.start("clocks", -HOUR)
    until(lambda: len(held(bench)) == 2, "both have a trial")
    until(lambda: len({row.trial_id for row in bench.rows(t.epoch)}) == 2, "both train")
    pids = {row.worker_id: row.pid for row in bench.rows(t.worker)}
    killed = next(one for one, pid in pids.items() if pid == fast.pid)
    (taken,) = (row for row in held(bench) if row.worker_id == killed)
    assert [row.kind for row in events(bench) if row.kind in ("lost", "adopted")] == []
    fast.send_signal(signal.SIGKILL)
    (wrong.scene.notes / "go").touch()
    until(lambda: slow.poll() is not None, "the other has ended the study")
    assert slow.returncode == 0
    assert states(bench) == ["COMPLETE", "COMPLETE"]
    assert {one.curve for one in told(bench).values()} == {(1, 2, 3, 4)}
    (adoption,) = (row for row in events(bench) if row.kind == "adopted")
    assert adoption.trial_id == taken.trial_id
    _assert_times(bench, began)


def _assert_times(bench: Bench, began: Any) -> None:
    """Check that all stored times are the database's, not a worker's."""
    now = database_time(bench)
    moments = [row.happened for row in events(bench)]
    moments += [row.recorded for row in bench.rows(t.epoch)]
    moments += [moment for row in bench.rows(t.worker) for moment in (row.started, row.seen)]
    slack = timedelta(minutes=1)
    assert all(began - slack <= moment <= now + slack for moment in moments)
