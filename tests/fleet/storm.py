"""The storm over fleets: real engines, their own faults, and the checks of every storm.

Each blow is one that its engine knows: a node dies, an element is cancelled, a worker is preempted.
Workers are found by their rows in the database and struck as processes of this machine, where all
clusters of these tests run. The storm acts for people: administrators who cancel, drain and
restart, and a user who scales up a fleet that lost workers for good. Engines do the rest.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.exc import DBAPIError

from tests.faults import storm
from tests.faults.scenes import Scene
from tests.faults.storm import TIMING, Storm
from tests.faults.weather import Report, Weather
from tests.harness import ray, slurm
from tests.harness.postgres import Server
from tests.harness.processes import environment, freeze, kill, trainers_of
from tests.store.specs import Bench
from tests.train.blobs import PAUSE
from tuner.errors import TunerError
from tuner.fleet import engines
from tuner.fleet.contract import Crew, Fleet
from tuner.settings import Settings
from tuner.store import tables as t

OUTAGE_SECONDS = 3.0
"""How long PostgreSQL is away, or a node."""
GROWN_SECONDS = 10.0
"""Younger workers are left alone, since five early deaths in a row end a fleet."""
LOOK_SECONDS = 1.0

Strike = Callable[[], int]
"""Lets a blow fall; returns how many workers it hit, 0 if none."""


@dataclass(frozen=True)
class FleetWeather:
    """A study in a storm, on which engines, and how often each of their faults."""

    study: Weather
    engines: Mapping[str, int]
    """The engines' names, and how many workers each has."""
    faults: Mapping[str, int]

    def blows(self) -> list[str]:
        """Return the faults in their order."""
        listed = [fault for fault, count in self.faults.items() for _ in range(count)]
        random.Random(self.study.seed).shuffle(listed)
        return listed


class Bed:
    """One engine's fleet on the study of a storm."""

    name = ""

    def __init__(
        self, scene: Scene, bench: Bench, workers: int, options: Mapping[str, Any]
    ) -> None:
        self.settings: Settings = scene.settings
        self.bench = bench
        self.wanted = workers
        self.engine = engines.load(self.name)
        self.crew = Crew(
            bench.study.full_name,
            devices=() if self.engine.outlives else ("cpu",) * workers,
            workers=workers,
            device="cpu",
            folders=(scene.objectives,),
            options=self.engine.options(options),
        )
        self.fleet: Fleet = self.engine.fleet(self.settings, self.crew)

    def start(self) -> None:
        """Start the fleet."""
        self.fleet.start()

    def attend(self) -> None:
        """Count the workers, so that the engine replaces them; scale up if some are gone for good.

        An engine that does not answer for a moment is asked again later, as a user would.
        """
        with suppress(TunerError, DBAPIError):
            running = self.fleet.running()
            if self.engine.outlives and 0 < running < self.wanted and self.bench.state() == "open":
                self.fleet.scale(self.wanted)

    def faults(self) -> dict[str, Strike]:
        """Return this engine's own faults."""
        return {}

    def mend(self, now: float) -> None:
        """Undo what a fault did, once its time is over."""

    def forget(self) -> int:
        """Drop the launcher: its successor knows only the handle."""
        handle = json.loads(json.dumps(self.fleet.handle()))
        self.fleet = self.engine.again(self.settings, self.crew, handle)
        return 1

    def close(self) -> None:
        """End the fleet."""
        self.fleet.close()


class LocalBed(Bed):
    """This machine."""

    name = "local"


class SlurmBed(Bed):
    """A Slurm of two nodes; a worker runs for half a minute, and is then requeued."""

    name = "slurm"

    def __init__(self, scene: Scene, bench: Bench, workers: int, cluster: slurm.Cluster) -> None:
        super().__init__(scene, bench, workers, {"time": "1m", "signal": "20s"})
        self.cluster = cluster
        self.chance = random.Random(workers)
        self.away: dict[str, float] = {}
        """Nodes that are down or drained, and when they come back."""

    def faults(self) -> dict[str, Strike]:
        """Return what Slurm and its administrators do to jobs."""
        return {
            "slurm: cancel": lambda: self._on_element("scancel"),
            "slurm: requeue": lambda: self._on_element("scontrol", "requeue"),
            "slurm: preempt": self._preempt,
            "slurm: node down": lambda: self._node("down"),
            "slurm: node drained": lambda: self._node("drain"),
            "slurm: controller killed": self._kill_controller,
            "slurm: launcher lost": self.forget,
        }

    def mend(self, now: float) -> None:
        """Return nodes to service."""
        for node in [one for one, until in self.away.items() if until <= now]:
            with suppress(AssertionError):  # Slurm has not noticed yet that the node was taken away
                self.cluster.node(node, "resume")
                del self.away[node]

    def _running(self) -> list[str]:
        jobs = ",".join(map(str, self.fleet.handle()["jobs"]))
        words = ("squeue", "--noheader", "--array", "--states=R", f"--jobs={jobs}")
        with suppress(AssertionError):
            return self.cluster.run(*words, "--format=%F_%K").split()
        return []

    def _on_element(self, *command: str) -> int:
        elements = self._running()
        if not elements:
            return 0
        with suppress(AssertionError):  # the element has just ended
            self.cluster.run(*command, self.chance.choice(elements))
        return 1

    def _preempt(self) -> int:
        hit = len(self._running())
        if hit:
            self.cluster.run(
                "sbatch", "--partition=high", "--nodes=2", "--ntasks=8", "--output=/dev/null",
                "--wrap=sleep 1",
            )  # fmt: skip
        return hit

    def _node(self, state: str) -> int:
        if self.away:
            return 0  # with both nodes away no element could run
        node = self.chance.choice(slurm.NODES)
        self.cluster.node(node, state)
        self.away[node] = time.monotonic() + OUTAGE_SECONDS
        return self.wanted

    def _kill_controller(self) -> int:
        self.cluster.restart_controller()
        return 1

    def close(self) -> None:
        """Return the nodes to service, and end the fleet."""
        self.mend(float("inf"))
        super().close()


class RayBed(Bed):
    """A Ray of two nodes, and a driver that starts the fleet and is killed."""

    name = "ray"

    def __init__(self, scene: Scene, bench: Bench, workers: int, cluster: ray.Cluster) -> None:
        super().__init__(scene, bench, workers, {"address": cluster.address})
        self.cluster = cluster
        self.chance = random.Random(workers)
        self.joins: float | None = None
        """When a node joins in place of one that died."""
        self.driver: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the fleet from a separate driver, and find it by its handle."""
        words = [sys.executable, "-c", ray.DRIVER, json.dumps(self.crew.to_json())]
        around = environment(self.settings)
        self.driver = subprocess.Popen(words, env=around, stdout=subprocess.PIPE, text=True)
        assert self.driver.stdout is not None
        handle = json.loads(self.driver.stdout.readline())
        self.fleet = self.engine.again(self.settings, self.crew, handle)

    def faults(self) -> dict[str, Strike]:
        """Return the faults of Ray clusters."""
        return {
            "ray: node killed": self._kill_node,
            "ray: node added": self._add_node,
            "ray: driver killed": self._kill_driver,
            "ray: actor killed": self._kill_actor,
            "ray: launcher lost": self.forget,
        }

    def mend(self, now: float) -> None:
        """Let a new node join in place of a dead one."""
        if self.joins is not None and self.joins <= now:
            self.joins = None
            self.cluster.add()

    def _kill_node(self) -> int:
        if len(self.cluster.nodes) < 2:
            return 0
        node = self.chance.choice(self.cluster.nodes)
        raylet = node.all_processes["raylet"][0].process.pid
        family = psutil.Process(raylet).children(recursive=True)
        # All at once, as in a power failure: no worker gives its trial back.
        kill(raylet, *(one.pid for one in family))
        self.cluster.kill(node)
        self.joins = time.monotonic() + OUTAGE_SECONDS
        return self.wanted

    def _add_node(self) -> int:
        self.cluster.add()
        return 1

    def _kill_driver(self) -> int:
        assert self.driver is not None
        self.driver.kill()
        self.driver.wait()
        return 1

    def _kill_actor(self) -> int:
        actors = [one for one in psutil.process_iter() if _title(one).startswith("ray::Pilot")]
        if actors:
            kill(self.chance.choice(actors).pid)
        return min(1, len(actors))

    def close(self) -> None:
        """End the fleet, and the driver if it was not killed."""
        super().close()
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()
            assert self.driver.stdout is not None
            self.driver.stdout.close()


@dataclass
class Fleets:
    """Fleets that train one study together; they are a storm's crew."""

    scene: Scene
    bench: Bench
    beds: Sequence[Bed]
    gave_up: list[str] = field(default_factory=list)
    _looked: float = float("-inf")

    @property
    def started(self) -> int:
        """The number of workers started so far."""
        return len(self.bench.rows(t.worker))

    def start(self) -> None:
        """Start every fleet."""
        for bed in self.beds:
            bed.start()

    def attend(self) -> None:
        """Let every fleet replace its workers."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            for bed in self.beds:
                bed.attend()

    def pids(self, age_seconds: float = 0.0) -> list[int]:
        """Return the processes of workers, by their rows; only those of at least this age."""
        home = str(self.scene.settings.home)
        with suppress(DBAPIError):
            rows = [row for row in self.bench.rows(t.worker) if row.ended is None]
            return [row.pid for row in rows if _is_worker(row.pid, home, age_seconds)]
        return []

    def said(self) -> str:
        """Return the last output of the workers."""
        logs = sorted(self.scene.settings.home.glob("**/*.log"))
        return "\n".join(f"{log.name}\n{log.read_text(errors='replace')[-600:]}" for log in logs)

    def close(self) -> None:
        """Record which workers gave up, and end every fleet."""
        for bed in self.beds:
            with suppress(TunerError):
                self.gave_up += [f"{bed.name}: {said}" for said in bed.fleet.failures()]
            bed.close()


@dataclass
class FleetStorm(Storm):
    """A storm with the engines' blows."""

    gap_seconds: float = 2.0
    starts: float | None = None
    """When PostgreSQL starts again."""

    @property
    def fleets(self) -> Fleets:
        """The crew, with its type."""
        assert isinstance(self.crew, Fleets)
        return self.crew

    def strike(self, blow: str) -> bool:
        """Let a blow fall, if there is a process to hit."""
        faults: dict[str, Strike] = {
            "kill worker": lambda: self._kill(whole=True),
            "kill trainer": lambda: self._kill(whole=False),
            "slurm: time limit": self._freeze_on_slurm,
            "stop PostgreSQL": self._stop_server,
        }
        for bed in self.fleets.beds:
            faults |= bed.faults()
        hit = faults[blow]()
        self.report.struck += hit
        return hit > 0

    def mend(self, now: float) -> None:
        """Start the database again, and let each engine undo its own faults."""
        super().mend(now)
        if self.starts is not None and self.starts <= now:
            self.starts = None
            self.server.start()
        for bed in self.fleets.beds:
            bed.mend(now)

    def _kill(self, *, whole: bool) -> int:
        grown = self.fleets.pids(GROWN_SECONDS)
        if not grown:
            return 0
        worker = self.chance.choice(grown)
        struck = [worker] if whole else trainers_of(worker)
        kill(*struck)
        return min(1, len(struck))

    def _freeze_on_slurm(self) -> int:
        """Freeze a worker and its trainer, so that neither can leave nor receive a signal:

        Slurm's time limit ends them in the middle of a trial.
        """
        grown = [pid for pid in self.fleets.pids(GROWN_SECONDS) if _is_on_slurm(pid)]
        if not grown:
            return 0
        worker = self.chance.choice(grown)
        with suppress(ProcessLookupError, psutil.Error):
            freeze(worker, *trainers_of(worker))
        return 1

    def _stop_server(self) -> int:
        self.server.stop_at_once()
        self.starts = time.monotonic() + OUTAGE_SECONDS
        return self.weather.workers


def run(weather: FleetWeather, server: Server, folder: Path) -> tuple[Report, Bench]:
    """Run one study under its weather, on engine clusters started for it."""
    study = weather.study
    with _surroundings(study), _clusters(weather) as clusters:
        scene, bench = storm.stage(study, server, folder)
        beds = [_bed(name, scene, bench, weather, clusters) for name in weather.engines]
        fleets = Fleets(scene, bench, beds)
        fleets.start()
        report, chance = Report(study), random.Random(study.seed + 1)
        raging = FleetStorm(study, server, bench, fleets, report, chance, weather.blows())
        return storm.finish(raging, scene)


def _bed(
    name: str, scene: Scene, bench: Bench, weather: FleetWeather, clusters: Mapping[str, Any]
) -> Bed:
    workers = weather.engines[name]
    if name == "slurm":
        return SlurmBed(scene, bench, workers, clusters[name])
    if name == "ray":
        return RayBed(scene, bench, workers, clusters[name])
    return LocalBed(scene, bench, workers, {})


@contextmanager
def _surroundings(study: Weather) -> Iterator[None]:
    """Set the timing of storms and this one's pace for started programs."""
    before = dict(os.environ)
    names = ("lease", "renew", "grace", "poll", "give_back")
    os.environ |= {f"TUNER_{name.upper()}_SECONDS": f"{getattr(TIMING, name):g}" for name in names}
    os.environ[PAUSE] = str(study.pause_seconds)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _clusters(weather: FleetWeather) -> Iterator[Mapping[str, Any]]:
    with ExitStack() as stack:
        clusters: dict[str, Any] = {}
        if "slurm" in weather.engines:
            clusters["slurm"] = stack.enter_context(slurm.run_cluster())
            os.environ.update(clusters["slurm"].environment)
        if "ray" in weather.engines:
            clusters["ray"] = stack.enter_context(
                ray.run_cluster(weather.study.pause_seconds, cpus=2)
            )
        yield clusters


def _is_worker(pid: int, home: str, age_seconds: float) -> bool:
    """Return whether a process is a worker of this storm, and not another with a reused number."""
    try:
        process = psutil.Process(pid)
        alive = process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
        old = time.time() - process.create_time() >= age_seconds
        return alive and old and process.environ().get("TUNER_HOME") == home
    except psutil.Error:
        return False


def _is_on_slurm(pid: int) -> bool:
    try:
        return "SLURM_JOB_ID" in psutil.Process(pid).environ()
    except psutil.Error:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
