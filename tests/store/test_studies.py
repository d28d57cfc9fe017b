"""Studies: launched once, extended, found, versioned, deleted completely."""

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, claim_trial, finish, limited, make_ranged, make_spec
from tuner.errors import StudyConflictError, UnknownStudyError
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import control, optuna_storage, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import claims
from tuner.store.ledger.leases import Answer, Ended
from tuner.store.ledger.transactions import Transaction
from tuner.store.optuna_storage import Binding
from tuner.store.studies import Launch, Study

SHARED = {"tuner.dataset", "tuner.label", "tuner.schema_version"}
"""Tables whose rows belong to no study: the data seen, which several studies share."""


def launch(database: Database, spec: Spec, *, new_version: bool = False) -> Launch:
    """Launch as a separate process would."""
    return studies.launch(database, Binding(database), spec, {"by": "me"}, new_version=new_version)


def test_a_new_study_is_created_in_both_schemas(database: Database) -> None:
    """Ours has the file, Optuna's has name, direction and question."""
    launched = launch(database, make_spec())
    assert (launched.what, launched.changes) == ("created", ())
    stored = launched.study
    assert (stored.title, stored.version, stored.state) == ("small", 1, "open")
    assert stored.spec == make_spec()
    assert stored.provenance == {"by": "me"}
    storage = Binding(database).storage
    assert storage.get_study_id_from_name("small") == stored.study_id
    assert storage.get_study_user_attrs(stored.study_id)["question"] == "Which?"
    assert [one.name for one in storage.get_study_directions(stored.study_id)] == ["MINIMIZE"]


def test_the_same_file_finds_its_study(database: Database) -> None:
    """A second launch of the same file creates nothing."""
    first = launch(database, make_spec())
    again = launch(database, make_spec())
    assert again.what == "found"
    assert again.study == first.study


def test_more_trials_extend(database: Database) -> None:
    """More trials extend a random study, and open a complete one again."""
    launch(database, make_ranged(trials=4, sampler="random"))
    with database.transaction() as connection:
        connection.execute(sa.update(t.study).values(state="complete"))
    extended = launch(database, make_ranged(trials=9, sampler="random"))
    assert extended.what == "extended"
    assert extended.study.spec.total_trials == 9
    assert extended.study.state == "open"
    assert extended.changes == ("budget.trials: stored 4, given 9",)


def test_more_seeds_extend_a_grid(database: Database) -> None:
    """A grid grows by seeds."""
    launch(database, make_spec(seeds=2))
    assert launch(database, make_spec(seeds=3)).study.spec.total_trials == 9


@pytest.mark.parametrize(
    "given",
    [make_spec(epochs=9), make_spec(seeds=1, seed=7), make_spec(pruner="median"), make_spec()],
    ids=["longer", "another seed", "a pruner", "fewer seeds"],
)
def test_other_changes_are_refused_with_what_differs(database: Database, given: Spec) -> None:
    """A file with another question is refused, with the way out."""
    launch(database, make_spec(seeds=2))
    with pytest.raises(StudyConflictError, match=r"small exists(.|\n)*stored(.|\n)*--new-version"):
        launch(database, given)


def test_a_new_version_stands_beside_the_old(database: Database) -> None:
    """The bare name means the newest; versions are found by number."""
    first = launch(database, make_spec()).study
    assert first.title == "small"
    second = launch(database, make_spec(epochs=9), new_version=True)
    assert (second.what, second.study.title) == ("created", "small@2")
    with database.transaction() as connection:
        assert studies.find(connection, StudyRef("small")) == second.study
        assert studies.find(connection, StudyRef("small", 1)) == first
        assert studies.find(connection, StudyRef("small", 1)).title == "small@1"
        assert [one.title for one in studies.listing(connection)] == ["small@1", "small@2"]
    assert launch(database, make_spec(epochs=9)).what == "found"


def test_an_unchanged_file_makes_no_new_version(database: Database) -> None:
    """--new-version with the same question finds its study."""
    launch(database, make_spec())
    assert launch(database, make_spec(), new_version=True).what == "found"


def test_launching_a_stopped_study_opens_it(database: Database) -> None:
    """A stopped study continues when launched again; a complete one stays complete."""
    first = launch(database, make_spec()).study
    control.stop(database, first)
    assert launch(database, make_spec()).study.state == "open"


@pytest.mark.parametrize(("wanted", "hint"), [("smal", "small"), ("x", "tuner studies")])
def test_an_unknown_study_is_told_with_a_near_name(
    database: Database, wanted: str, hint: str
) -> None:
    """An unknown name gets a hint."""
    launch(database, make_spec())
    with database.transaction() as connection:
        with pytest.raises(UnknownStudyError, match=hint):
            studies.find(connection, StudyRef(wanted))
        with pytest.raises(UnknownStudyError):
            studies.find(connection, StudyRef("small", 7))


def test_launches_at_once_make_one_study(database: Database) -> None:
    """Of six simultaneous launches one creates the study, and five find it."""
    whats, barrier = [], threading.Barrier(6)

    def one() -> None:
        with Database(database.address) as own:
            barrier.wait()
            whats.append(launch(own, make_spec()).what)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(whats) == ["created", *["found"] * 5]
    with database.transaction() as connection:
        assert len(studies.listing(connection)) == 1


def test_a_study_that_optuna_has_of_others_is_refused(database: Database) -> None:
    """The name of a study created by Optuna alone is refused; that study is left alone."""
    storage = Binding(database).storage
    theirs = optuna_storage.create_study(storage, "small", "val_acc", "maximize")
    with pytest.raises(StudyConflictError, match="tuner did not create"):
        launch(database, make_spec())
    with database.transaction() as connection:
        assert studies.listing(connection) == []
    assert [one.name for one in storage.get_study_directions(theirs)] == ["MAXIMIZE"]


def rows_by_table(database: Database) -> dict[str, int]:
    """Count the rows of every table of both schemas."""
    with database.transaction() as connection:
        tables = connection.execute(
            sa.text(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_schema IN ('tuner', 'public') AND table_type = 'BASE TABLE'"
            )
        ).all()
        return {
            f"{schema}.{name}": connection.execute(
                sa.text(f"SELECT count(*) FROM {schema}.{name}")
            ).scalar_one()
            for schema, name in tables
        }


def test_deleting_leaves_no_row(database: Database) -> None:
    """Every row of the study is deleted in both schemas; other studies keep theirs."""
    empty = rows_by_table(database)
    assert len(empty) > 20
    spec = limited(make_spec(pruner="threshold", pruner_options={"upper": 9.0}), attempts=1)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    held = claim_trial(worker)
    worker.keep_output(held, "printed")
    worker.fail(held, "broken")
    claim_trial(worker)
    full = rows_by_table(database)
    for name in ("trial", "lease", "epoch", "decision", "outcome", "prediction", "output"):
        assert full[f"tuner.{name}"] > 0
    with database.transaction() as connection:
        studies.delete(connection, bench.study)
    left = rows_by_table(database)
    assert {n: c for n, c in left.items() if n not in SHARED} == {
        n: c for n, c in empty.items() if n not in SHARED
    }


def test_deleting_one_study_leaves_the_others(database: Database) -> None:
    """Only the study named is deleted."""
    keep = Bench.launch(database, make_spec("keep"))
    worker = keep.worker()
    finish(worker, claim_trial(worker))
    before = keep.contents()
    gone = Bench.launch(database, make_spec("gone"))
    claim_trial(gone.worker())
    with database.transaction() as connection:
        studies.delete(connection, gone.study)
    assert keep.contents() == before


def extend_meanwhile(bench: Bench, given: Spec) -> threading.Thread:
    """Extend the study from another connection, as another process would."""

    def extend() -> None:
        with Database(bench.database.address) as own:
            launch(own, given)

    thread = threading.Thread(target=extend)
    thread.start()
    return thread


def test_an_extension_is_not_lost_to_a_claim_that_ends_the_study(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extending while a claim finds the old budget spent leaves the study open for the rest."""
    bench = Bench.launch(database, make_ranged("small", trials=1, sampler="random"))
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    original, threads = claims._complete_study, []

    def complete(transaction: Transaction) -> Ended:
        more = make_ranged("small", trials=3, sampler="random")
        threads.append(extend_meanwhile(bench, more))
        threads[0].join(1.0)
        return original(transaction)

    monkeypatch.setattr(claims, "_complete_study", complete)
    answer: Answer = worker.claim(None, adopt=True)
    assert isinstance(answer, Ended)
    threads[0].join(60)
    assert bench.state() == "open"
    assert claim_trial(bench.worker()).number == 1


def test_deleting_under_working_workers_disturbs_nobody(database: Database) -> None:
    """Workers whose study is deleted while they work exit in order."""
    bench = Bench.launch(database, make_spec(seeds=30))
    errors: list[BaseException] = []
    started = threading.Barrier(4)

    def train() -> None:
        from tuner.store.ledger.leases import Claimed, LeaseLostError

        with Database(database.address) as own:
            worker = bench.worker(database=own)
            started.wait()
            try:
                while isinstance(answer := worker.claim(None, adopt=False), Claimed):
                    finish(worker, answer.lease)
            except LeaseLostError:
                answer = worker.claim(None, adopt=False)
                assert isinstance(answer, Ended)
            except BaseException as error:  # noqa: BLE001  # reported by the main thread
                errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(bench.rows(t.event)) < 12:
        pass
    with Database(database.address) as other, other.transaction() as connection:
        studies.delete(connection, bench.study)
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_a_stored_study_needs_no_file(database: Database) -> None:
    """The study read from the database equals the launched one, folder included."""
    spec = replace(make_ranged(sampler="tpe"), folder="/studies", overrides=("lr=1",))
    launched = launch(database, spec).study
    with database.transaction() as connection:
        found: Study = studies.find(connection, StudyRef("ranged"))
    assert found == launched
    assert found.spec == spec


def test_a_study_that_failed_before_its_first_epoch_can_be_mended(database: Database) -> None:
    """Its file may change in any way: there is no epoch to mix with another study's."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "loss = 'bce' separates two classes")
    mended = launch(database, limited(make_spec(epochs=9), attempts=1))
    assert mended.what == "replaced"
    assert mended.changes == ("fixed.epochs: stored 3, given 9",)
    assert (mended.study.full_name, mended.study.state) == ("small@1", "open")
    again = Bench.launch(database, limited(make_spec(epochs=9), attempts=1))
    worker = again.worker()
    assert claim_trial(worker).number == 0


def test_a_study_at_work_or_with_an_epoch_is_not_replaced(database: Database) -> None:
    """A held trial may be in its first epoch, and a stored epoch is a result."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "one thing")
    held = claim_trial(worker)
    changed = limited(make_spec(epochs=9), attempts=1)
    with pytest.raises(StudyConflictError, match=r"fixed\.epochs"):
        launch(database, changed)
    finish(worker, held)
    assert bench.rows(t.epoch)
    with pytest.raises(StudyConflictError, match=r"fixed\.epochs"):
        launch(database, changed)
