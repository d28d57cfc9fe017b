"""A slow command, notified by real processes that have the same hook."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.harness import warm
from tests.harness.processes import environment, until
from tests.harness.warm import Forked
from tests.notify import teller
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.processes import Streams
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not warm.possible({}), reason="no forks")]


@dataclass
class Tellers:
    """Processes with the same command, which logs its start and end."""

    settings: Settings
    folder: Path
    started: list[Forked] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """The output of all runs of the command."""
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []

    def start(self, lease: float, *, leave: float = 0.1) -> Forked:
        """Start a process with this lease for claims, which waits this long at its end."""
        log = shlex.quote(str(self.folder / "log"))
        script = f"echo begun >>{log}; until [ -e {self.folder}/go ]; do sleep 0.05; done; "
        command = shlex.join(["sh", "-c", f"{script} echo ended >>{log}"])
        words = [str(self.settings.database_url), "small", command, str(lease), str(leave)]
        inside, outside = os.pipe()
        with Path(os.devnull).open("r+b") as nothing:
            streams = Streams(inside, nothing.fileno(), nothing.fileno())
            around = environment(self.settings)
            process = warm.fork(words, self.folder, around, streams, f"{teller.__name__}:main")
        os.close(inside)
        self.started.append(Forked(process, os.fdopen(outside, "wb")))
        return self.started[-1]

    def finish(self) -> None:
        """Let the command end."""
        (self.folder / "go").touch()


@pytest.fixture
def tellers(settings: Settings, tmp_path: Path) -> Iterator[Tellers]:
    """Return processes that end with the test."""
    made = Tellers(settings, tmp_path)
    yield made
    made.finish()
    for process in made.started:
        process.kill()
        process.wait()


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study of one trial."""
    return Bench.launch(database, make_spec(dimensions=()))


def begun(bench: Bench, tellers: Tellers) -> None:
    """End the study once every process knows it, and wait for the command to start."""
    until(lambda: len(bench.rows(t.hook)) == 1, "the hook is known")
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    worker.claim(None, adopt=True)
    until(lambda: tellers.said, "the command has begun")


def test_a_command_that_outlasts_its_launch_runs_once(bench: Bench, tellers: Tellers) -> None:
    """Its runner renews its claim and exits after it; no other process runs it."""
    both = [tellers.start(lease=0.5) for _ in range(2)]
    begun(bench, tellers)
    for process in both:
        assert process.stdin is not None
        process.stdin.close()
    until(lambda: sum(process.poll() is None for process in both) == 1, "the other has left")
    third = tellers.start(lease=0.5)
    (notice,) = bench.rows(t.notice)
    until(lambda: _due(bench) > notice.due, "its claim was renewed")
    until(lambda: _past(bench, notice.due), "without that it would be over")
    tellers.finish()
    until(lambda: all(process.poll() == 0 for process in both), "its runner has left")
    (notice,) = bench.rows(t.notice)
    assert (notice.tries, notice.result) == (1, "told")
    assert third.stdin is not None
    third.stdin.close()
    assert third.wait() == 0
    assert tellers.said == ["begun", "ended"]


def test_a_command_whose_runner_was_killed_is_run_again(bench: Bench, tellers: Tellers) -> None:
    """It may not have finished: another process runs it when the claim has expired."""
    first = tellers.start(lease=0.5)
    begun(bench, tellers)
    first.kill()
    second = tellers.start(lease=0.5)
    until(lambda: tellers.said == ["begun"] * 2, "it is run again")
    tellers.finish()
    assert second.stdin is not None
    second.stdin.close()
    assert second.wait() == 0
    (notice,) = bench.rows(t.notice)
    assert (notice.tries, notice.result) == (2, "told")


def _due(bench: Bench) -> object:
    (notice,) = bench.rows(t.notice)
    return notice.due


def _past(bench: Bench, moment: object) -> bool:
    with bench.database.transaction() as connection:
        return bool(connection.scalar(sa.select(sa.func.clock_timestamp() > moment)))
