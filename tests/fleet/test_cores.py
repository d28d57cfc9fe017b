"""Pinned workers: which cores each gets, and that it and its trainer stay on them."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.scenery import Scene, Sizes
from tests.harness import warm
from tests.harness.processes import trainers_of, until
from tests.store.specs import Bench
from tests.train.blobs import PAUSE
from tuner.fleet import local
from tuner.fleet.contract import Crew
from tuner.fleet.cores import CAN_PIN, divide, neighbours
from tuner.fleet.local import LocalFleet
from tuner.settings import Settings
from tuner.store import tables as t

pytestmark = pytest.mark.skipif(
    not CAN_PIN, reason="this operating system cannot pin processes to cores"
)


@pytest.mark.parametrize(
    ("cores", "workers", "divided"),
    [
        (range(8), 2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ((0, 4, 1, 5, 2), 2, [(0, 4), (1, 5, 2)]),
        ((3, 1), 2, [(3,), (1,)]),
        ((3, 1), 5, [(3,), (1,), (3,), (1,), (3,)]),
        ((6,), 1, [(6,)]),
    ],
)
def test_each_worker_gets_a_run_of_neighbours(
    cores: Sequence[int], workers: int, divided: list[tuple[int, ...]]
) -> None:
    """Every core is assigned; if there are too few, each is shared by equally many workers."""
    assert divide(cores, workers) == divided


def test_neighbours_are_of_one_node_and_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of two cores with two threads each, in Linux's numbering; one core is taken."""
    for core in range(8):
        folder = tmp_path / "cpu" / f"cpu{core}"
        (folder / f"node{core % 2}").mkdir(parents=True)
        (folder / "topology").mkdir()
        (folder / "topology" / "physical_package_id").write_text(f"{core % 2}\n")
        (folder / "topology" / "core_id").write_text(f"{core % 4 // 2}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)) - {6})
    assert neighbours(tmp_path) == [0, 4, 2, 1, 5, 3, 7]
    assert neighbours(tmp_path / "nothing") == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.processes
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be divided")
@pytest.mark.parametrize("forked", [True, False])
def test_workers_and_their_trainers_stay_on_their_cores(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, forked: bool
) -> None:
    """All threads stay, forked or executed; workers that join later share the cores."""
    monkeypatch.setenv(PAUSE, "0.02")
    bench = scene.launch(Sizes(seeds=2, epochs=2000))
    crew = Crew("small@1", ("cpu", "cpu"), folders=(scene.blobs.folder,), pin=True)
    fleet = LocalFleet(scene.settings, crew, warm.fork_server() if forked else None)
    first, second = divide(neighbours(), 2)
    try:
        fleet.start()
        for workers, expected in ((2, [first, second]), (3, [first, second, first])):
            fleet.scale(workers)
            until(lambda at=workers: _at_work(bench) == at, "all train")  # type: ignore[misc]
            found = [post.process.pid for post in fleet._posts if post.process is not None]
            assert [_cores(pid) for pid in found] == [set(cores) for cores in expected]
            # Checked for all together: a forked trainer is not a child of its worker.
            trainers = {frozenset(_cores(pid)) for pid in trainers_of(os.getpid())}
            assert trainers == set(map(frozenset, expected))
            if not forked:
                break
    finally:
        fleet.stop_now()
        fleet.close()


@pytest.mark.processes
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be divided")
def test_a_worker_that_joins_gets_the_cores_of_one_that_left(settings: Settings) -> None:
    """A joining worker gets the cores of one that left, not those of one still at work."""
    crew = Crew("nowhere", ("cpu", "cpu"), pin=True)
    fleet = LocalFleet(settings, crew, warm.fork_server())
    try:
        fleet.start()
        fleet.scale(1)
        fleet.scale(2)
        present = [post.cores for post in fleet._posts if not post.leaving]
        assert present == divide(neighbours(), 2)
    finally:
        fleet.close()


def test_a_system_that_pins_nothing_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without pinning this is reported, and the workers train unpinned."""
    monkeypatch.setattr(local, "CAN_PIN", False)
    fleet = LocalFleet(scene.settings, Crew("small@1", ("cpu",), pin=True))
    assert "--pin has no effect" in fleet.remarks()[0]
    assert fleet.remarks() == []


def _at_work(bench: Bench) -> int:
    return len({row.trial_id for row in bench.rows(t.epoch)})


def _cores(process: int) -> set[int]:
    """Return the cores on which any thread of a process may run."""
    tasks = [int(task.name) for task in Path(f"/proc/{process}/task").iterdir()]
    return set().union(*(os.sched_getaffinity(task) for task in tasks))
