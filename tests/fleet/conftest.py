"""Fixtures of the fleet's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scenery import Scene
from tests.harness import warm
from tuner.fleet.contract import Crew
from tuner.fleet.local import NO_ACCIDENTS, LocalFleet
from tuner.fleet.replacements import Replacements
from tuner.settings import Settings
from tuner.store.database import Database

MakeFleet = Callable[..., LocalFleet]


@pytest.fixture
def make_fleet(settings: Settings) -> Iterator[MakeFleet]:
    """Start crews on this machine, and leave nothing of them behind.

    Their workers are forked, as those of a launch are, unless they are to be executed.
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
    """Give the test a folder with the blobs, to make studies of."""
    scene = Scene(settings, database, tmp_path / "scene")
    yield scene
    scene.close()
