"""The supervisor and misbehaving trainers: they cost an attempt, never the worker."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.harness.processes import until
from tests.store.specs import claim_trial, finish, limited, make_spec, optuna_trials
from tests.work.conftest import Station
from tuner.errors import MachineError
from tuner.settings import Timing
from tuner.store import database as stored
from tuner.store import tables as t
from tuner.store.ledger import endings
from tuner.work.stopping import StopRequest
from tuner.work.supervisor import ASKING_SECONDS, longest_wait
from tuner.work.worker import work


def attempts(bench: Any) -> list[str]:
    """Return the reasons of all failed attempts, in order."""
    return [row.text for row in bench.rows(t.event) if row.kind == "attempt failed"]


def test_a_study_is_trained_to_its_end(station: Station) -> None:
    """Every trial has its curve, figures and predictions; the worker exits with its duration."""
    bench = station.launch(make_spec(epochs=3))
    ended = station.work("small", "quick")
    assert (ended.state, ended.reason) == ("complete", "")
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 3}
    assert len(bench.rows(t.epoch)) == 9
    assert len(bench.rows(t.prediction)) == 6
    (me,) = bench.rows(t.worker)
    assert me.ended is not None
    assert me.active_seconds > 0
    assert len(station.trainer_pids()) == 1, "one warm trainer serves all trials"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("exit:2", "the trainer exited with code 0"),
        ("code3:2", "the trainer exited with code 3"),
        ("segfault:2", "the trainer crashed (SIGSEGV)"),
        ("garbage:2", "the trainer sent an invalid message"),
        ("raises:2", "ValueError: a shape does not fit"),
        ("nonsense:2", "the trainer sent an invalid message"),
        ("setupless:2", "the trainer sent an invalid message"),
        ("leaves:2", "the trainer left the trial without being asked to"),
    ],
)
def test_misbehaviour_costs_attempts_and_is_told(
    station: Station, behaviour: str, reason: str
) -> None:
    """Two bad attempts are recorded with their reason; the third, with a new trainer, succeeds."""
    bench = station.launch(make_spec(epochs=2))
    ended = station.work("small", behaviour)
    assert ended.state == "complete"
    told = attempts(bench)
    assert len(told) == 2
    assert all(text.startswith(reason) for text in told), told
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 3}
    # Mostly of one trial; on a busy machine another one may come between the two.
    assert sum(row.token - 1 for row in bench.rows(t.outcome)) == 2


def test_text_that_cannot_be_stored_is_escaped_where_it_arrives(station: Station) -> None:
    """NUL and lone surrogates in classes, ids, notes and the device are escaped; ids differ."""
    bench = station.launch(make_spec(dimensions=(), epochs=1))
    assert station.work("small", "odd").state == "complete"
    assert attempts(bench) == []
    odd = r"\x00\xe9\ud800"
    (row,) = bench.rows(t.outcome)
    assert row.setup["device"] == f"double{odd}"
    assert row.setup["notes"] == {f"note{odd}": f"text{odd}"}
    (data,) = bench.rows(t.dataset)
    assert (data.fingerprint, data.classes) == (f"d{odd}", [f"no{odd}", f"yes{odd}"])
    (labels,) = bench.rows(t.label)
    assert labels.ids == labels.patients == [r"\\udce9", r"\xe9"]


def test_what_no_column_can_hold_costs_the_attempt(station: Station) -> None:
    """The server's refusal is the attempt's reason, in its words; the worker continues."""
    bench = station.launch(make_spec(epochs=2))
    assert station.work("small", "absurd:2").state == "complete"
    refused = "the trainer's data cannot be stored: integer out of range (SQLSTATE 22003)"
    assert attempts(bench) == [refused] * 2
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 3}
    assert len(bench.rows(t.worker)) == 1


def test_a_full_disk_of_the_server_is_no_outage(
    station: Station, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal that repeats fails the attempt, and the log has the server's message."""
    monkeypatch.setattr(stored, "STUBBORN_TRIES", 2)
    bench = station.launch(make_spec(epochs=2))
    with station.database.transaction() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$; "
            "CREATE TRIGGER full_disk BEFORE INSERT ON tuner.prediction "
            "FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
    ended = station.work("small", "quick")
    words = "could not extend file (SQLSTATE 53100)"
    assert ended.state == "paused"
    assert f"the trainer's data cannot be stored: {words}" in ended.reason
    assert f"the database refused the request; trying again ({words})" in caplog.text
    assert bench.rows(t.outcome) == []


def test_an_error_of_ours_in_a_trials_transaction_costs_the_attempt(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An assertion that fails in the ledger fails the attempt with its message, not the worker."""
    real, calls = endings.complete, []

    def broken(*arguments: Any) -> None:
        calls.append(1)
        assert len(calls) > 2, "every epoch must be stored before a trial completes"
        real(*arguments)

    monkeypatch.setattr(endings, "complete", broken)
    bench = station.launch(make_spec(epochs=2))
    assert station.work("small", "quick").state == "complete"
    words = "AssertionError: every epoch must be stored before a trial completes"
    assert len(attempts(bench)) == 2
    assert all(words in text for text in attempts(bench)), attempts(bench)


def test_a_trainer_killed_from_outside_costs_no_attempt(station: Station) -> None:
    """kill -9 five times in a row: no attempt is counted, and the trial completes."""
    bench = station.launch(limited(make_spec(dimensions=(), epochs=2), attempts=1))
    assert station.work("small", "killed:5").state == "complete"
    assert attempts(bench) == []
    told = [row.text for row in bench.rows(t.event) if row.kind == "interrupted"]
    assert told == ["the trainer was killed from outside (SIGKILL)"] * 5
    assert [(row.state, row.token) for row in bench.rows(t.outcome)] == [("COMPLETE", 6)]


def test_attempts_run_out_but_the_worker_goes_on(station: Station) -> None:
    """A trial whose trainer dies three times fails for good; the next ones are trained."""
    spec = limited(make_spec(epochs=2), attempts=2)
    bench = station.launch(spec)
    assert station.work("small", "segfault:2").state == "complete"
    states = [row.state for row in bench.rows(t.outcome)]
    assert states == ["FAILED", "COMPLETE", "COMPLETE"]
    seen = optuna_trials(bench.worker())
    assert [one.state for one in seen] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]


def test_a_silent_trainer_is_stopped(station: Station) -> None:
    """A trainer that is silent for longer than [limits] allows is replaced."""
    bench = station.launch(limited(make_spec(dimensions=(), epochs=2), silence_seconds=1.0))
    assert station.work("small", "silent:1").state == "complete"
    assert attempts(bench) == ["the trainer did not respond for 1 s"]


def test_a_greedy_trainer_is_stopped(station: Station) -> None:
    """A trainer above the memory that [limits] allows is replaced."""
    spec = limited(make_spec(dimensions=(), epochs=2), memory_bytes=200_000_000)
    bench = station.launch(spec)
    # Executed: a fork of a process that has torch would be above it from the start.
    orders = replace(station.orders("small", "greedy:1"), forks=None)
    assert work(station.settings, orders, StopRequest()).state == "complete"
    (told,) = attempts(bench)
    assert told.startswith("the trainer used more memory than [limits] allows")


def test_what_a_trainer_prints_is_kept(station: Station) -> None:
    """An attempt's standard output and error can be read by trial and attempt."""
    bench = station.launch(make_spec(dimensions=(), epochs=1))
    station.work("small", "prints:1")
    (row,) = bench.rows(t.output)
    assert row.text.splitlines() == ["said on stdout", "said on stderr"]
    assert row.token == 1


def test_the_same_misbehaviour_everywhere_pauses_the_study(station: Station) -> None:
    """On a broken machine the brake pauses the study, and nothing is FAILED."""
    bench = station.launch(make_spec(seeds=3))
    ended = station.work("small", "code3")
    assert ended.state == "paused"
    assert "exited with code 3" in ended.reason
    assert bench.rows(t.outcome) == []
    assert len(attempts(bench)) <= 7


def test_what_fails_where_the_folder_is_gone_is_not_the_trials_fault(
    station: Station, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray removes the working directory of a dying node before it kills what runs there."""
    bench = station.launch(limited(make_spec(dimensions=()), attempts=1))
    going = tmp_path / "going"
    going.mkdir()
    monkeypatch.chdir(going)
    going.rmdir()
    with pytest.raises(MachineError, match="working directory is gone"):
        station.work("small", "code3")
    assert attempts(bench) == []
    assert bench.rows(t.outcome) == []
    (row,) = bench.rows(t.lease)
    assert (row.state, row.strikes, row.interruptions) == ("released", 0, 1)


def test_a_diverged_trial_is_pruned_and_the_next_goes_on(station: Station) -> None:
    """NaN ends a trial at its epoch; later messages of the trainer are not stored."""
    bench = station.launch(make_spec(epochs=4))
    assert station.work("small", "diverges").state == "complete"
    rows = bench.rows(t.outcome)
    assert [(row.state, row.reason) for row in rows] == [("PRUNED", "diverged at epoch 2")] * 3
    assert len(bench.rows(t.epoch)) == 6


def test_the_trainer_gets_no_way_into_the_database(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in a trainer's environment gives access to the database."""
    monkeypatch.setenv("TUNER_DATABASE_URL", station.settings.database_url or "")
    monkeypatch.setenv("PGPASSWORD", "secret")
    station.launch(make_spec(dimensions=(), epochs=1))
    station.work("small", "quick")
    (noted,) = station.folder.glob("environ-*")
    environment = json.loads(noted.read_text())
    assert not {"TUNER_DATABASE_URL", "PGPASSWORD", "PGPASSFILE"} & set(environment)
    assert environment["OMP_NUM_THREADS"] == "1"


def test_predictions_of_another_network_than_the_curve_fail_the_attempt(station: Station) -> None:
    """Figures are recomputed from predictions before a trial completes, so none is mixed."""
    bench = station.launch(make_spec(epochs=2))
    ended = station.work("small", "mixed")
    assert ended.state == "paused"
    assert "val_loss of epoch 2 was 0.5, but the predictions" in ended.reason
    assert not bench.rows(t.outcome)


def interruptions(bench: Any) -> list[str]:
    """Return the reasons of all interruptions, in order."""
    return [row.text for row in bench.rows(t.event) if row.kind == "interrupted"]


def test_a_trainer_that_crashes_with_several_trials_costs_none_an_attempt(
    station: Station,
) -> None:
    """Even if it crashes while others are claimed; then each is trained alone."""
    bench = station.launch(limited(make_spec(epochs=2), attempts=1))
    assert station.work("small", "crowd:1").state == "complete"
    assert attempts(bench) == []
    told = interruptions(bench)
    count = len(told)
    assert count in (2, 3), told
    assert all(f"{count} trials were trained together; each is retried" in text for text in told)
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 3}
    assert [row.token for row in bench.rows(t.outcome)].count(2) == count


def test_what_one_trial_does_is_not_the_other_s_fault(station: Station) -> None:
    """The second fails for the invalid message about it; the first does not."""
    bench = station.launch(limited(make_spec(epochs=2), attempts=1))
    assert station.work("small", "mixed_up:1").state == "complete"
    assert attempts(bench) == ["the trainer sent an invalid message"]
    assert interruptions(bench) == [
        "the trainer sent an invalid message; 2 trials were trained together; each is retried alone"
    ]
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 2, "FAILED": 1}


def test_an_error_of_several_trials_is_no_attempt_of_any(station: Station) -> None:
    """This includes the last of them, when the others have been handled already."""
    bench = station.launch(limited(make_spec(epochs=2), attempts=1))
    assert station.work("small", "shared:1").state == "complete"
    assert attempts(bench) == []
    assert interruptions(bench) == [
        "MemoryError: too many; 3 trials were trained together; each is retried alone"
    ]


def test_a_lease_that_was_lost_before_the_trainer_had_begun_costs_the_trial_alone(
    station: Station,
) -> None:
    """The ledger refuses the trainer's setup; the worker continues."""
    bench = station.launch(make_spec(epochs=2))
    stop = StopRequest()
    thread = station.in_thread("small", "late:1", stop)
    until(lambda: len(bench.rows(t.lease)) == 1, "it has a trial")
    peer = bench.worker()
    with bench.database.transaction() as connection:
        connection.execute(
            sa.update(t.lease).values(token=t.lease.c.token + 1, worker_id=peer.worker_id)
        )
    (station.folder / "go").touch()
    until(lambda: len(bench.rows(t.outcome)) == 2, "it has trained the others")
    adopted = claim_trial(peer)
    finish(peer, adopted)
    thread.join(20)
    assert not thread.is_alive()
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": 3}
    assert attempts(bench) == []


@pytest.mark.parametrize("workers", [1, 40, 400, 100_000])
def test_idle_workers_ask_seldom_together_and_each_often_enough(workers: int) -> None:
    """A small fleet polls as usual; in a large one each polls less, but well within its lease."""
    timing = Timing()
    pause = longest_wait(workers, timing)
    assert timing.poll <= pause <= timing.lease / 2
    if pause > timing.poll:
        assert pause == pytest.approx(min(workers * ASKING_SECONDS, timing.lease / 3))
