"""Fleets as stored in the database."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, make_spec
from tuner.store import fleets, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.fleets import Launcher

CREW = {"study": "small@1", "workers": 3, "options": {"partition": "gpu"}}
HERE = Launcher("here", 7, "ann@here")


@pytest.fixture
def bench(database: Database) -> Bench:
    """A stored study."""
    return Bench.launch(database, make_spec())


def begin(bench: Bench) -> int:
    """Store a fleet of three workers."""
    with bench.database.transaction() as connection:
        return fleets.begin(connection, bench.study, "slurm", CREW, {}, workers=3, launcher=HERE)


def test_a_fleet_is_found_again_with_its_handle(bench: Bench) -> None:
    """Another machine reads the handle that was stored at the start."""
    begin(bench)
    with bench.database.transaction() as connection:
        (begun,) = fleets.of_study(connection, bench.study)
        fleets.keep(connection, begun, {"jobs": [17]}, 2)
        (fleet,) = fleets.of_study(connection, bench.study)
    assert (fleet.engine, fleet.crew, fleet.handle) == ("slurm", CREW, {"jobs": [17]})
    assert (fleet.workers, fleet.running, fleet.host, fleet.who) == (3, 2, "here", "ann@here")
    assert fleet.ended is None


def test_its_launcher_is_told_what_people_want(bench: Bench) -> None:
    """The launcher reads how many workers are wanted, and whether they are to stop."""
    number = begin(bench)
    with bench.database.transaction() as connection:
        fleets.want(connection, number, 5)
        fleets.ask_to_stop(connection, number, "now")
        fleets.ask_to_stop(connection, number, "stop")
        (fleet,) = fleets.of_study(connection, bench.study)
        told = fleets.keep(connection, fleet, {}, 3)
    assert told is not None
    assert (told.workers, told.asked) == (5, "now")


def test_a_fleet_that_was_taken_for_ended_works_again_if_it_runs(bench: Bench) -> None:
    """If its launcher was only cut off, it is listed again, and can be scaled and stopped."""
    number = begin(bench)
    with bench.database.transaction() as connection:
        (fleet,) = fleets.of_study(connection, bench.study)
        fleets.end(connection, number, "forgotten by ann@here")
        left = fleets.keep(connection, fleet, {}, 0)
        assert left is not None
        assert (left.ended is not None, left.reason) == (True, "forgotten by ann@here")
        fleets.keep(connection, fleet, {}, 2)
        (back,) = fleets.of_study(connection, bench.study)
    assert (back.running, back.ended, back.reason) == (2, None, "")


def test_a_fleet_that_cannot_be_asked_is_not_seen(bench: Bench) -> None:
    """Started workers are stored in spite of an error; the time unseen is the server's."""
    begin(bench)
    with bench.database.transaction() as connection:
        connection.execute(sa.update(t.fleet).values(seen=t.fleet.c.seen - timedelta(hours=1)))
        (fleet,) = fleets.of_study(connection, bench.study)
        assert 3600 <= fleet.unseen < 3700
        kept = fleets.keep(connection, fleet, {"jobs": [5]}, None)
        assert kept is not None
        assert (kept.seen, kept.running, kept.handle) == (fleet.seen, 0, {"jobs": [5]})
        seen = fleets.keep(connection, kept, kept.handle, 1)
    assert seen is not None
    assert seen.unseen < 100


def test_an_ended_fleet_is_listed_only_on_request(bench: Bench) -> None:
    """It keeps its first reason, and is deleted with its study."""
    number = begin(bench)
    with bench.database.transaction() as connection:
        fleets.end(connection, number, "five died early")
        fleets.end(connection, number, "")
        assert fleets.of_study(connection, bench.study) == []
        (fleet,) = fleets.of_study(connection, bench.study, ended=True)
        assert (fleet.reason, fleet.ended is not None) == ("five died early", True)
        studies.delete(connection, bench.study)
        assert fleets.find(connection, number) is None


def test_of_two_who_act_on_a_fleet_the_first_keeps_its_handle(bench: Bench) -> None:
    """The second reads the new handle instead: it has workers that the second does not know."""
    begin(bench)
    with bench.database.transaction() as connection:
        (read,) = fleets.of_study(connection, bench.study)
        fleets.keep(connection, read, {"jobs": [1, 2]}, 2)
        told = fleets.keep(connection, read, {"jobs": [1]}, 1)
    assert told is not None
    assert (told.handle, told.running) == ({"jobs": [1, 2]}, 1)
