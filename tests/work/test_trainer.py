"""The real trainer process: its environment, and that it never outlives its supervisor."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.processes import until
from tuner.processes import python
from tuner.settings import child_environment, without_secrets
from tuner.work.messages import Message, receive, send


def start(ours: socket.socket, theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start the real trainer on one end of a channel."""
    with theirs:
        return subprocess.Popen(
            [*python("tuner.work.trainer"), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


def test_the_trainer_leaves_when_its_supervisor_has_gone() -> None:
    """The closed channel ends it at once, even while it is loading torch."""
    ours, theirs = socket.socketpair()
    process = start(ours, theirs)
    ours.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    process.stderr.close()


def test_the_trainer_reports_what_it_cannot_do(tmp_path: Path) -> None:
    """A job with an unknown objective is an error of that trial; the trainer stays."""
    ours, theirs = socket.socketpair()
    process = start(ours, theirs)
    settings = {"device": "cpu", "threads": 1, "cache": str(tmp_path), "folders": []}
    settings |= {"checkpoints": None, "cores": []}
    send(ours, Message("settings", settings))
    job = {"objective": "nowhere", "parameters": {}, "data": {}, "seed": 0, "metric": "val_loss"}
    with ours:
        for serial in (1, 2):
            send(ours, Message("train", {"serial": serial, "job": job}))
            answer = receive(ours)
            while answer is not None and answer.kind in ("alive", "progress"):
                answer = receive(ours)
            assert answer is not None
            assert (answer.kind, answer.body["serial"]) == ("error", serial)
            assert answer.body["error"] == "ObjectiveError"
            assert "nowhere" in answer.body["text"]
    assert process.wait(60) == 0
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_real_trainer_has_no_way_into_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its environment nor its arguments, as shown by the system, open the database."""
    monkeypatch.setenv("TUNER_DATABASE_URL", "postgresql://me:s3cret@db/x")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    monkeypatch.setenv("PGPASSFILE", "/s3cret")
    ours, theirs = socket.socketpair()
    with ours:
        process = start(ours, theirs)
        proc = Path(f"/proc/{process.pid}")
        until(lambda: b"tuner.work.trainer" in (proc / "cmdline").read_bytes(), "it runs")
        assert b"s3cret" not in (proc / "environ").read_bytes() + (proc / "cmdline").read_bytes()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stderr is not None
    process.stderr.close()


def test_secrets_are_taken_out_and_nothing_else() -> None:
    """A trainer keeps PATH, CUDA_VISIBLE_DEVICES and the like."""
    kept = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "TUNER_HOME": "/x"}
    secret = {"TUNER_DATABASE_URL": "u", "PGPASSWORD": "p", "PGPASSFILE": "f", "PGSERVICE": "s"}
    assert without_secrets({**kept, **secret}) == kept
