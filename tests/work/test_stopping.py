"""Which signals are requests to stop, and which of them mean at once."""

import os
import signal
import subprocess
import sys

ASKED = "import os, signal; from tuner.work.stopping import StopRequest; stop = StopRequest(); "


def ask(code: str, *, hangup: signal.Handlers = signal.SIG_DFL) -> str:
    """Run lines after a request to stop, in a process that SIGHUP cannot reach."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED + code],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


HANG_UP = "stop.install(); os.kill(os.getpid(), signal.SIGHUP); print(stop.count)"


def test_a_closed_terminal_is_a_request() -> None:
    """SIGHUP is a polite request."""
    assert ask(HANG_UP) == "1"


def test_under_nohup_a_closed_terminal_is_none() -> None:
    """An ignored SIGHUP stays ignored."""
    assert ask(HANG_UP, hangup=signal.SIG_IGN) == "0"


def test_the_first_signal_after_a_lifetime_is_polite() -> None:
    """A batch system warns before its time limit; only a second signal means at once."""
    lines = (
        "import time; stop.install(); stop.after(0.0)\n"
        "while not stop.asked: time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGTERM); one = stop.count; "
        "os.kill(os.getpid(), signal.SIGINT); print(one, stop.count)"
    )
    assert ask(lines) == "1 2"
