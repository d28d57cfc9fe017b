"""The storm: a real study on real workers while processes are killed, frozen and cut off.

Each blow falls at a share of the study's progress, not at a time, so that blows are spread over the
whole study on any machine. Workers are replaced when they die, as by `tuner launch`; there is no
other help.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.faults.crew import Crew
from tests.faults.scenes import Scene
from tests.faults.weather import Report, Weather
from tests.harness.postgres import Server
from tests.harness.processes import kill, send, trainers_of
from tests.store.specs import Bench
from tests.train.blobs import PAUSE
from tuner.settings import Settings, Timing
from tuner.store import schema
from tuner.store import tables as t
from tuner.store.database import Database

TIMING = Timing(lease=6.0, renew=1.0, grace=2.5, poll=0.1, give_back=5.0)
GAP_SECONDS = 0.5
LOOK_SECONDS = 0.2
LAST_BLOW = 0.95
"""The progress of the study at which the last blow falls."""


class Workforce(Protocol):
    """The workers of a study: replaced when they die, and identified by their process ids."""

    gave_up: list[str]

    @property
    def started(self) -> int:
        """The number of workers started so far."""

    def attend(self) -> None:
        """Replace those that died."""

    def pids(self) -> list[int]:
        """Return the workers that are alive."""

    def said(self) -> str:
        """Return the last output of the workers."""

    def close(self) -> None:
        """End all workers, and record which had given up."""


@dataclass
class Storm:
    """One study, its crew, and the blows that are still to fall."""

    weather: Weather
    server: Server
    bench: Bench
    crew: Workforce
    report: Report
    chance: random.Random
    blows: list[str]
    frozen: list[tuple[float, list[int]]] = field(default_factory=list)
    decisions: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    gap_seconds: float = GAP_SECONDS
    """The time between two blows, so that they do not overlap."""

    def rage(self) -> None:
        """Let the blows fall until the study has ended."""
        blows = list(self.blows)
        begun = struck = time.monotonic()
        while self._state() not in ("complete", "spent"):
            now = time.monotonic()
            self.report.seconds = now - begun
            if self.report.seconds > self.weather.deadline_seconds:
                self.report.faults.append(f"not complete after {self.report.seconds:.0f} s")
                return
            self.crew.attend()
            self.mend(now)
            self._compare_decisions()
            due = blows and now - struck > self.gap_seconds and self._progress() >= self._next()
            if due and self.strike(blows[0]):
                self.report.blows[blows.pop(0)] += 1
                struck = time.monotonic()
            time.sleep(LOOK_SECONDS)
        self.mend(float("inf"))
        self._await_leaving()
        self._compare_decisions()

    def _next(self) -> float:
        """Return the progress at which the next blow falls."""
        fallen = sum(self.report.blows.values())
        return LAST_BLOW * (fallen + 0.5) / len(self.blows)

    def strike(self, blow: str) -> bool:
        """Let a blow fall, if there is a process to hit."""
        if blow == "restart":
            self.server.restart()
            return True
        victims = self._victims()
        if not victims:
            return False
        supervisor = self.chance.choice(victims)
        trainers = trainers_of(supervisor)
        if blow == "kill trainer" and not trainers:
            return False
        self.report.struck += 1
        if blow == "kill supervisor":
            send(supervisor, signal.SIGKILL)
        elif blow == "kill trainer":
            kill(*trainers)
        else:
            self._freeze([supervisor, *(trainers if blow == "freeze worker" else [])])
        return True

    def mend(self, now: float) -> None:
        """Undo what a blow did, once its time is over."""
        self._thaw(now)

    def _freeze(self, pids: list[int]) -> None:
        for pid in pids:
            send(pid, signal.SIGSTOP)
        self.frozen.append((time.monotonic() + 2 * TIMING.lease, pids))

    def _victims(self) -> list[int]:
        """Return the workers that may be struck: all but the frozen ones."""
        frozen = {pid for _, pids in self.frozen for pid in pids}
        return [pid for pid in self.crew.pids() if pid not in frozen]

    def _thaw(self, now: float) -> None:
        for until, pids in [one for one in self.frozen if one[0] <= now]:
            for pid in pids:
                send(pid, signal.SIGCONT)
            self.frozen.remove((until, pids))

    def _await_leaving(self) -> None:
        deadline = time.monotonic() + 60
        while self.crew.pids() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        for pid in self.crew.pids():
            self.report.faults.append(f"worker {pid} did not leave when all was done")

    def _state(self) -> str:
        rows = self._rows(sa.select(t.study.c.state))
        state = str(rows[0].state) if rows else "unknown"
        if state in ("paused", "stopped"):
            self.report.faults.append(f"the study was {state}")
            raise AssertionError(f"the study was {state}\n{self.crew.said()}")
        return state

    def _progress(self) -> float:
        rows = self._rows(
            sa.select(t.outcome.c.state, sa.func.count(t.epoch.c.epoch).label("epochs"))
            .select_from(
                t.trial.outerjoin(t.outcome, t.outcome.c.trial_id == t.trial.c.trial_id).outerjoin(
                    t.epoch, t.epoch.c.trial_id == t.trial.c.trial_id
                )
            )
            .group_by(t.trial.c.trial_id, t.outcome.c.state)
        )
        if self.weather.budget:
            return float(sum(one.epochs for one in rows or ()) / self.weather.budget)
        done = [1.0 if one.state else one.epochs / self.weather.epochs for one in rows or ()]
        return sum(done) / self.weather.trials

    def _compare_decisions(self) -> None:
        """Compare every stored decision with what it was when first seen."""
        promotes = bool(self.weather.budget)
        rows = self._rows(sa.select(t.stretch if promotes else t.decision))
        if rows is None:
            return
        seen = {
            (row.trial_id, row.start if promotes else row.epoch): tuple(map(repr, row))
            for row in rows
        }
        for key, before in self.decisions.items():
            if seen.get(key) != before:
                self.report.faults.append(f"decision {key} was revised: {before}, {seen.get(key)}")
        self.decisions = seen
        self.report.looks += 1

    def _rows(self, query: sa.Select[Any]) -> Sequence[Any] | None:
        """Read, or return None while the database is away."""
        with suppress(DBAPIError), self.bench.database.transaction() as connection:
            return connection.execute(query).all()
        return None


def run(weather: Weather, server: Server, folder: Path) -> tuple[Report, Bench]:
    """Run one study under its weather; return the report."""
    scene, bench = stage(weather, server, folder)
    crew = Crew(scene, weather.name, weather.workers, {PAUSE: str(weather.pause_seconds)})
    report, chance = Report(weather), random.Random(weather.seed + 1)
    return finish(Storm(weather, server, bench, crew, report, chance, weather.blows()), scene)


def stage(weather: Weather, server: Server, folder: Path) -> tuple[Scene, Bench]:
    """Store a storm's study in a separate database, without training it."""
    url = server.create(weather.name)
    settings = Settings(folder / "home", database_url=url, timing=TIMING)
    folder.mkdir(parents=True)
    database = Database.open(settings)
    schema.ensure(database)
    scene = Scene(settings, database, folder)
    return scene, scene.launch(weather.name, **weather.sections())


def finish(storm: Storm, scene: Scene) -> tuple[Report, Bench]:
    """Let a storm rage to its end; return the report."""
    try:
        storm.rage()
    finally:
        storm.mend(float("inf"))
        storm.crew.close()
        storm.report.faults += storm.crew.gave_up
    storm.report.workers_started = storm.crew.started
    storm.report.epochs_begun = scene.trained()
    _count(storm.report, storm.bench)
    return storm.report, storm.bench


def calm(weather: Weather) -> Weather:
    """Return the same study without blows, on as many workers as the machine has cores."""
    workers = min(weather.workers, psutil.cpu_count() or 1)
    name = f"{weather.name}_calm"
    peaceful = replace(weather, name=name, workers=workers, kills=0, restarts=0, freezes=0)
    return replace(peaceful, pause_seconds=0.0)


def _count(report: Report, bench: Bench) -> None:
    report.states = Counter(row.state for row in bench.rows(t.outcome))
    report.states["PAUSED"] += sum(row.state == "paused" for row in bench.rows(t.lease))
    report.events = Counter(row.kind for row in bench.rows(t.event))
    report.epochs_stored = len(bench.rows(t.epoch))
    report.decisions = len(bench.rows(t.stretch if report.weather.budget else t.decision))
