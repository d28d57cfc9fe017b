"""Workers that are repeatedly ended before their first epoch, at one place."""

from dataclasses import replace

import pytest

from tests.conftest import QUICK
from tests.harness.processes import until
from tests.store.specs import Bench, make_spec
from tests.work.conftest import Station
from tuner.errors import UserError
from tuner.fleet.replacements import FRUITLESS, FRUITLESS_LIVES, why_hopeless
from tuner.store import fruitless
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.fruitless import Fruitless
from tuner.store.ledger import workers
from tuner.store.ledger.workers import Post
from tuner.store.spending import Used
from tuner.work.place import EnginePlace, Tenancy
from tuner.work.stopping import StopRequest
from tuner.work.worker import Orders, work

NAME = "small@1-0a1b/5_2"
PLACE = EnginePlace(NAME, lambda earlier: why_hopeless(earlier.workers, earlier.lives))


@pytest.fixture
def bench(database: Database) -> Bench:
    """A stored study."""
    return Bench.launch(database, make_spec())


def count(bench: Bench, place: str = NAME) -> Fruitless:
    """Return how many workers in a row were fruitless."""
    with bench.database.transaction() as connection:
        return fruitless.count(connection, bench.study.study_id, place)


def note(bench: Bench, *kinds: str, place: str = NAME) -> None:
    """Record the results of workers at a place, one after the other."""
    with bench.database.transaction() as connection:
        for kind in kinds:
            fruitless.note(connection, bench.study.study_id, place, 7, kind)


def test_only_those_in_a_row_at_the_same_place_count(bench: Bench) -> None:
    """A stored epoch resets the count; another place has its own count."""
    assert count(bench) == Fruitless(0, 0)
    note(bench, *[fruitless.TAKEN] * 3, fruitless.PROGRESS, fruitless.TAKEN, fruitless.LIVED)
    note(bench, fruitless.PROGRESS, place=NAME + "1")
    note(bench, fruitless.TAKEN, place="other%")
    assert count(bench) == Fruitless(2, 1)
    assert count(bench, NAME + "1") == Fruitless(0, 0)
    assert count(bench, "other") == Fruitless(0, 0)


@pytest.mark.parametrize(("taken", "lived"), [(FRUITLESS, 0), (0, FRUITLESS_LIVES)])
def test_a_place_where_all_was_in_vain_is_given_up(bench: Bench, taken: int, lived: int) -> None:
    """One fewer is not enough; if several share a place, the limit is multiplied."""
    note(bench, *[fruitless.TAKEN] * taken, *[fruitless.LIVED] * lived)
    found = count(bench)
    assert "make epochs shorter" in why_hopeless(found.workers, found.lives)
    assert not why_hopeless(found.workers - 1, max(0, found.lives - 1))
    assert not why_hopeless(found.workers, found.lives, workers=2)
    worker = bench.worker()
    with pytest.raises(UserError, match="single epoch"):
        Tenancy(bench.database, Post(bench.study.study_id, worker.worker_id), PLACE).begin()


@pytest.mark.parametrize(
    ("asked", "lifetime", "held", "kinds"),
    [
        (True, False, 3.0, [fruitless.TAKEN]),
        (True, True, 3.0, [fruitless.LIVED]),
        (True, True, 0.0, []),
        (False, False, 3.0, []),
    ],
)
def test_who_had_a_trial_and_was_sent_away_counts(
    bench: Bench, asked: bool, lifetime: bool, held: float, kinds: list[str]
) -> None:
    """A worker that had no trial, or left because the study ended, does not count."""
    tenancy = Tenancy(bench.database, Post(bench.study.study_id, 7), PLACE)
    stop = StopRequest()
    stop.count, stop.lifetime_over = int(asked), lifetime
    tenancy.end(stop, held)
    assert [row.kind for row in bench.rows(t.event) if row.worker_id == 7] == kinds


def test_a_shared_place_is_not_given_up_while_one_of_its_workers_trains(bench: Bench) -> None:
    """Others may be ended a hundred times; only after it has left does counting begin."""
    shared = replace(PLACE, shared=True)
    with bench.database.transaction() as connection:
        post = workers.join(connection, bench.study.study_id, workers.Worker("n1", 1, "cpu"))
    diligent = Tenancy(bench.database, post, shared)
    diligent.begin()
    diligent.progressed()
    note(bench, *[fruitless.TAKEN] * 5 * FRUITLESS, *[fruitless.LIVED] * FRUITLESS)
    assert count(bench).workers > FRUITLESS
    with bench.database.transaction() as connection:
        workers.renew(connection, post, (), QUICK, Used())
    assert count(bench) == Fruitless()
    with bench.database.transaction() as connection:
        workers.leave(connection, post, Used())
    note(bench, *[fruitless.TAKEN] * FRUITLESS)
    assert count(bench) == Fruitless(FRUITLESS)
    with pytest.raises(UserError, match="single epoch"):
        Tenancy(bench.database, post, shared).begin()


def _orders(station: Station, behaviour: str) -> Orders:
    return replace(station.orders("small", behaviour), place=PLACE)


def test_a_worker_that_is_sent_away_before_its_first_epoch_is_counted(station: Station) -> None:
    """Its trial waits in its trainer; the next worker there stores epochs, and resets the count."""
    bench = station.launch(make_spec(dimensions=()))
    stop = StopRequest()
    thread = station.on_thread(_orders(station, "silent"), stop)
    until(lambda: any(row.state == "held" for row in bench.rows(t.lease)), "it has a trial")
    stop.after(0.0)
    until(lambda: stop.lifetime_over, "its lifetime is over")
    stop.count += 1  # its trainer would not answer: do not wait for the epoch
    thread.join(30)
    assert not thread.is_alive()
    assert count(bench) == Fruitless(1, 1)
    assert work(station.settings, _orders(station, "quick"), StopRequest()).state == "complete"
    assert count(bench) == Fruitless(0, 0)


def test_a_worker_refuses_a_place_that_is_given_up(station: Station) -> None:
    """It claims no trial, and the study continues elsewhere."""
    bench = station.launch(make_spec(dimensions=(), epochs=1))
    note(bench, *[fruitless.TAKEN] * FRUITLESS)
    with pytest.raises(UserError, match="ask for a longer time limit"):
        work(station.settings, _orders(station, "quick"), StopRequest())
    assert not bench.rows(t.trial)
    assert [row.ended is not None for row in bench.rows(t.worker)] == [True]
    elsewhere = replace(_orders(station, "quick"), place=replace(PLACE, name="elsewhere"))
    assert work(station.settings, elsewhere, StopRequest()).state == "complete"
