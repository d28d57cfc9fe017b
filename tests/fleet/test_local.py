"""A crew of processes: replaced after accidents, but not when they gave up."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.fleet.conftest import MakeFleet
from tests.harness import warm
from tests.harness.processes import is_alive, until
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.errors import MachineError
from tuner.fleet import local, tending
from tuner.fleet.contract import Crew
from tuner.fleet.gpus import Gpu
from tuner.fleet.local import LocalFleet, rotate
from tuner.fleet.replacements import Replacements
from tuner.processes import Executed
from tuner.settings import Settings, worker_environment
from tuner.store import fleets
from tuner.store.database import Database
from tuner.store.fleets import Launcher


def pids(fleet: LocalFleet) -> list[int]:
    """Return the current process ids of a crew's workers."""
    return [post.process.pid for post in fleet._posts if post.process is not None]


def test_a_killed_worker_is_replaced(make_fleet: MakeFleet) -> None:
    """After kill -9 of one of two workers another takes its place, and its peer stays."""
    fleet = make_fleet("nowhere", 2, executed=True)
    assert fleet.running() == 2
    first, second = pids(fleet)
    os.kill(first, signal.SIGKILL)
    until(lambda: fleet.running() == 2 and pids(fleet)[0] != first, "it was replaced")
    assert pids(fleet)[1] == second
    assert fleet.failures() == []


def test_a_worker_that_gave_up_is_not_replaced(make_fleet: MakeFleet, settings: Settings) -> None:
    """A worker that exits with its own error is not replaced; its output is reported."""
    fleet = make_fleet("small", 2, replace(settings, database_url="mysql://somewhere/else"))
    until(lambda: fleet.running() == 0, "both have left")
    (said,) = fleet.failures()
    assert said.startswith("Error: The database address cannot be read")


def test_a_worker_that_is_done_is_not_replaced(make_fleet: MakeFleet, database: Database) -> None:
    """When the study is complete all workers exit without a failure."""
    bench = Bench.launch(database, make_spec(dimensions=()))
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    fleet = make_fleet("small", 2)
    until(lambda: fleet.running() == 0, "both have left")
    assert fleet.failures() == []


def test_a_post_whose_workers_keep_dying_is_given_up(
    make_fleet: MakeFleet,
) -> None:
    """Accidents in a row, each soon after the start, end the replacements."""
    fleet, killed = make_fleet("nowhere", limits=Replacements(limit=3)), set()
    while fleet.running():
        (pid,) = pids(fleet)
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
    assert len(killed) == 3
    assert len(fleet.failures()) == 1


def test_an_unexpected_error_is_an_accident_but_not_for_ever(
    make_fleet: MakeFleet, database: Database
) -> None:
    """A worker with an unexpected error is replaced a few times, at any age."""
    Bench.launch(database, make_spec())
    # A missing table: neither a state of the server nor a user's mistake.
    with database.transaction() as connection:
        connection.execute(sa.text("DROP TABLE tuner.worker CASCADE"))
    fleet, seen = make_fleet("small", limits=Replacements(limit=3, young_seconds=0.0)), set()
    while fleet.running():
        seen.update(pids(fleet))
        time.sleep(0.01)
    assert len(seen) == 3
    (said,) = fleet.failures()
    assert "This is a bug" in said


def test_a_crew_that_was_asked_to_stop_is_not_replaced(make_fleet: MakeFleet) -> None:
    """After ask_to_stop the workers exit, and are not replaced."""
    fleet = make_fleet("nowhere", 2, executed=True)
    workers = pids(fleet)
    fleet.ask_to_stop()
    until(lambda: fleet.running() == 0, "both have left")
    assert fleet.running() == 0, "nobody is in their place"
    assert not any(map(is_alive, workers))


def test_a_crew_that_is_stopped_at_once_hears_two_requests(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker treats one request as polite and two as urgent, whether asked before or not."""
    heard = tmp_path / "heard"
    lines = (
        "import pathlib, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})\n"
        "heard = pathlib.Path(sys.argv[1]); heard.touch()\n"
        "names = [signal.sigwait({signal.SIGINT, signal.SIGTERM}).name for _ in range(2)]\n"
        "heard.write_text(' '.join(sorted(names)))\n"
    )
    program = (sys.executable, "-c", lines, str(heard))
    monkeypatch.setattr(local, "starter", lambda *_: partial(Executed, program, os.environ))
    fleet = make_fleet("nowhere", 1)
    until(heard.exists, "it listens")
    fleet.stop_now()
    until(lambda: fleet.running() == 0, "it has left")
    assert heard.read_text() == "SIGINT SIGTERM"


def test_a_crew_is_scaled(make_fleet: MakeFleet) -> None:
    """More workers are started; to have fewer, the newest exit and are not replaced."""
    fleet = make_fleet("nowhere", 1)
    (first,) = pids(fleet)
    fleet.scale(3)
    assert fleet.running() == 3
    fleet.scale(1)
    until(lambda: fleet.running() == 1, "two have left")
    assert is_alive(first)


def test_closing_leaves_nobody(make_fleet: MakeFleet) -> None:
    """After close no worker runs, whatever its state."""
    fleet = make_fleet("nowhere", 2)
    workers = pids(fleet)
    fleet.close()
    assert not any(map(is_alive, workers))


def test_a_crew_outlives_no_launcher(settings: Settings) -> None:
    """After kill -9 of the launcher its workers exit: their standard input closes."""
    code = (
        "import os, time\nfrom tuner.fleet.contract import Crew\n"
        "from tuner.fleet.local import LocalFleet\n"
        "from tuner.settings import from_environment\n"
        "fleet = LocalFleet(from_environment(os.environ), Crew('nowhere', ('cpu', 'cpu')))\n"
        "fleet.start()\n"
        "print(*(post.process.pid for post in fleet._posts), flush=True)\n"
        "time.sleep(600)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", code],
        env=worker_environment(settings),
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        assert launcher.stdout is not None
        workers = [int(pid) for pid in launcher.stdout.readline().split()]
        assert all(map(is_alive, workers))
        launcher.kill()
    until(lambda: not any(map(is_alive, workers)), "its workers leave")


def test_a_long_log_is_put_aside_and_goes_on(tmp_path: Path) -> None:
    """The worker appends to the emptied file; the rotated one is readable by its owner only."""
    log = tmp_path / "worker-1-0.log"
    with log.open("ab", buffering=0) as worker:
        worker.write(b"x" * 100)
        rotate(log, most=100)
        assert log.stat().st_size == 100
        worker.write(b"more")
        rotate(log, most=100)
        worker.write(b"new")
    aside = tmp_path / "worker-1-0.log.1"
    assert aside.read_bytes() == b"x" * 100 + b"more"
    assert aside.stat().st_mode & 0o777 == 0o600
    assert log.read_bytes() == b"new"


def test_a_gpu_is_never_in_two_crews(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crew whose GPU another has is refused before it starts a worker, until that one ends."""
    gpu = Gpu("cuda:0", f"GPU-{uuid.uuid4()}", "a card", 1, 2)
    monkeypatch.setattr(local, "find_gpus", lambda: [gpu])
    first, second = (
        LocalFleet(settings, Crew("nowhere", ("cuda:0", "cuda:0")), warm.fork_server())
        for _ in range(2)
    )
    try:
        first.start()
        with pytest.raises(MachineError, match=f"launched by process {os.getpid()}"):
            second.start()
        assert pids(second) == []
        first.close()
        second.start()
        assert second.running() == 2
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize(
    ("seconds", "is_there"), [(0.0, True), (-30.0, True), (-3600.0, False), (None, True)]
)
def test_a_launcher_is_more_than_its_number(
    settings: Settings, database: Database, seconds: float | None, is_there: bool
) -> None:
    """A fleet is lost if another process has the launcher's number; old handles have only that."""
    bench = Bench.launch(database, make_spec())
    began = LocalFleet(settings, Crew("small@1", ("cpu",))).handle()["launcher_started"]
    handle = {} if seconds is None else {"launcher_started": began + seconds}
    launcher = Launcher(socket.gethostname(), os.getpid(), "ann@here")
    with database.transaction() as connection:
        number = fleets.begin(
            connection, bench.study, "local", {}, handle, workers=1, launcher=launcher
        )
        stored = fleets.find(connection, number)
    assert stored is not None
    assert tending.is_lost(stored) is not is_there
    assert not tending.is_launcher(stored, 1)
