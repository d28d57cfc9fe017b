"""The process that checks data: its end is noticed, whatever it leaves behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.harness.processes import is_alive, until
from tuner import forkserver, questions
from tuner.errors import MachineError

FORKS_AND_DIES = """
import os, pathlib, signal, sys, time
forked = os.fork()
if forked == 0:
    time.sleep(600)
pathlib.Path(sys.argv[1]).write_text(str(forked))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_child_is_noticed_though_its_output_is_held_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that it forked keeps the pipe open; the death is reported, and both are ended."""
    note = tmp_path / "forked"
    command = (sys.executable, "-c", FORKS_AND_DIES, str(note))
    # Tests usually fork such children; this one is executed, as without a fork server.
    monkeypatch.setattr(questions, "starter", forkserver.starter)
    monkeypatch.setattr(forkserver, "python", lambda _: command)
    with pytest.raises(MachineError, match=f"was killed by signal {int(signal.SIGKILL)}"):
        questions.ask("any", {}, lambda *_: None)
    forked = int(note.read_text())
    assert forked != os.getpid()
    until(lambda: not is_alive(forked), "what it left behind ends")
