"""Looks of a race in the database: decided once, by the first worker, and read by all."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa
from tenacity.stop import stop_after_attempt

from tests.store.specs import Bench, finish, make_spec
from tests.store.test_ledger import cut_at_commit
from tuner.spec.study import Replicates, Spec
from tuner.store import control, races, studies
from tuner.store import tables as t
from tuner.store.database import Database, patiently
from tuner.store.ledger.leases import Claimed, Ended, NeedsLook, Wait
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.looks import Decided, Look


def raced(seeds: int = 8, top: int = 3) -> Spec:
    """Build a study of three rates that all race."""
    return replace(make_spec(), replicates=Replicates(seeds, "top", top))


def last_drops_out(at: Look) -> Decided:
    """Drop the last contender at the second look, and no other."""
    return Decided(at, at.racing[-1:] if at.number == 2 else (), "", {"level": at.level})


def race_on(worker: Ledger) -> int:
    """Claim, train and decide until the study ends; return how many looks this worker stored."""
    stored = 0
    while not isinstance(answer := worker.claim(None, adopt=False), Ended):
        if isinstance(answer, NeedsLook):
            stored += worker.decide(last_drops_out(answer.look))
        elif isinstance(answer, Claimed):
            finish(worker, answer.lease, 0.5 + answer.lease.configuration / 10)
    return stored


def until_look(worker: Ledger) -> Look:
    """Train until a look is due."""
    while not isinstance(answer := worker.claim(None, adopt=False), NeedsLook):
        assert isinstance(answer, Claimed), answer
        finish(worker, answer.lease, 0.5 + answer.lease.configuration / 10)
    return answer.look


def cells(bench: Bench) -> set[tuple[int, int]]:
    """Return every (configuration, seed) that was created."""
    return {(row.configuration, row.seed) for row in bench.rows(t.trial)}


def test_many_workers_decide_each_look_once_and_train_what_one_would(database: Database) -> None:
    """Four workers on four connections: the same trials, each look once, never over the budget."""
    alone = Bench.launch(database, replace(raced(), name="alone"))
    race_on(alone.worker())
    expected = cells(alone)
    bench = Bench.launch(database, raced())
    databases = [Database(database.address) for _ in range(4)]
    crew = [bench.worker(database=one) for one in databases]
    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(race_on, crew))
    for one in databases:
        one.close()
    mine = [row for row in bench.rows(t.look) if row.study_id == bench.study.study_id]
    assert sum(stored) == len(mine), "each look was stored by one call"
    assert {row.number for row in mine} == {*range(1, len(mine) + 1)}
    found = {
        (row.configuration, row.seed)
        for row in bench.rows(t.trial)
        if row.study_id == bench.study.study_id
    }
    assert found == expected
    assert len(found) <= raced().total_trials
    assert {seed for configuration, seed in found if configuration == 2} == {0, 1, 2, 3}
    assert max(seed for _, seed in found) > 7, "the freed trials went to those who remained"
    assert bench.state() == "complete"


def test_the_first_decision_stands(database: Database) -> None:
    """A peer with another decision on the same look stores nothing, and both use the first."""
    bench = Bench.launch(database, raced())
    first, second = bench.worker(), bench.worker()
    due = until_look(first)
    assert second.claim(None, adopt=False) == NeedsLook(due), "all workers see the same look"
    assert first.decide(Decided(due, (2,)))
    assert not second.decide(Decided(due, (0, 1)))
    (row,) = bench.rows(t.look)
    assert row.dropped == [2]
    told = [one.text for one in bench.rows(t.event) if one.kind == "looked"]
    assert told == ["after seed 2: eliminated configuration 2; 2 contenders left"]
    answer = second.claim(None, adopt=False)
    assert isinstance(answer, Claimed)
    assert (answer.lease.configuration, answer.lease.seed) == (0, 3)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_decision_cut_at_its_commit_is_stored_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """A decision whose answer was lost is found stored, or made again; never twice."""
    bench = Bench.launch(database, raced())
    worker = bench.worker()
    due = until_look(worker)
    cuts = cut_at_commit(monkeypatch, worker, after=after)
    again = patiently(
        lambda: worker.decide(Decided(due, (2,))),
        stop=stop_after_attempt(5),
        before_sleep=lambda _: None,
    )
    assert cuts
    assert again is not after
    assert [row.dropped for row in bench.rows(t.look)] == [[2]]
    assert isinstance(worker.claim(None, adopt=False), Claimed)


def test_a_decision_over_what_has_changed_is_not_stored(database: Database) -> None:
    """With another extent or a stopped study the look is not due any more."""
    bench = Bench.launch(database, raced())
    worker = bench.worker()
    due = until_look(worker)
    assert not worker.decide(Decided(replace(due, room=99), (2,))), "another extent"
    control.stop(database, bench.study)
    assert not worker.decide(Decided(due, (2,)))
    assert bench.rows(t.look) == []


def test_a_trial_retried_before_its_look_is_waited_for(database: Database) -> None:
    """A failed pair retried in time counts: the look is due when it has ended."""
    spec = replace(raced(), limits=replace(raced().limits, attempts=1))
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    for place in range(9):
        answer = worker.claim(None, adopt=False)
        assert isinstance(answer, Claimed)
        if place == 8:
            worker.fail(answer.lease, "a bad day")
        else:
            finish(worker, answer.lease, 0.5 + answer.lease.configuration / 10)
    answer = worker.claim(None, adopt=False)
    assert isinstance(answer, NeedsLook)
    assert control.retry(database, bench.binding, bench.study, ()) == [8]
    assert not worker.decide(Decided(answer.look, ()))
    again = worker.claim(None, adopt=False)
    assert isinstance(again, Claimed)
    assert isinstance(bench.worker().claim(None, adopt=False), Wait), "one has still to end"
    finish(worker, again.lease)
    assert worker.claim(None, adopt=False) == answer


def test_an_extension_keeps_the_looks_and_goes_on(database: Database) -> None:
    """More seeds: decisions stay, dropped contenders stay out, the others race on."""
    bench = Bench.launch(database, raced())
    race_on(bench.worker())
    before = bench.rows(t.look)
    longer = studies.launch(database, bench.binding, raced(seeds=14), {}, new_version=False)
    assert (longer.what, longer.study.state) == ("extended", "open")
    race_on(bench.worker())
    after = bench.rows(t.look)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert all(2 not in row.racing for row in after[2:])
    assert {seed for configuration, seed in cells(bench) if configuration == 2} == {0, 1, 2, 3}
    with database.transaction() as connection:
        decided = races.read_decisions(connection, bench.study.study_id)
    assert sum(one.look.error for one in decided) < 0.05
    assert bench.state() == "complete"


def test_deleting_a_study_deletes_its_looks(database: Database) -> None:
    """Nothing of the race is left."""
    bench = Bench.launch(database, raced())
    race_on(bench.worker())
    with database.transaction() as connection:
        studies.delete(connection, bench.study)
        assert connection.execute(sa.select(t.look)).all() == []
