"""Fixtures of the fleet's tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scenery import Scene
from tests.harness import ray, slurm, warm
from tuner.fleet.contract import Crew
from tuner.fleet.local import NO_ACCIDENTS, LocalFleet
from tuner.fleet.replacements import Replacements
from tuner.settings import Settings
from tuner.store.database import Database

REQUIRED = {name: os.environ.get(name) for name in (slurm.REQUIRED, ray.REQUIRED)}
"""Read here, because tests see no variable of tuner."""
MakeFleet = Callable[..., LocalFleet]


@pytest.fixture
def make_fleet(settings: Settings) -> Iterator[MakeFleet]:
    """Start crews on this machine, and end them with the test.

    Their workers are forked, like those of a launch, unless they must be executed.
    """
    fleets: list[LocalFleet] = []

    def start(
        study: str,
        workers: int = 1,
        settings: Settings = settings,
        *,
        executed: bool = False,
        limits: Replacements = NO_ACCIDENTS,
    ) -> LocalFleet:
        forks = None if executed else warm.fork_server()
        crew = Crew(study, ("cpu",) * workers)
        fleets.append(LocalFleet(settings, crew, forks, limits))
        fleets[-1].start()
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


@pytest.fixture
def scene(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Scene]:
    """Return a folder with the blobs objective, for studies."""
    scene = Scene(settings, database, tmp_path / "scene")
    yield scene
    scene.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """Run one Slurm for all tests of this process, or skip with the reason."""
    _skip_unless_required("Slurm", slurm.REQUIRED, slurm.why_not())
    with slurm.run_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[ray.Cluster]:
    """Run one Ray for all tests of this process, or skip with the reason."""
    _skip_unless_required("Ray", ray.REQUIRED, ray.why_not())
    with ray.run_cluster() as cluster:
        yield cluster


def _skip_unless_required(name: str, variable: str, reason: str | None) -> None:
    if reason is None:
        return
    if REQUIRED[variable] == "required":
        pytest.fail(f"{variable} requires {name}, but {reason}")
    pytest.skip(reason)
