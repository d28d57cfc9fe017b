"""A user's actions on a study: stop it, and retry its failed trials."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.store.specs import (
    SETUP,
    Bench,
    claim_trial,
    finish,
    limited,
    make_epoch,
    make_spec,
    optuna_trials,
)
from tuner.errors import UnknownStudyError, UserError
from tuner.settings import Settings
from tuner.spec.space import Choice
from tuner.store import control, histories, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended, Recorded
from tuner.store.studies import Study
from tuner.work import removal

NO_CHECKPOINTS = Settings(home=Path("/nowhere"), checkpoints="off")


@pytest.fixture
def fragile(database: Database) -> Bench:
    """Store a study in which one failure is final, with trials 0 and 2 failed, 1 complete."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "one thing")
    finish(worker, claim_trial(worker))
    worker.fail(claim_trial(worker), "another")
    assert isinstance(worker.claim(None, adopt=True), Ended)
    return bench


def test_retry_opens_all_failed_trials(fragile: Bench) -> None:
    """Failed trials resume under their own numbers, and the study ends with all complete."""
    assert control.retry(fragile.database, fragile.binding, fragile.study, []) == [0, 2]
    assert fragile.state() == "open"
    worker = fragile.worker()
    for number in (0, 2):
        held = claim_trial(worker)
        assert (held.number, held.token) == (number, 2)
        finish(worker, held)
    assert isinstance(worker.claim(None, adopt=True), Ended)
    assert [one.state for one in optuna_trials(worker)] == [TrialState.COMPLETE] * 3
    assert [row.state for row in fragile.rows(t.outcome)] == ["COMPLETE"] * 3


def test_retry_of_one_leaves_the_others(fragile: Bench) -> None:
    """Only the named trials are retried."""
    assert control.retry(fragile.database, fragile.binding, fragile.study, [2]) == [2]
    assert claim_trial(fragile.worker()).number == 2
    assert sorted(row.state for row in fragile.rows(t.outcome)) == ["COMPLETE", "FAILED"]


def test_retry_of_what_did_not_fail_is_refused(fragile: Bench) -> None:
    """Numbers that did not fail are named, with those that did; nothing is retried."""
    before = fragile.contents()
    with pytest.raises(UserError, match=r"1, 7\. Failed trials of small: 0, 2"):
        control.retry(fragile.database, fragile.binding, fragile.study, [2, 1, 7])
    assert fragile.contents() == before


def test_retry_without_failures_keeps_a_complete_study_complete(bench: Bench) -> None:
    """Nothing is done, even if the study was still open when it was read.

    An open study without failures stays open, too.
    """
    opened = bench.contents()
    assert control.retry(bench.database, bench.binding, bench.study, []) is None
    assert bench.contents() == opened
    worker = bench.worker()
    for _ in range(3):
        finish(worker, claim_trial(worker))
    assert isinstance(worker.claim(None, adopt=True), Ended)
    ended = bench.contents()
    assert control.retry(bench.database, bench.binding, bench.study, []) is None
    assert bench.state() == "complete"
    assert bench.contents() == ended


def test_retry_of_a_paused_study_without_failures_opens_it(bench: Bench) -> None:
    """The history has who did it, and the study's former state."""
    control.pause(bench.database, bench.study, "maria")
    assert control.retry(bench.database, bench.binding, bench.study, [], "paul") == []
    assert bench.state() == "open"
    assert who_did(bench.database, bench.study)[-1] == ("opened", "it was paused", "paul")


def test_an_action_never_meets_another_study_of_the_same_name(bench: Bench) -> None:
    """If a study is deleted and another takes its name, an action on the first has no effect."""
    seen = bench.study
    with bench.database.transaction() as connection:
        studies.delete(connection, seen)
    other = Bench.launch(bench.database, make_spec())
    assert other.study.ref == seen.ref
    before = bench.contents()
    database = bench.database
    acts: tuple[Callable[[], object], ...] = (
        lambda: control.stop(database, seen),
        lambda: control.pause(database, seen),
        lambda: control.go_on(database, seen),
        lambda: control.extend(database, seen, seeds=2),
        lambda: control.retry(database, bench.binding, seen, []),
        lambda: control.tag(database, seen, ["a"]),
        lambda: control.note(database, seen, "text"),
        lambda: control.archive(database, seen, archived=True),
        lambda: removal.delete(NO_CHECKPOINTS, database, seen),
    )
    for act in acts:
        with pytest.raises(UnknownStudyError, match="was deleted in the meantime"):
            act()
    assert bench.contents() == before


def test_a_worker_that_saw_the_failure_sees_the_retry(fragile: Bench) -> None:
    """A worker that has ended trials in memory is not misled by a retry."""
    worker = fragile.worker()
    assert optuna_trials(worker)[0].state == TrialState.FAIL
    control.retry(fragile.database, fragile.binding, fragile.study, [0])
    finish(worker, claim_trial(worker))
    assert optuna_trials(worker)[0].state == TrialState.COMPLETE


@pytest.mark.parametrize("seen", ["trials", "record"])
def test_peers_that_saw_the_failure_see_the_retry(database: Database, seen: str) -> None:
    """A worker that had the failed trial in memory counts it again once it is complete.

    `trials` is for samplers, `record` asks the pruner.
    """
    options = {"startup": 1, "warmup": 0, "interval": 1}
    spec = limited(make_spec(pruner="median", pruner_options=options), attempts=1)
    bench = Bench.launch(database, spec)
    peer, other = bench.worker(), bench.worker()
    other.fail(claim_trial(other), "not today")
    held = claim_trial(peer)
    assert [one.state for one in optuna_trials(peer)] == [TrialState.FAIL, TrialState.RUNNING]
    assert peer.record(held, [make_epoch(1, 0.9)]) == Recorded()
    control.retry(bench.database, bench.binding, bench.study, [0])
    finish(other, claim_trial(other), 0.1, 0.1, 0.1)
    if seen == "trials":
        assert optuna_trials(peer)[0].state == TrialState.COMPLETE
    else:
        assert peer.record(held, [make_epoch(2, 0.9)]) == Recorded(2)


def test_stopping_is_told_in_the_history(bench: Bench) -> None:
    """The state and the reason are in the history."""
    control.stop(bench.database, bench.study)
    assert bench.state() == "stopped"
    with bench.database.transaction() as connection:
        told = histories.events(connection, bench.study, None)
    assert [(one.kind, one.text) for one in told][-1] == ("stopped", "Stopped by `tuner stop`.")


def test_a_trial_that_diverged_is_not_told_as_pruned(bench: Bench) -> None:
    """The history says that it diverged, and where; Optuna's state for it is pruned."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1), make_epoch(2, math.nan)])
    worker.prune(held, SETUP, "diverged at epoch 2")
    held = claim_trial(worker)
    worker.record(held, [make_epoch(1)])
    worker.prune(held, SETUP, "median at epoch 1")
    with bench.database.transaction() as connection:
        told = [(one.kind, one.text) for one in histories.events(connection, bench.study, None)]
    assert ("diverged", "at epoch 2") in told
    assert [one for one in told if one[0] == "pruned"] == [("pruned", "median at epoch 1")]


def test_outputs_and_events_are_read_by_trial(fragile: Bench) -> None:
    """The history of one trial has only its own lines, with numbered attempts."""
    control.retry(fragile.database, fragile.binding, fragile.study, [])
    worker = fragile.worker()
    held = claim_trial(worker)
    worker.keep_output(held, "second try")
    with fragile.database.transaction() as connection:
        study = fragile.study
        (output,) = histories.outputs(connection, study, 0)
        assert (output.number, output.attempt, output.text) == (0, 2, "second try")
        assert histories.outputs(connection, study, 1) == []
        assert histories.outputs(connection, study, None) == [output]
        kinds = [one.kind for one in histories.events(connection, study, 0)]
        assert histories.has_trial(connection, study, 2)
        assert not histories.has_trial(connection, study, 3)
    assert kinds == ["created", "attempt failed", "failed", "reopened", "adopted"]


def who_did(database: Database, study: Study) -> list[tuple[str, str, str]]:
    """Return the history of users' actions."""
    with database.transaction() as connection:
        happened = histories.events(connection, study, None)
    return [(one.kind, one.text, one.who) for one in happened if one.who]


def test_the_history_says_who(database: Database) -> None:
    """Each action leaves a line with the user's name; one without effect leaves none."""
    bench = Bench.launch(database, make_spec())
    study = bench.study
    control.pause(database, study, "maria")
    control.go_on(database, study, "paul")
    control.stop(database, study, "maria")
    longer = control.extend(database, study, seeds=2, who="paul")
    assert (longer.state, longer.spec.total_trials) == ("open", 6)
    for _ in range(2):
        control.tag(database, study, ["paper", "a"], who="maria")
        control.archive(database, study, archived=True, who="maria")
        control.note(database, study, "  Look again.\r\nSoon. ", "maria")
    assert who_did(database, study) == [
        ("paused", "Paused by maria.", "maria"),
        ("opened", "it was paused", "paul"),
        ("stopped", "Stopped by maria.", "maria"),
        ("extended", "to 6 trials", "paul"),
        ("tagged", "a, paper", "maria"),
        ("archived", "", "maria"),
        ("noted", "", "maria"),
    ]
    with database.transaction() as connection:
        now = studies.find(connection, study.ref)
    assert (now.tags, now.note) == (("a", "paper"), "Look again.\nSoon.")
    assert now.archived is not None


def test_a_retry_says_who(database: Database) -> None:
    """Each retried trial has a line with the user's name."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "not today")
    control.retry(database, bench.binding, bench.study, [], "maria")
    assert [who for _, _, who in who_did(database, bench.study)] == ["maria"]


def test_a_paused_study_begins_no_trial_and_goes_on(database: Database) -> None:
    """A worker finishes its trial, and gets no other until the study is resumed."""
    bench = Bench.launch(database, make_spec())
    worker = bench.worker()
    lease = claim_trial(worker)
    control.pause(database, bench.study, "maria")
    finish(worker, lease)
    ended = worker.claim(None, adopt=True)
    assert isinstance(ended, Ended)
    assert (ended.state, ended.reason) == ("paused", "Paused by maria.")
    control.go_on(database, bench.study, "maria")
    claim_trial(bench.worker())


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({}, "Specify"),
        ({"seeds": 2}, "already"),
        ({"seeds": 1}, "reduce"),
        ({"seeds": 0}, "between 1 and 10,000"),
        ({"trials": 5}, "divided evenly"),
        ({"trials": 8}, "more than the grid has"),
    ],
)
def test_what_does_not_extend_a_study_is_told(
    database: Database, numbers: dict[str, int], says: str
) -> None:
    """Fewer, equal, missing or invalid numbers are refused; nothing is changed."""
    bench = Bench.launch(database, make_spec(seeds=2))
    before = bench.contents()
    with pytest.raises(UserError, match=says):
        control.extend(
            database, bench.study, trials=numbers.get("trials"), seeds=numbers.get("seeds")
        )
    assert bench.contents() == before


def test_a_complete_study_is_neither_stopped_nor_paused_but_extended(database: Database) -> None:
    """It stays complete; more seeds open it again."""
    bench = Bench.launch(database, make_spec(dimensions=(Choice("lr", (1e-3,)),)))
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    assert isinstance(worker.claim(None, adopt=True), Ended)
    for act in (control.stop, control.pause, control.go_on):
        with pytest.raises(UserError, match="is complete"):
            act(database, bench.study, "maria")
    assert control.extend(database, bench.study, seeds=3).state == "open"


def test_odd_tags_and_endless_notes_are_refused(database: Database) -> None:
    """A tag that would break a list of words, or a note that would fill a page, is refused."""
    bench = Bench.launch(database, make_spec())
    for word in ("", "a b", "a,b", "<b>", "x" * 41):
        with pytest.raises(UserError, match="cannot be a tag"):
            control.tag(database, bench.study, [word])
    with pytest.raises(UserError, match="at most 20 tags"):
        control.tag(database, bench.study, [f"t{n}" for n in range(21)])
    with pytest.raises(UserError, match="at most"):
        control.note(database, bench.study, "a" * 20_001)
