"""Fixtures of the fleet's tests."""

from collections.abc import Callable, Iterator

import pytest

from tuner.fleet.contract import Crew
from tuner.fleet.local import LocalFleet
from tuner.settings import Settings

MakeFleet = Callable[..., LocalFleet]


@pytest.fixture
def make_fleet(settings: Settings) -> Iterator[MakeFleet]:
    """Start crews on this machine, and leave nothing of them behind."""
    fleets: list[LocalFleet] = []

    def start(study: str, workers: int = 1, settings: Settings = settings) -> LocalFleet:
        fleets.append(LocalFleet(settings, Crew(study, ("cpu",) * workers)))
        fleets[-1].start()
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()
