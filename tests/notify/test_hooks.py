"""Webhooks on a real server, well and badly behaved; commands as real programs."""

import json
import logging
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.harness.receiver import Receiver, status
from tuner.errors import UserError
from tuner.notify import hooks
from tuner.notify.hooks import Command, Webhook, hooks_of
from tuner.settings import HookSettings

BODY: dict[str, Any] = {"id": "small@1-7", "event": "study_complete", "study": "small@1"}
SECRET = "/services/T0/B0/s3cret"


def test_a_webhook_gets_the_notice_as_json(receiver: Receiver) -> None:
    """It is sent once, with the id that identifies repetitions."""
    answer = Webhook.of(f"{receiver.url}{SECRET}").send(BODY)
    assert (answer.outcome, answer.reason) == ("told", "HTTP 200")
    ((path, headers, body),) = receiver.received
    assert (path, body) == (SECRET, BODY)
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "small@1-7"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(204, "told"), (400, "never"), (404, "never"), (429, "later"), (500, "later"), (503, "later")],
)
def test_a_status_says_whether_to_try_again(receiver: Receiver, code: int, outcome: str) -> None:
    """A server error is retried; an error of the address is not."""
    receiver.replies = [status(code)]
    answer = Webhook.of(receiver.url).send(BODY)
    assert (answer.outcome, answer.reason) == (outcome, f"HTTP {code}")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, code: int) -> None:
    """The notice and the token in its address are meant for one server only."""
    receiver.replies = [status(code, Location=f"{receiver.url}/elsewhere")]
    answer = Webhook.of(f"{receiver.url}{SECRET}").send(BODY)
    assert answer.outcome == "never"
    assert "redirects" in answer.reason
    assert [path for path, _, _ in receiver.received] == [SECRET]


def test_a_server_that_is_not_there_is_tried_later() -> None:
    """A refused connection is retried later, with the system's message."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    answer = Webhook.of(f"http://127.0.0.1:{port}{SECRET}").send(BODY)
    assert (answer.outcome, answer.reason) == ("later", "Connection refused")


def test_a_server_that_hangs_up_is_tried_later(receiver: Receiver) -> None:
    """The server may have received the notice; the id identifies the repetition."""
    receiver.replies = [lambda request: request.connection.close()]
    assert Webhook.of(receiver.url).send(BODY).outcome == "later"


@pytest.mark.parametrize("drips", [False, True])
def test_a_slow_server_is_waited_for_so_long(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, *, drips: bool
) -> None:
    """The timeout covers the whole request, even if the server sends a byte now and then."""

    def slowly(request: BaseHTTPRequestHandler) -> None:
        while drips and not receiver.released.wait(0.02):
            try:
                request.wfile.write(b"HTTP/1.1 "[:1])
            except OSError:
                return
        receiver.released.wait(60)

    monkeypatch.setattr(hooks, "SEND_SECONDS", 0.3)
    receiver.replies = [slowly]
    begun = time.monotonic()
    answer = Webhook.of(receiver.url).send(BODY)
    assert answer.outcome == "later"
    assert time.monotonic() - begun < 30


ADDRESSES = [
    "hooks.slack.com/services/s3cret",
    "ftp://host/s3cret",
    "https:///s3cret",
    "https://host/s3 cret",
    "https://host:port/s3cret",
    "https://user:s3cret@host/",
    "https://host/s3cret\r\nX: y",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_refused_unseen(address: str) -> None:
    """The message about an invalid address does not contain it."""
    with pytest.raises(UserError) as told:
        Webhook.of(address)
    assert "s3cret" not in str(told.value)
    assert "s3 cret" not in str(told.value)


def test_an_address_is_shown_nowhere() -> None:
    """Name, repr and stored data do not contain the address."""
    webhook = Webhook.of("https://hooks.slack.com/services/s3cret?key=s3cret")
    assert webhook.name == "the webhook https://hooks.slack.com/…"
    for text in (repr(webhook), webhook.key, repr(HookSettings(webhook="s3cret"))):
        assert "s3cret" not in text


def test_hooks_come_from_settings(tmp_path: Path) -> None:
    """The address comes from a file or directly; the same address is the same hook."""
    file = tmp_path / "webhook"
    file.write_text("https://host/s3cret\n")
    (first,) = hooks_of(HookSettings(webhook_file=file))
    (second, command) = hooks_of(HookSettings(webhook="https://host/s3cret", command="true"))
    assert first.key == second.key
    assert command.name == "the command true"
    assert hooks_of(HookSettings()) == ()
    with pytest.raises(UserError, match="No such file"):
        hooks_of(HookSettings(webhook_file=tmp_path / "none"))


def python(code: str) -> str:
    """Return a command line that runs some Python."""
    return f"'{sys.executable}' -c '{code}'"


def test_a_command_reads_the_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The notice comes on its input, without the database's password; no shell parses the words."""
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    code = 'import os, sys; print(sys.argv[1], os.environ.get("PGPASSWORD"), sys.stdin.read())'
    with caplog.at_level(logging.INFO):
        answer = Command.of(f"{python(code)} '$HOME;ls'").send(BODY)
    assert answer.outcome == "told"
    printed = caplog.records[-1].getMessage()
    assert f"$HOME;ls None {json.dumps(BODY)}" in printed


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (python("exit(3)"), "exit code 3"),
        ("/no/such/program", "cannot be run: No such file"),
    ],
)
def test_a_command_that_fails_is_not_run_again(command: str, reason: str) -> None:
    """It may have done something before it failed, so it is not repeated."""
    answer = Command.of(command).send(BODY)
    assert answer.outcome == "never"
    assert reason in answer.reason


def test_a_command_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its children are killed too: they would hold its output open."""
    monkeypatch.setattr(hooks, "COMMAND_SECONDS", 0.5)
    file = tmp_path / "pid"
    answer = Command.of(f"sh -c 'sleep 600 & echo $! > {file}; wait'").send(BODY)
    assert (answer.outcome, answer.reason) == ("never", "it was killed after 0.5 s")
    status_file = Path(f"/proc/{file.read_text().strip()}/status")
    deadline = time.monotonic() + 30
    while status_file.exists() and "zombie" not in status_file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("text", ["", "echo 'open"])
def test_a_command_that_cannot_be_read_is_refused(text: str) -> None:
    """An unparsable command is refused before anything is trained."""
    with pytest.raises(UserError, match="--on-event"):
        Command.of(text)


def test_a_command_is_one_of_each_user_on_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is registered per user and machine: elsewhere it would have no visible effect."""
    keys = set()
    for who in ("ann@one", "ann@two", "ben@one"):
        monkeypatch.setattr(hooks, "person", lambda who=who: who)
        keys.add(Command.of("notify-send tuner").key)
    assert len(keys) == 3
