"""Marks show what has changed in a study, and ignore other studies."""

from collections.abc import Callable

import sqlalchemy as sa

from tests.store.specs import Bench, claim_trial, finish, make_epoch, make_spec
from tuner.store import control, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.marks import read_marks


def test_each_mark_differs_when_its_part_changes(database: Database) -> None:
    """Claims and queues are work, epochs and output movement; ends and the study are settled."""
    bench, other = Bench.launch(database, make_spec()), Bench.launch(database, make_spec("other"))
    numbers = (bench.study.study_id, other.study.study_id)

    def differing(what: Callable[[], object]) -> set[str]:
        with database.snapshot() as connection:
            before = read_marks(connection, numbers)
        what()
        with database.snapshot() as connection:
            after = read_marks(connection, numbers)
        assert before[numbers[1]] == after[numbers[1]]
        old, new = before[numbers[0]], after[numbers[0]]
        return {name for name in vars(old) if getattr(old, name) != getattr(new, name)}

    assert differing(lambda: None) == set()
    worker = bench.worker()
    trials = []
    assert differing(lambda: trials.append(claim_trial(worker))) == {"working"}
    assert differing(lambda: worker.record(trials[0], [make_epoch(1)])) == {"moving"}
    assert differing(lambda: worker.record(trials[0], [make_epoch(2)], checkpoint=2)) == {"moving"}
    assert differing(lambda: worker.keep_output(trials[0], "said")) == {"moving"}
    assert "settled" in differing(lambda: worker.fail(trials[0], "not today"))
    assert "settled" in differing(lambda: finish(worker, claim_trial(worker)))
    assert differing(bench.worker) == {"working"}
    assert differing(lambda: control.tag(database, bench.study, ["good"])) == {"settled"}


def test_an_event_that_is_committed_after_later_ones_is_seen(bench: Bench) -> None:
    """Trials that end at the same time do not wait for each other."""
    number = bench.study.study_id

    def settled() -> object:
        with bench.database.snapshot() as connection:
            return read_marks(connection, [number])[number].settled

    ending = sa.insert(t.event).values(study_id=number, kind="complete", happened=sa.func.now())
    with bench.database.transaction() as slow:
        slow.execute(ending)
        with bench.database.transaction() as quick:
            quick.execute(ending)
        before = settled()
    assert settled() != before


def test_a_study_that_does_not_exist_has_no_mark(bench: Bench) -> None:
    """A deleted study is distinguished from an unchanged one."""
    number = bench.study.study_id
    with bench.database.transaction() as connection:
        assert set(read_marks(connection, [number, 999_999])) == {number}
        studies.delete(connection, bench.study)
        assert read_marks(connection, [number]) == {}
