"""The trainer process: imports torch once and trains the trials its supervisor sends.

Started as `python -m tuner.work.trainer FD`, with one end of a socket pair as
descriptor FD. It never sees the database. It does not wait for an answer after
an epoch: the supervisor stores and decides while the next one is trained.
"""

import os
import queue
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import TunerError
from tuner.records import Dataset, Job, Result
from tuner.work.messages import GarbledError, Message, receive, send

if TYPE_CHECKING:
    from tuner.train.checkpoints.saver import Plan, Saver
    from tuner.train.run import Run
    from tuner.train.workbench import Workbench

ALIVE_SECONDS = 1.0
SETTLE_SECONDS = 10.0
"""How long a last checkpoint may take to be written."""


class StoppedError(Exception):
    """The supervisor wants no more of this trial; raised inside the training loop."""


class Link:
    """The trainer's end of the channel: commands come in on a thread, reports go out."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._commands: queue.Queue[Message] = queue.Queue()
        self._stopped = 0
        self._leaving = 0
        self._serial = 0
        self._alive_sent = 0.0
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Message:
        """Wait for the next command."""
        return self._commands.get()

    def begin(self, serial: int) -> None:
        """Make all that follows belong to the trial of this serial number."""
        self._serial = serial

    def report(self, kind: str, body: dict[str, Any], arrays: list[Any] | None = None) -> None:
        """Send something about the current trial; checkpoints are reported by another thread."""
        with self._sending:
            send(self._channel, Message(kind, {"serial": self._serial, **body}, arrays or []))

    @property
    def leaving(self) -> bool:
        """Whether the trial is to be left at the end of an epoch."""
        return self._leaving >= self._serial

    def alive(self) -> None:
        """Show a sign of life, at most once a second; leave the trial if it is to stop."""
        if self._stopped >= self._serial:
            raise StoppedError
        now = time.monotonic()
        if now - self._alive_sent >= ALIVE_SECONDS:
            self._alive_sent = now
            self.report("alive", {})

    def _listen(self) -> None:
        while True:
            try:
                message = receive(self._channel)
            except (OSError, GarbledError):
                message = None
            if message is None:
                # The supervisor is gone, however it died. Training on would
                # burn the device for nobody; nothing here needs tidying up.
                os._exit(0)
            if message.kind == "stop":
                self._stopped = max(self._stopped, int(message.body["serial"]))
            elif message.kind == "leave":
                self._leaving = max(self._leaving, int(message.body["serial"]))
            else:
                self._commands.put(message)


def main(arguments: list[str]) -> int:
    """Serve one supervisor until it goes."""
    channel = socket.socket(fileno=int(arguments[0]))
    # No program that an objective starts gets the channel, and no process that it forks keeps it.
    channel.set_inheritable(False)
    os.register_at_fork(after_in_child=channel.close)
    link = Link(channel)
    from tuner.train.workbench import Workbench

    settings = link.next().body

    def progress(what: str, done: int, total: int) -> None:
        link.report("progress", {"what": what, "done": done, "total": total})

    def open_bench() -> Workbench:
        return Workbench(
            device=settings["device"],
            threads=settings["threads"],
            cache=Path(settings["cache"]),
            folders=[Path(folder) for folder in settings["folders"]],
            progress=progress,
        )

    bench: Workbench | None = None
    saver: Saver | None = None
    opening = settings["checkpoints"] is not None
    while True:
        command = link.next()
        if command.kind == "quit":
            if saver:
                saver.close(SETTLE_SECONDS)
            return 0
        link.begin(int(command.body["serial"]))
        try:
            # Opened with the first trial, so that a missing device is told as
            # that trial's error and not as a death without words.
            bench = bench or open_bench()
            # Likewise, so that an error is shown in the trial's output. A place that refuses is
            # not tried again; one whose trial was stopped while it was opened is.
            if opening:
                saver = _open_saver(link, settings["checkpoints"], settings["lookup_seconds"])
                opening = False
            _train(link, bench, saver, dict(command.body))
        except StoppedError:
            link.report("stopped", {})
        except BrokenPipeError:
            os._exit(0)
        except Exception as error:  # noqa: BLE001  # objectives are other people's code
            _report_error(link, error)


def _train(link: Link, bench: "Workbench", saver: "Saver | None", body: dict[str, Any]) -> None:
    job = Job(**body["job"])
    run = bench.begin(job)
    resumed = saver.begin(bench, run, job, _plan(body), link.alive) if saver else 0
    setup, identity = _plain(asdict(run.setup)), asdict(bench.identity(job))
    link.report("setup", {"setup": setup, "resumed": resumed, "identity": identity})
    for epoch in run.curve:
        link.report("epoch", {"epoch": asdict(epoch)})
    for epoch in run.epochs(link.alive):
        link.report("epoch", {"epoch": asdict(epoch)})
        if saver:
            saver.after(run)
        if link.leaving:
            _leave(link, run, saver)
            return
    if run.diverged:
        link.report("stopped", {})
        return
    result = run.result(link.alive)
    if saver:
        saver.end(run)
    _report_result(link, bench.dataset(job), result)


def _leave(link: Link, run: "Run", saver: "Saver | None") -> None:
    """Leave a trial between two epochs, so that whoever adopts it goes on from here."""
    if saver:
        saver.settle(run, SETTLE_SECONDS)
    link.report("left", {})


def _plan(body: dict[str, Any]) -> "Plan":
    from tuner.train.checkpoints.saver import Plan

    return Plan.read(body["plan"])


def _open_saver(link: Link, location: str, seconds: float) -> "Saver | None":
    from tuner.train.checkpoints.saver import Saver

    try:
        return Saver(
            location, lambda epoch: link.report("saved", {"epoch": epoch}), link.alive, seconds
        )
    except TunerError as error:
        # A place that cannot be used costs checkpoints, never a training.
        print(f"No checkpoints: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return None


def _report_result(link: Link, data: Dataset, result: Result) -> None:
    predictions = [{"split": one.split, "at": one.at} for one in result.predictions]
    labels = [{"split": one.split, "ids": one.ids, "patients": one.patients} for one in data.labels]
    link.report(
        "result",
        {
            "best": asdict(result.best),
            "last": asdict(result.last),
            "predictions": predictions,
            "dataset": {
                "fingerprint": data.fingerprint,
                "classes": data.classes,
                "sizes": dict(data.sizes),
                "labels": labels,
            },
        },
        [one.log_probabilities for one in result.predictions] + [one.labels for one in data.labels],
    )


def _report_error(link: Link, error: BaseException) -> None:
    traceback.print_exc()
    sys.stderr.flush()
    text = str(error).strip()
    link.report("error", {"error": type(error).__name__, "text": text})


def _plain(setup: dict[str, Any]) -> dict[str, Any]:
    return {**setup, "notes": dict(setup["notes"])}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
