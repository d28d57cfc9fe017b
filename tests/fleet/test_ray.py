"""Actors on a real Ray of two nodes: whatever happens to them, the study ends exact."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from tests.faults.proof import assert_as_undisturbed, assert_whole, kinds
from tests.faults.scenery import Scene, Sizes
from tests.harness.processes import environment, until
from tests.harness.ray import DRIVER, Cluster
from tests.store.specs import Bench
from tuner.errors import MachineError, UserError
from tuner.fleet.contract import Crew
from tuner.store import tables as t

SIZES = Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=40, attempts=1)
"""One attempt only: no action of Ray may count as a fault of the trial."""
LONG = Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=2000, attempts=1)


class Fleets:
    """Fleets on the tests' cluster, each ended with its test."""

    def __init__(self, scene: Scene, cluster: Cluster) -> None:
        self.scene = scene
        self.cluster = cluster
        self.made: list[Any] = []

    def crew(self, workers: int, **options: Any) -> Crew:
        """Return a crew on the scene's study."""
        return Crew(
            "small@1",
            workers=workers,
            device="cpu",
            folders=(self.scene.blobs.folder,),
            options={"address": self.cluster.address, **options},
        )

    def start(self, workers: int, **options: Any) -> Any:
        """Start a fleet."""
        from tuner.fleet.ray import ENGINE

        fleet = ENGINE.fleet(self.scene.settings, self.crew(workers, **options))
        self.made.append(fleet)
        fleet.start()
        return fleet

    def finish(self, fleet: Any) -> None:
        """Wait until no actor is left, and check that none has given up."""
        until(lambda: fleet.running() == 0, "no actor is left", seconds=240)
        assert fleet.failures() == []


@pytest.fixture
def fleets(scene: Scene, ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleets]:
    """Return a scene, and fleets on the cluster, ended with the test."""
    from tuner.fleet import ray

    monkeypatch.setattr(ray, "LOOK_SECONDS", 0.5)
    while len(ray_cluster.nodes) < 2:
        ray_cluster.add()
    fleets = Fleets(scene, ray_cluster)
    yield fleets
    for fleet in fleets.made:
        fleet.close()


def epochs(bench: Bench, count: int) -> None:
    """Wait until this many epochs are stored."""
    until(lambda: len(bench.rows(t.epoch)) >= count, f"{count} epochs", seconds=120)


def workers_of_pilots(secret: str) -> list[dict[str, str]]:
    """Return the workers' environments; check that no secret or torch is in commands and actors."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            assert secret not in line
            if line.startswith("ray::Pilot"):
                assert not any("libtorch" in one.path for one in process.memory_maps())
                found += [worker.environ() for worker in process.children()]
        except psutil.Error:
            continue
    return found


def test_a_study_is_trained_to_its_end_and_shows_no_secret(fleets: Fleets) -> None:
    """Actors end with their study; no password or token is visible, and none imports torch."""
    bench = fleets.scene.launch(SIZES)
    fleet = fleets.start(1)
    epochs(bench, 1)
    password = re.search(r":([^:@/]+)@|password=([^&]+)", str(fleets.scene.settings.database_url))
    assert password is not None
    secret = password[1] or password[2]
    import ray

    assert secret not in json.dumps(dict(ray.get_runtime_context().runtime_env))
    assert secret not in json.dumps(fleet.handle())
    until(lambda: len(workers_of_pilots(secret)) == 1, "it works")
    assert all("RAY_AUTH_TOKEN" not in environ for environ in workers_of_pilots(secret))
    fleets.finish(fleet)
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_node_dies_in_training_and_another_joins(fleets: Fleets) -> None:
    """Actors of a dead node, and one that never had room, start on a node that joins."""
    bench = fleets.scene.launch(SIZES)
    fleet = fleets.start(3)
    until(lambda: len(bench.rows(t.worker)) == 2, "two have room", seconds=120)
    epochs(bench, 8)
    assert fleet.running() == 3
    assert len(bench.rows(t.worker)) == 2
    fleets.cluster.kill(fleets.cluster.nodes[0])
    fleets.cluster.add(cpus=2)
    fleets.finish(fleet)
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_fleet_outlives_its_driver_and_is_found_again(fleets: Fleets) -> None:
    """After kill -9 of its launcher a fleet trains on; it is scaled and stopped by its handle."""
    from tuner.fleet.ray import ENGINE

    bench = fleets.scene.launch(LONG)
    crew = fleets.crew(1)
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(crew.to_json())],
        env=environment(fleets.scene.settings),
        stdout=subprocess.PIPE,
        text=True,
    ) as launcher:
        assert launcher.stdout is not None
        handle = json.loads(launcher.stdout.readline())
        epochs(bench, 2)
        launcher.kill()
    before = len(bench.rows(t.epoch))
    epochs(bench, before + 4)
    elsewhere = {"session": "session_of_another", "address": "10.0.0.9:6379"}
    other = {**handle, "prefix": "small@1-other", "cluster": elsewhere}
    for act in ("running", "ask_to_stop"):
        with pytest.raises(UserError, match=r"on the Ray cluster at 10\.0\.0\.9:6379"):
            getattr(ENGINE.again(fleets.scene.settings, crew, other), act)()
    restarted = {**handle["cluster"], "session": "session_before"}
    gone = {**handle, "prefix": "small@1-gone", "cluster": restarted}
    assert ENGINE.again(fleets.scene.settings, crew, gone).running() == 0
    fleet = ENGINE.again(fleets.scene.settings, crew, handle)
    fleets.made.append(fleet)
    assert fleet.running() == 1
    fleet.scale(2)
    until(lambda: len(bench.rows(t.worker)) == 2, "another has joined", seconds=120)
    fleet.scale(1)
    until(lambda: fleet.running() == 1, "one is left")
    fleet.ask_to_stop()
    until(lambda: fleet.running() == 0, "none is left")
    assert bench.state() == "open"
    assert kinds(bench)["lost"] == 0


def test_a_worker_that_gave_up_is_told(fleets: Fleets) -> None:
    """A worker that ends with its own error is not replaced; its output is reported."""
    fleets.scene.launch(SIZES)
    fleet = fleets.start(1, password_file="/nowhere/password")
    until(lambda: fleet.running() == 0, "it gave up")
    assert "/nowhere/password" in fleet.failures()[0]


def test_actors_are_made_all_or_none(fleets: Fleets) -> None:
    """If the second actor cannot be created, the first one is removed."""
    import ray

    from tuner.fleet.ray import ENGINE, NAMESPACE

    fleets.scene.launch(LONG)
    fleet: Any = ENGINE.fleet(fleets.scene.settings, replace(fleets.crew(2), folders=()))
    names = [fleet._name(number) for number in range(2)]
    ray.init(fleets.cluster.address, namespace=NAMESPACE, ignore_reinit_error=True)
    taken = ray.remote(Squatter).options(name=names[1], num_cpus=0, lifetime="detached")
    ray.get(taken.remote().answers.remote())
    ray.shutdown()
    try:
        with pytest.raises(MachineError, match="does not make the actors"):
            fleet.start()
        assert fleet.handle()["gone"] == [0]
        # Other tests' fleets may still be running.
        until(lambda: names[0] not in ray.util.list_named_actors(), "the first is gone")
        ray.kill(ray.get_actor(names[1]))
    finally:
        fleet.close()
        ray.shutdown()


class Squatter:
    """An actor that occupies a fleet's name."""

    def answers(self) -> bool:
        """Answer, to show that it is there."""
        return True


def test_a_cluster_that_is_not_there_is_told(scene: Scene, ray_cluster: Cluster) -> None:
    """An address without a cluster is a MachineError that names it."""
    from tuner.fleet.ray import ENGINE

    fleet = ENGINE.fleet(scene.settings, Crew("small@1", options={"address": "127.0.0.1:1"}))
    with pytest.raises(MachineError, match=r"127.0.0.1:1 cannot be used"):
        fleet.start()


def test_options_that_make_no_sense_are_told() -> None:
    """A misspelt option is a UserError that names it."""
    pytest.importorskip("ray")
    from tuner.fleet.ray import ENGINE

    with pytest.raises(UserError, match="did you mean address"):
        ENGINE.options({"adress": "auto"})
    assert ENGINE.options({"gpus": "0.5"}) == {"gpus": 0.5}


def test_a_worker_is_asked_once_however_often_its_fleet_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second signal would mean to exit at once; it is sent only on request, and once."""
    from tuner.fleet import ray as engine

    lines = "trap 'echo TERM' TERM; trap 'echo INT' INT; echo up; while :; do sleep 0.05; done"
    monkeypatch.setattr(engine, "python", lambda *_: ["bash", "-c", lines, "worker"])
    # This pilot runs without a cluster, so there is no actor to end.
    ended = Mock()
    monkeypatch.setattr("ray.get_runtime_context", lambda: ended)
    log = tmp_path / "log"
    pilot = engine.Pilot([], {}, None, str(log))
    try:
        until(lambda: log.exists() and "up" in log.read_text(), "it listens")
        pilot.leave()
        until(lambda: "TERM" in log.read_text(), "it was asked")
        pilot.leave()
        pilot.leave(at_once=True)
        until(lambda: "INT" in log.read_text(), "it was hurried")
        pilot.leave(at_once=True)
        time.sleep(0.2)
        assert log.read_text().split() == ["up", "TERM", "INT"]
    finally:
        assert pilot._process is not None
        pilot._process.kill()
        until(lambda: bool(ended.mock_calls), "it ended itself")
