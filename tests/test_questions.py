"""Child processes that answer a question, whatever their caller does meanwhile."""

import sys
from pathlib import Path

import pytest

from tests.harness.processes import until
from tuner import forkserver, questions
from tuner.questions import Question

CHATTY = """
import pathlib, sys
from tuner.questions import serve

def work(body, progress):
    for done in range(body["lines"]):
        progress("decoding images", done, body["lines"])
    pathlib.Path(sys.argv[1]).touch()
    progress("x" * 100_000, 1, 1)
    return {"long": "y" * 1_000_000}

sys.exit(serve(work))
"""
"""Reports more progress than a pipe holds, and then a result that no pipe holds."""


def test_progress_that_nobody_reads_stops_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done before its caller reads anything; the result arrives whole later."""
    done = tmp_path / "done"
    monkeypatch.setattr(questions, "starter", forkserver.starter)
    monkeypatch.setattr(forkserver, "python", lambda _: (sys.executable, "-c", CHATTY, str(done)))
    heard: list[int] = []
    with Question("unused", {"lines": 20_000}) as question:
        until(done.exists, "the work is done")
        found = question.answer(lambda _what, number, _total: heard.append(number))
    assert found == {"long": "y" * 1_000_000}
    # What fitted arrives in order.
    assert heard
    assert heard == sorted(heard)
    assert len(heard) < 20_000
