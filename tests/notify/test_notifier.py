"""Who is notified of what, and how often: with real events, a real server and real threads."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.harness.processes import until
from tests.harness.receiver import Receiver, status
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner import logs
from tuner.notify import notifier as notifier_module
from tuner.notify.hooks import Answer, Hook, Webhook
from tuner.notify.notice import for_chat
from tuner.notify.notifier import Notifier
from tuner.spec.study_ref import StudyRef
from tuner.store import control, notices, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Ended
from tuner.store.ledger.ledger import Ledger


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often, and use short rests."""
    monkeypatch.setattr(notifier_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(notices, "FIRST_REST_SECONDS", 0.1)


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study of three settings, of which each trial has one attempt."""
    spec = make_spec()
    return Bench.launch(database, replace(spec, limits=replace(spec.limits, attempts=1)))


def telling(bench: Bench, receiver: Receiver, path: str = "/hook", **more: Any) -> Notifier:
    """Return a notifier of the study's events to the server."""
    return Notifier(bench.database, [Webhook.of(receiver.url + path)], bench.study.ref, **more)


def complete(bench: Bench) -> Ledger:
    """Train the rest of the study to its end."""
    worker = bench.worker()
    while not isinstance(answer := worker.claim(None, adopt=True), Ended):
        finish(worker, answer.lease)  # type: ignore[union-attr]
    return worker


def test_the_end_of_a_study_is_told(bench: Bench, receiver: Receiver) -> None:
    """The notice has counts, and a link if there is a dashboard, even without a verdict.

    These trials have no predictions on test, which those of a trainer always have.
    """
    with telling(bench, receiver, dashboard="https://tuner.example.org/"):
        complete(bench)
    (body,) = receiver.bodies()
    assert body["event"] == "study_complete"
    assert (body["study"], body["question"]) == ("small@1", "Which?")
    assert body["sentence"] == "small is complete: 3 of 3 trials ended."
    assert (body["trials"]["complete"], body["trials"]["budget"]) == (3, 3)
    assert body["verdict"] == []
    assert body["link"] == "https://tuner.example.org/studies/small@1"
    assert body["text"] == for_chat("\n".join([body["sentence"], *body["verdict"], body["link"]]))
    (row,) = bench.rows(t.notice)
    assert (row.tries, row.result) == (1, "HTTP 200")
    assert row.ended is not None


def test_of_many_that_could_tell_one_does(bench: Bench, receiver: Receiver) -> None:
    """Of eight processes with the same webhook one sends each event."""
    with ExitStack() as many:
        for _ in range(8):
            many.enter_context(telling(bench, receiver))
        complete(bench)
    assert [body["event"] for body in receiver.bodies()] == ["study_complete"]


def test_two_hooks_are_told_both(bench: Bench, receiver: Receiver) -> None:
    """Two hooks are independent: if one fails, the other still gets everything."""
    receiver.replies = [status(404)]
    with telling(bench, receiver, "/gone"), telling(bench, receiver, "/hook"):
        complete(bench)
    assert sorted(path for path, _, _ in receiver.received) == ["/gone", "/hook"]


def test_a_server_in_trouble_is_tried_again_with_the_same_id(
    bench: Bench, receiver: Receiver
) -> None:
    """The notice is repeated with its id until the server accepts it, and then no more."""
    receiver.replies = [status(500), status(503)]
    with telling(bench, receiver):
        complete(bench)
    bodies = receiver.bodies()
    assert len(bodies) == 3
    assert len({body["id"] for body in bodies}) == 1
    (row,) = bench.rows(t.notice)
    assert (row.tries, row.result) == (3, "HTTP 200")


def test_a_server_that_is_away_holds_up_an_end_only_for_so_long(
    bench: Bench,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The process exits after a limit; the next one with the hook sends the rest."""
    monkeypatch.setattr(notifier_module, "LEAVE_SECONDS", 0.2)
    monkeypatch.setattr(notices, "FIRST_REST_SECONDS", 60.0)
    receiver.replies = [status(500)]
    with caplog.at_level(logging.WARNING), telling(bench, receiver, "/s3cret"):
        complete(bench)
    assert len(receiver.received) == 1
    assert "not everything could be told" in caplog.text
    assert "s3cret" not in caplog.text
    with bench.database.transaction() as connection:
        connection.execute(sa.update(t.notice).values(due=t.NOW))
    monkeypatch.setattr(notifier_module, "LEAVE_SECONDS", 20.0)
    with telling(bench, receiver, "/s3cret"):
        pass
    assert [body["event"] for body in receiver.bodies()] == ["study_complete"] * 2


def test_a_sender_that_died_is_replaced_when_its_time_is_over(
    bench: Bench, receiver: Receiver
) -> None:
    """Its notice is not taken before that, and is sent again with the same id."""
    hook = Webhook.of(receiver.url + "/hook").key
    with bench.database.transaction() as connection:
        notices.register(connection, hook)
    complete(bench)
    with bench.database.transaction() as connection:
        (event,) = notices.pending(connection, hook, bench.study)
        assert notices.take(connection, hook, [event]) == {event.event_id}
    with bench.database.transaction() as connection:
        assert notices.take(connection, hook, [event]) == set()
        assert notices.pending(connection, hook, bench.study) == []
        assert notices.is_waiting(connection, hook, bench.study)
        connection.execute(sa.update(t.notice).values(due=t.NOW))
    with telling(bench, receiver):
        pass
    (body,) = receiver.bodies()
    assert body["id"] == f"small@1-{event.event_id}"


def test_failed_trials_are_told_together(bench: Bench, receiver: Receiver) -> None:
    """The first is sent at once; those within the next minute together at the study's end."""
    with telling(bench, receiver):
        worker = bench.worker()
        worker.fail(claim_trial(worker), "ValueError: <!channel> & so on")
        until(lambda: receiver.received, "the failure is told")
        worker.fail(claim_trial(worker), "KeyError: 'x'")
        until(lambda: len(bench.rows(t.outcome)) == 2)
        complete(bench)
    first, last = receiver.bodies()
    assert first["event"] == "trials_failed"
    assert first["failed"] == [{"trial": 0, "reason": "ValueError: <!channel> & so on"}]
    assert "&lt;!channel&gt; &amp; so on" in first["text"]
    assert first["sentence"].startswith("small: Trial 0 failed: ValueError: <!channel> & so on.")
    assert last["event"] == "study_complete"
    assert [one["trial"] for one in last["failed"]] == [1]
    assert last["trials"]["failed"] == 2


def test_what_may_have_arrived_is_told_again_alone(bench: Bench, receiver: Receiver) -> None:
    """A receiver drops a known id, so nothing new may be added under it."""
    hook, worker = Webhook.of(receiver.url + "/hook").key, bench.worker()
    with bench.database.transaction() as connection:
        notices.register(connection, hook)
    for reason in ("ValueError: one", "ValueError: two"):
        worker.fail(claim_trial(worker), reason)
    with bench.database.transaction() as connection:
        events = notices.pending(connection, hook, bench.study)
        notices.take(connection, hook, events)
        notices.put_off(connection, hook, [event.event_id for event in events], "no answer")
    worker.fail(claim_trial(worker), "KeyError: 'three'")
    with bench.database.transaction() as connection:
        connection.execute(sa.update(t.notice).values(due=sa.func.now()))
    with telling(bench, receiver):
        pass
    told = {
        body["id"]: _failed(body) for body in receiver.bodies() if body["event"] == "trials_failed"
    }
    assert told[f"small@1-{events[0].event_id}"] == [0, 1]
    assert sorted(trial for body in receiver.bodies() for trial in _failed(body)) == [0, 1, 2]


def _failed(body: dict[str, Any]) -> list[int]:
    return [one["trial"] for one in body["failed"]]


def test_the_brake_is_told(bench: Bench, receiver: Receiver) -> None:
    """The notice has the reason, and no verdict."""
    with telling(bench, receiver):
        worker = bench.worker()
        for _ in range(3):
            worker.fail(claim_trial(worker), "the same")
        assert bench.state() == "paused"
    body = receiver.bodies()[-1]
    assert (body["event"], body["verdict"]) == ("study_paused", [])
    assert "the same" in body["reason"]


def test_a_spent_budget_is_told(database: Database, receiver: Receiver) -> None:
    """A spent budget ends the study, and its notice has the reason."""
    bench = Bench.launch(database, make_spec(hours=1.0))
    with telling(bench, receiver):
        worker = bench.worker()
        finish(worker, claim_trial(worker))
        with database.transaction() as connection:
            connection.execute(sa.update(t.worker).values(device_seconds=7200.0))
        assert isinstance(worker.claim(None, adopt=True), Ended)
    (body,) = receiver.bodies()
    assert body["event"] == "study_spent"
    assert body["sentence"] == (
        "small has ended: The budget of 1 hour is spent (1 of 3 trials ended)."
    )


def test_what_a_person_does_is_not_told(bench: Bench, receiver: Receiver) -> None:
    """A study stopped by a user sends no notice."""
    with telling(bench, receiver):
        control.stop(bench.database, bench.study, "ann@here")
    assert receiver.received == []


def test_what_happened_before_a_hook_was_used_is_not_told(bench: Bench, receiver: Receiver) -> None:
    """Earlier events and events of other studies send no notice."""
    complete(bench)
    other = Bench.launch(bench.database, make_spec("other"))
    with telling(bench, receiver):
        complete(other)
    assert receiver.received == []
    with Notifier(bench.database, [Webhook.of(receiver.url + "/hook")]):
        pass
    assert [body["study"] for body in receiver.bodies()] == ["other@1"]


def test_a_study_that_is_stored_later_is_told(bench: Bench, receiver: Receiver) -> None:
    """A worker may be started before the launch."""
    hooks: list[Hook] = [Webhook.of(receiver.url)]
    with Notifier(bench.database, hooks, StudyRef("late")):
        complete(Bench.launch(bench.database, make_spec("late")))
    assert [body["study"] for body in receiver.bodies()] == ["late@1"]


def test_a_study_that_is_deleted_meanwhile_is_not_told(bench: Bench, receiver: Receiver) -> None:
    """A deleted study's events and unsent notices are gone."""
    receiver.replies = [status(500)]
    with telling(bench, receiver):
        complete(bench)
        until(lambda: receiver.received, "it was tried")
        with bench.database.transaction() as connection:
            studies.delete(connection, bench.study)
    assert bench.rows(t.notice) == []


def test_an_outage_is_waited_out(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage nothing is lost, and the thread continues."""
    pending, lost = notices.pending, threading.Event()

    def broken(connection: sa.Connection, *rest: Any) -> Any:
        if not lost.is_set():
            lost.set()
            connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
        return pending(connection, *rest)

    monkeypatch.setattr(notices, "pending", broken)
    with telling(bench, receiver):
        until(lost.is_set, "the connection was lost")
        complete(bench)
    assert [body["event"] for body in receiver.bodies()] == ["study_complete"]


@dataclass
class Program:
    """A command that runs in this process, until it is released."""

    answers: list[Answer] = field(default_factory=lambda: [Answer("told")])
    key: str = "command-slow"
    name: str = "the slow command"
    go: threading.Event = field(default_factory=threading.Event)
    runs: list[str] = field(default_factory=list)

    def send(self, body: Mapping[str, Any]) -> Answer:
        """Record the run, and return the next answer; the last one repeats."""
        self.runs.append(str(body["study"]))
        assert self.go.wait(20)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_a_look_in_progress_begins_nothing_after_the_deadline(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the deadline nothing begins: the exit would cut it off, and another would rerun it."""
    monkeypatch.setattr(notifier_module, "LEAVE_SECONDS", 0.0)
    program, benches = Program(), []
    with database.transaction() as connection:
        notices.register(connection, program.key)
    for name in ("one", "two"):
        benches.append(Bench.launch(database, make_spec(name)))
        complete(benches[-1])
    leaving = Notifier(database, [program])

    def let_go() -> None:
        until(leaving._ending.is_set, "the process ends")
        program.go.set()

    with leaving:
        until(lambda: program.runs, "the command runs")
        threading.Thread(target=let_go).start()
    assert program.runs == ["one@1"]
    assert [row.result for row in benches[0].rows(t.notice)] == ["told"]


def test_what_was_told_is_not_told_again_after_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the result's transaction is retried, even if the claim has expired."""
    monkeypatch.setattr(notices, "LEASE_SECONDS", 0.01)
    end = notices.end
    lost: list[sa.Connection] = []

    def broken(connection: sa.Connection, *rest: Any) -> None:
        if len(lost) < 3:
            lost.append(connection)
            connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
        end(connection, *rest)

    monkeypatch.setattr(notices, "end", broken)
    program = Program()
    program.go.set()
    with Notifier(bench.database, [program], bench.study.ref):
        complete(bench)
    assert len(lost) == 3
    assert program.runs == ["small@1"]
    assert [(row.tries, row.result) for row in bench.rows(t.notice)] == [(1, "told")]


def test_a_rest_is_stored_when_nothing_is_renewed_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is no longer renewed then: a renewal would lengthen the rest to a whole lease."""
    put_off, renewing = notices.put_off, []

    def watched(*given: Any) -> None:
        renewing.append([one.name for one in threading.enumerate() if one.name == "notices"])
        put_off(*given)

    monkeypatch.setattr(notices, "put_off", watched)
    program = Program([Answer("later", "busy"), Answer("told")])
    program.go.set()
    with Notifier(bench.database, [program], bench.study.ref):
        complete(bench)
    assert renewing == [[]]
    assert program.runs == ["small@1"] * 2


@pytest.fixture(autouse=True)
def _forget_secrets() -> Iterator[None]:
    """Forget the addresses of one test before the next."""
    yield
    logs._secrets.clear()
