"""How processes end: by their exit code, with everything registered for the end, and at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.ending import UNFLUSHED
from tuner.processes import python

PROGRAM = """
import atexit, sys, threading, time, weakref
from tuner.ending import leave

class Kept: ...
kept = Kept()

def of_torch():
    print("operators are taken out")
of_torch.__module__ = "torch.library"

def late():
    time.sleep(0.2)
    print("a thread ends")

class Tee:
    # Has what print needs, and no more.
    def write(self, text): sys.__stdout__.write(text)
    def flush(self): sys.__stdout__.flush()

sys.stdout = Tee()
emptied = {1: 2}
atexit.register(lambda: print("not emptied" if emptied else "emptied"))
atexit.register(print, "registered")
weakref.finalize(kept, dict.clear, emptied)  # which belongs to no module
weakref.finalize(kept, print, "a folder is removed")
weakref.finalize(kept, of_torch)
threading.Thread(target=late).start()
print("unflushed", end="")
leave(7)
"""


@pytest.mark.processes
def test_what_is_registered_for_the_end_runs_and_torchs_operators_stay() -> None:
    """Threads are waited for, output is flushed; torch's operators end with the memory."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 7
    assert ended.stdout == "unflusheda thread ends\na folder is removed\nregistered\nemptied\n"
    assert ended.stderr == ""


@pytest.mark.processes
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_output_that_cannot_be_written_at_the_end_is_an_error() -> None:
    """As with Python itself."""
    environment = {name: value for name, value in os.environ.items() if "UNBUFFERED" not in name}
    program = "from tuner.ending import leave; print('lost', end=''); leave(0)"
    command = [sys.executable, "-c", program]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, env=environment, check=False)
    assert ended.returncode == UNFLUSHED


@pytest.mark.processes
@pytest.mark.parametrize(
    ("said", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("sys.exit('why')", 1), ("", 0)]
)
def test_a_child_ends_with_its_modules_exit_code(said: str, code: int, tmp_path: Path) -> None:
    """What a module says at its end, or that it says nothing, is the child's exit code."""
    (tmp_path / "child_that_ends.py").write_text(f"import sys\n{said}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*python("child_that_ends")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stderr == ("why\n" if "why" in said else "")
