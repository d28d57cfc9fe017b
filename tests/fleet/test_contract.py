"""The contract of every engine: one suite, run on each of them.

An engine joins with a bed in `BEDS`, which starts its fleets for these tests.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from tests.faults.proof import assert_as_undisturbed, assert_whole
from tests.faults.scenery import Scene, Sizes
from tests.harness import warm
from tests.harness.processes import until
from tests.train.blobs import PAUSE
from tuner.errors import UserError
from tuner.fleet import engines
from tuner.fleet.contract import Crew, Engine, Fleet
from tuner.store import tables as t
from tuner.work.probe import ProbeReport

SIZES = Sizes(rates=(1e-3, 1e-2), seeds=1, epochs=6)
LONG = Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=2000)


class Bed(Protocol):
    """Starts the fleets of one engine, and ends them."""

    engine: Engine

    def fleet(self, workers: int) -> Fleet:
        """Return a fleet on the study `small`, not yet started; it is closed with the test."""

    def close(self) -> None:
        """End whatever was started."""


@dataclass
class LocalBed:
    """This machine."""

    scene: Scene
    engine: Engine = field(default_factory=lambda: engines.load("local"))
    fleets: list[Fleet] = field(default_factory=list)

    def fleet(self, workers: int) -> Fleet:
        """Return a crew on the CPU."""
        crew = Crew("small@1", ("cpu",) * workers, folders=(self.scene.blobs.folder,))
        self.fleets.append(self.engine.fleet(self.scene.settings, crew, warm.fork_server()))
        return self.fleets[-1]

    def close(self) -> None:
        """Close every crew."""
        for fleet in self.fleets:
            fleet.close()


@dataclass
class ClusterBed:
    """An engine on other machines, with the options that find it."""

    scene: Scene
    engine: Engine
    options: Mapping[str, str]
    fleets: list[Fleet] = field(default_factory=list)

    def fleet(self, workers: int) -> Fleet:
        """Return a fleet of workers on the CPU."""
        crew = Crew(
            "small@1",
            workers=workers,
            device="cpu",
            folders=(self.scene.blobs.folder,),
            options=self.engine.options(self.options),
        )
        self.fleets.append(self.engine.fleet(self.scene.settings, crew))
        return self.fleets[-1]

    def close(self) -> None:
        """Close every fleet."""
        for fleet in self.fleets:
            fleet.close()


def _slurm_bed(scene: Scene, request: pytest.FixtureRequest) -> Bed:
    cluster = request.getfixturevalue("cluster")
    patch = request.getfixturevalue("monkeypatch")
    for name, value in cluster.environment.items():
        patch.setenv(name, value)
    patch.setattr("tuner.fleet.slurm.LOOK_SECONDS", 0.5)
    return ClusterBed(scene, engines.load("slurm"), {})


def _ray_bed(scene: Scene, request: pytest.FixtureRequest) -> Bed:
    cluster = request.getfixturevalue("ray_cluster")
    patch = request.getfixturevalue("monkeypatch")
    patch.setattr("tuner.fleet.ray.LOOK_SECONDS", 0.5)
    return ClusterBed(scene, engines.load("ray"), {"address": cluster.address})


BEDS: dict[str, Callable[[Scene, pytest.FixtureRequest], Bed]] = {
    "local": lambda scene, _: LocalBed(scene),
    "ray": _ray_bed,
    "slurm": _slurm_bed,
}


@pytest.fixture(params=BEDS)
def bed(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Bed]:
    """Return an engine to start fleets on."""
    bed = BEDS[request.param](scene, request)
    yield bed
    bed.close()


LEAVING_SECONDS = 200.0
"""Once in many runs Slurm took two minutes to report the end of a cancelled element."""

pytestmark = pytest.mark.processes


def test_a_fleet_trains_a_study_to_its_end_and_melts_away(bed: Bed, scene: Scene) -> None:
    """Every trial is trained once, bit for bit; then no worker runs and none failed."""
    bench = scene.launch(SIZES)
    fleet = bed.fleet(2)
    fleet.start()
    until(lambda: fleet.running() == 0, "all have left", LEAVING_SECONDS)
    assert fleet.failures() == []
    assert_as_undisturbed(bench, scene.blobs)


def test_a_fleet_is_scaled_up_and_down_and_stopped(bed: Bed, scene: Scene) -> None:
    """New workers train too; surplus ones give their trial back and exit.

    When asked to stop, the remaining two do the same: no trial is lost or left to expire, and none
    is replaced.
    """
    bench = scene.launch(LONG)
    fleet = bed.fleet(1)
    fleet.start()
    assert fleet.running() == 1
    fleet.scale(2)
    assert fleet.running() == 2

    def held() -> int:
        return sum(row.state == "held" for row in bench.rows(t.lease))

    until(lambda: held() == 2, "both have a trial")
    fleet.scale(1)
    until(lambda: fleet.running() == 1, "one has left")
    until(lambda: held() == 1, "its trial was given back")
    fleet.scale(2)
    until(lambda: held() == 2, "another one trains")
    fleet.ask_to_stop()
    until(lambda: fleet.running() == 0, "both have left", LEAVING_SECONDS)
    assert {row.state for row in bench.rows(t.lease)} == {"released"}
    assert bench.state() == "open"
    assert fleet.failures() == []


def test_a_fleet_that_must_stop_now_does(bed: Bed, scene: Scene) -> None:
    """After stopping at once no worker runs, and the study can be continued.

    Its handle is JSON without the password: it is stored where every reader of the study can see
    it.
    """
    bench = scene.launch(LONG)
    fleet = bed.fleet(1)
    fleet.start()
    text = json.dumps(fleet.handle())
    assert json.loads(text) == fleet.handle()
    assert str(scene.settings.database_url) not in text
    until(lambda: bench.rows(t.epoch), "an epoch was recorded")
    fleet.ask_to_stop()
    fleet.stop_now()
    until(lambda: fleet.running() == 0, "it has left", LEAVING_SECONDS)
    assert bench.state() == "open"


def test_the_probe_runs_where_workers_would(bed: Bed, scene: Scene) -> None:
    """The probe returns a report without errors."""
    scene.launch(SIZES)
    crew = Crew("small@1", folders=(scene.blobs.folder,))
    report = ProbeReport.read(bed.engine.probe(scene.settings, crew))
    assert report.faults == []
    assert {one.what for one in report.findings} >= {"database", "objective", "code and data"}


def test_an_unknown_option_is_refused(bed: Bed) -> None:
    """An unknown option is named, before anything is started."""
    with pytest.raises(UserError, match="parttion"):
        bed.engine.options({"parttion": "gpu"})


def test_all_engines_train_one_study_at_once(
    scene: Scene, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker of each engine, independent of each other: every trial is trained once."""
    monkeypatch.setenv(PAUSE, "0.02")
    bench = scene.launch(Sizes(rates=(1e-3, 1e-2), seeds=3, attempts=1))
    beds = {name: make(scene, request) for name, make in BEDS.items()}
    fleets = [beds[name].fleet(1) for name in ("ray", "slurm", "local")]
    try:
        for count, fleet in enumerate(fleets, start=1):
            fleet.start()
            until(lambda at=count: len(bench.rows(t.worker)) == at, f"{count} workers")  # type: ignore[misc]
        until(lambda: not sum(fleet.running() for fleet in fleets), "all have left", seconds=240)
        assert [fleet.failures() for fleet in fleets] == [[], [], []]
    finally:
        for bed in beds.values():
            bed.close()
    assert_whole(bench)
    assert_as_undisturbed(bench, scene.blobs)
