"""The order of studies: priorities, users' shares, and when a worker changes its study."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.spec.study import Replicates, Spec
from tuner.store import studies, turns
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Wait
from tuner.store.ledger.workers import Post
from tuner.store.optuna_storage import Binding
from tuner.store.spending import Used
from tuner.store.studies import Study
from tuner.store.turns import IN_VAIN_SECONDS, MARGIN_SECONDS, QueuedStudy

DAY = datetime(2026, 11, 26, tzinfo=UTC)


def turn(
    number: int, *, priority: int = 0, owner: str = "ann", used: float = 0.0, has_work: bool = True
) -> QueuedStudy:
    """Make a queued study; a larger number was launched later."""
    created = DAY + timedelta(minutes=number)
    study = Study(number, f"s{number}", 1, make_spec(), "", "open", "", created, {})
    return QueuedStudy(study, priority, owner, used, has_work, workers=0)


def test_priority_comes_first_then_who_used_least_then_the_oldest() -> None:
    """Each rule decides only on ties of the previous one."""
    queue = [
        turn(1, owner="ben", used=50.0),
        turn(2, owner="ann", used=10.0),
        turn(3, owner="ann", used=10.0),
        turn(4, owner="ben", used=50.0, priority=2),
    ]
    assert [one.study.study_id for one in turns.in_order(queue)] == [4, 2, 3, 1]


def test_a_worker_leaves_for_a_higher_priority_at_once() -> None:
    """Also for a study of the same user."""
    assert turns.is_relieved(turn(1), [turn(2, priority=1)])
    assert not turns.is_relieved(turn(1, priority=1), [turn(2)])


@pytest.mark.parametrize(("ahead", "leaves"), [(0.0, False), (-1.0, False), (1.0, True)])
def test_a_worker_leaves_for_another_person_who_is_clearly_behind(
    ahead: float, leaves: bool
) -> None:
    """A difference of a few seconds does not justify starting another trainer."""
    mine = turn(1, used=100.0 + MARGIN_SECONDS + ahead)
    assert turns.is_relieved(mine, [turn(2, owner="ben", used=100.0)]) is leaves


def test_nobody_leaves_for_a_study_without_trials_to_train_or_for_the_same_person() -> None:
    """A study without open trials needs no worker; a user's own studies run one after another."""
    mine = turn(1, used=1e6)
    assert not turns.is_relieved(mine, [turn(2, priority=9, has_work=False)])
    assert not turns.is_relieved(mine, [turn(2, used=1e6)])


def test_nobody_leaves_for_a_study_with_idle_workers() -> None:
    """Idle workers take whatever it assigns next."""
    urgent = turn(2, priority=9)
    assert turns.is_relieved(turn(1), [urgent])
    assert not turns.is_relieved(turn(1), [replace(urgent, idle_workers=1)])


def launch(database: Database, name: str, who: str, spec: Spec | None = None) -> Bench:
    """Store a user's study: of one trial, or the given one."""
    binding = Binding(database)
    spec = spec or make_spec(name, dimensions=())
    study = studies.launch(database, binding, spec, {"who": who}, new_version=False).study
    return Bench(database, binding, study)


def read(database: Database) -> dict[str, QueuedStudy]:
    """Return the queue by the studies' names, in order."""
    with database.transaction() as connection:
        return {one.study.name: one for one in turns.read(connection)}


def test_seconds_are_a_persons_on_all_machines(database: Database) -> None:
    """A user whose studies trained lately comes later, whichever study and machine it was."""
    first = launch(database, "first", "ann@one")
    launch(database, "second", "ann@two")
    launch(database, "third", "ben@one")
    assert list(read(database)) == ["first", "second", "third"]
    worker = first.worker()
    with database.transaction() as connection:
        connection.execute(sa.update(t.worker).values(active_seconds=100.0))
    queue = read(database)
    assert list(queue) == ["third", "first", "second"]
    assert [one.used_seconds for one in queue.values()] == [0.0, 100.0, 100.0]
    assert [one.workers for one in queue.values()] == [0, 1, 0]
    assert worker is not None


def test_a_study_whose_trials_are_taken_has_no_work(database: Database) -> None:
    """While its one trial is held there is no work; once it is given back, there is."""
    bench = launch(database, "only", "ann@one")
    worker = bench.worker()
    lease = claim_trial(worker)
    assert not read(database)["only"].has_work
    worker.give_back(lease, "a test")
    assert read(database)["only"].has_work
    finish(worker, claim_trial(worker))
    worker.claim(None, adopt=True)
    assert read(database) == {}


def age(bench: Bench, table: sa.Table, column: str, seconds: float) -> None:
    """Move the times in a column back by this much."""
    earlier = table.c[column] - timedelta(seconds=seconds)
    with bench.database.transaction() as connection:
        connection.execute(sa.update(table).values({column: earlier}))


def test_a_worker_without_a_trial_is_idle_once_it_had_time_to_ask(database: Database) -> None:
    """A worker that just joined is about to claim; one with a trial is busy."""
    bench = launch(database, "race", "ann@one", make_spec("race", seeds=2))
    busy = bench.worker()
    bench.worker()
    claim_trial(busy)
    assert read(database)["race"].idle_workers == 0
    age(bench, t.worker, "started", 60.0)
    assert (read(database)["race"].workers, read(database)["race"].idle_workers) == (2, 1)


def test_a_study_that_hands_out_nothing_has_no_work_until_something_happens(
    database: Database,
) -> None:
    """While a race waits for its look, a worker's vain visit keeps others away for a while."""
    replicates = Replicates(3, "top", 2)
    spec = make_spec("race", trials=replicates.total(2), sampler="random")
    spec = replace(spec, replicates=replicates)
    bench = launch(database, "race", "ann@one", spec)
    first, second, visitor = bench.worker(), bench.worker(), bench.worker()
    leases = [claim_trial(first), claim_trial(second)]
    assert isinstance(visitor.claim(None, adopt=True), Wait)
    assert read(database)["race"].has_work
    asked = {"claim_seconds": 0.01}
    with database.transaction() as connection:
        workers.leave(connection, Post(bench.study.study_id, visitor.worker_id), Used(), asked)
    assert not read(database)["race"].has_work
    first.record(leases[0], [], 1)
    assert not read(database)["race"].has_work, "a checkpoint makes no trial available"
    finish(first, leases[0])
    assert read(database)["race"].has_work
    late, silent = bench.worker(), bench.worker()
    with database.transaction() as connection:
        workers.leave(connection, Post(bench.study.study_id, silent.worker_id), Used())
    assert read(database)["race"].has_work, "one that never asked says nothing"
    with database.transaction() as connection:
        workers.leave(connection, Post(bench.study.study_id, late.worker_id), Used(), asked)
    assert not read(database)["race"].has_work
    for table, column in ((t.worker, "ended"), (t.event, "happened")):
        age(bench, table, column, IN_VAIN_SECONDS + 1)
    assert read(database)["race"].has_work


def test_a_priority_is_kept_and_told(database: Database) -> None:
    """The study moves to the front, and its history has who did it."""
    launch(database, "first", "ann@one")
    second = launch(database, "second", "ben@one")
    with database.transaction() as connection:
        turns.set_priority(connection, second.study, 5, "ben@one")
    assert list(read(database)) == ["second", "first"]
    (event,) = [row for row in second.rows(t.event) if row.kind == "priority"]
    assert (event.text, event.who) == ("5", "ben@one")


def test_archived_and_paused_studies_have_no_turn(database: Database) -> None:
    """They have no turn."""
    bench = launch(database, "first", "ann@one")
    with database.transaction() as connection:
        studies.set_state(connection, bench.study, "paused", "a test")
    assert read(database) == {}
