"""The trainer process: imports torch once and trains the trials that its supervisor sends.

Started as `python -m tuner.work.trainer FD`, with one end of a socket pair as descriptor FD. It
never sees the database. It does not wait for an answer after an epoch: while it trains the next
one, the supervisor stores the epoch and decides.

Several trials may be in training: an epoch of each in turn, as a pack if they differ only in
numbers. Trials join and leave between two epochs.
"""

import contextlib
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import TunerError
from tuner.processes import pin
from tuner.records import Dataset, Epoch, Job, Result
from tuner.work.messages import GarbledError, Message, receive, send

if TYPE_CHECKING:
    from tuner.train.checkpoints.saver import CheckpointPlan, Keeping, Saver
    from tuner.train.run import Run
    from tuner.train.workbench import Workbench

ALIVE_SECONDS = 1.0
SETTLE_SECONDS = 10.0
"""Time limit for writing the last checkpoint."""


class StoppedError(Exception):
    """The supervisor has stopped this trial; raised inside the training loop."""


class Link:
    """The trainer's end of the channel: commands come in on a thread, reports go out."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._commands: queue.Queue[Message] = queue.Queue()
        self.stopped: set[int] = set()
        self.leaving: set[int] = set()
        self._alive_sent = 0.0
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Message:
        """Wait for the next command."""
        return self._commands.get()

    def commands(self, *, wait: bool) -> Iterator[Message]:
        """Yield the commands received so far; with `wait`, wait for the first one."""
        if wait:
            yield self.next()
        while not self._commands.empty():
            yield self.next()

    def begin(self, serial: int) -> "TrialChannel":
        """Return the line for the trial with this serial number."""
        return TrialChannel(self, serial)

    def send(self, kind: str, body: Mapping[str, Any], arrays: list[Any] | None = None) -> None:
        """Send a message; locked, because another thread reports checkpoints."""
        with self._sending:
            send(self._channel, Message(kind, body, arrays or []))

    def alive(self, serial: int) -> None:
        """Show a sign of life, at most once a second."""
        now = time.monotonic()
        if now - self._alive_sent >= ALIVE_SECONDS:
            self._alive_sent = now
            self.send("alive", {"serial": serial})

    def _listen(self) -> None:
        while True:
            try:
                message = receive(self._channel)
            except (OSError, GarbledError):
                message = None
            if message is None:
                # The supervisor is gone, however it died. Further training would waste the device,
                # and nothing here needs cleaning up.
                os._exit(0)
            if message.kind == "stop":
                self.stopped.add(int(message.body["serial"]))
            elif message.kind == "leave":
                self.leaving.add(int(message.body["serial"]))
            else:
                self._commands.put(message)


@dataclass(frozen=True)
class TrialChannel:
    """The part of the channel that belongs to one trial."""

    link: Link
    serial: int

    def report(self, kind: str, body: dict[str, Any], arrays: list[Any] | None = None) -> None:
        """Send a message about the trial."""
        self.link.send(kind, {"serial": self.serial, **body}, arrays)

    @property
    def stopped(self) -> bool:
        """Whether the supervisor has stopped the trial."""
        return self.serial in self.link.stopped

    @property
    def leaving(self) -> bool:
        """Whether to leave the trial at the end of an epoch."""
        return self.serial in self.link.leaving

    def alive(self) -> None:
        """Show a sign of life, at most once a second; raise StoppedError if the trial must stop."""
        if self.stopped:
            raise StoppedError
        self.link.alive(self.serial)


@dataclass(frozen=True)
class PackMember:
    """A trial in training."""

    line: TrialChannel
    job: Job
    run: "Run"
    keeping: "Keeping | None"
    until: int | None = None
    """The epoch at which to pause it."""

    @property
    def pauses(self) -> bool:
        """Whether it has reached that epoch."""
        return self.until is not None and len(self.run.curve) >= self.until


def main(arguments: list[str]) -> int:
    """Serve one supervisor until it is gone."""
    channel = socket.socket(fileno=int(arguments[0]))
    # Programs started by an objective do not inherit the channel, and forked processes close it.
    channel.set_inheritable(False)
    os.register_at_fork(after_in_child=channel.close)
    link = Link(channel)
    settings = link.next().body
    # A forked trainer starts with the cores of its fork server.
    pin(settings["cores"])
    trainer = Trainer(link, settings)
    try:
        trainer.serve()
    except BrokenPipeError:
        os._exit(0)
    return 0


class Trainer:
    """The trials in training and what they share: a device with data, and a place to save."""

    def __init__(self, link: Link, settings: Mapping[str, Any]) -> None:
        from tuner.train.abreast import Abreast

        self._link = link
        self._settings = settings
        self._abreast = Abreast(settings.get("memory"))
        self._members: list[PackMember] = []
        self._bench: Workbench | None = None
        self._saver: Saver | None = None
        self._opening = settings["checkpoints"] is not None
        self._beginning: TrialChannel | None = None

    def serve(self) -> None:
        """Train the trials that arrive until the supervisor says quit."""
        while True:
            for command in self._link.commands(wait=not self._members):
                if command.kind == "quit":
                    if self._saver:
                        self._saver.close(SETTLE_SECONDS)
                    return
                self._begin(command.body)
            self._train()

    def _begin(self, order: Mapping[str, Any]) -> None:
        line = self._beginning = self._link.begin(int(order["serial"]))
        with self._alone(line):
            # Opened with the first trial, so that a missing device is reported as that trial's
            # error rather than as an unexplained death.
            self._bench = self._bench or self._open_bench()
            # Likewise, so that an error shows in the trial's output. A place that fails is not
            # tried again, unless its trial was stopped while the place was being opened.
            if self._opening:
                self._saver = self._open_saver(line)
                self._opening = False
            self._join(line, self._bench, order)

    def _join(self, line: TrialChannel, bench: "Workbench", order: Mapping[str, Any]) -> None:
        job = Job.read(order["job"])
        run = bench.begin(job)
        self._abreast.mark(run, order.get("study_pack", 1))
        keeping, resumed = None, 0
        if self._saver is not None:
            keeping = self._saver.begin(
                bench,
                run,
                job,
                _plan(order),
                saved=lambda epoch: line.report("saved", {"epoch": epoch}),
                alive=line.alive,
            )
            resumed = keeping.resumed
        member = PackMember(line, job, run, keeping, order["plan"].get("until"))
        self._members.append(member)
        setup = asdict(run.setup) | {"notes": dict(run.setup.notes)}
        identity = asdict(bench.identity(job))
        # Only the first trial of a pack measures this, while nothing else is training.
        most = self._abreast.most(run, order.get("pack", 1))
        line.report(
            "setup", {"setup": setup, "resumed": resumed, "identity": identity, "pack": most}
        )
        for epoch in run.curve:
            line.report("epoch", {"epoch": asdict(epoch)})
        if run.ended:
            self._end(member)
            self._drop(member)
        elif member.pauses:
            # Its worker died after the last epoch, or another trial has already trained that far.
            self._pause(member)

    def _train(self) -> None:
        """Train one epoch of every trial that was not stopped."""
        for stopped in [member for member in self._members if member.line.stopped]:
            self._drop(stopped)
            stopped.line.report("stopped", {})
        by_run = {member.run: member for member in self._members}
        try:
            for run, epoch in self._abreast.epochs(list(by_run), self._alive):
                member = by_run[run]
                with self._alone(member.line):
                    self._after(member, epoch)
        except StoppedError:
            return  # all of them were stopped, which the next round reports for each
        except Exception as error:  # noqa: BLE001  # objectives are other people's code
            # We cannot tell which trial caused it, so each is retried alone.
            failed = list(self._members)
            for failure in failed:
                self._drop(failure)
                _report_error(failure.line, error, of=len(failed))

    def _after(self, member: PackMember, epoch: Epoch) -> None:
        member.line.report("epoch", {"epoch": asdict(epoch)})
        if member.keeping:
            member.keeping.after(member.run)
        # After its last epoch a trial is ended even if the trainer was asked to leave it: that
        # takes no further epoch, and a successor would only have to do the same.
        if member.run.ended:
            self._end(member)
            self._drop(member)
        elif member.pauses:
            self._pause(member)
        elif member.line.leaving:
            # Between two epochs, so that its next worker continues from here.
            if member.keeping:
                member.keeping.settle(member.run, SETTLE_SECONDS)
            member.line.report("left", {})
            self._drop(member)

    def _pause(self, member: PackMember) -> None:
        """Leave a trial at the epoch where it pauses, with a checkpoint to resume from."""
        checkpoint = member.keeping.pause(member.run, SETTLE_SECONDS) if member.keeping else ""
        member.line.report("paused", {"checkpoint": checkpoint})
        self._drop(member)

    def _end(self, member: PackMember) -> None:
        if member.run.diverged:
            member.line.report("stopped", {})
            return
        assert self._bench is not None
        result = member.run.result(member.line.alive)
        for remark in _not_resampled(result):
            print(remark, file=sys.stderr, flush=True)  # noqa: T201
        if member.keeping:
            member.keeping.end(member.run)
        _report_result(member.line, self._bench.dataset(member.job), result)

    def _alive(self) -> None:
        """Show a sign of life; abort the epoch if all of its trials were stopped."""
        if all(member.line.stopped for member in self._members):
            raise StoppedError
        self._link.alive(self._members[0].line.serial)

    @contextlib.contextmanager
    def _alone(self, line: TrialChannel) -> Iterator[None]:
        """Do something for one trial, so that a failure does not affect the others."""
        try:
            yield
        except StoppedError:
            line.report("stopped", {})
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  # objectives are other people's code
            _report_error(line, error)
        else:
            return
        for member in [member for member in self._members if member.line == line]:
            self._drop(member)

    def _drop(self, member: PackMember) -> None:
        self._members.remove(member)
        if self._saver and member.keeping:
            self._saver.over(member.keeping)

    def _open_bench(self) -> "Workbench":
        from tuner.train.workbench import Workbench

        return Workbench(
            device=self._settings["device"],
            threads=self._settings["threads"],
            cache=Path(self._settings["cache"]),
            folders=[Path(folder) for folder in self._settings["folders"]],
            progress=self._progress,
        )

    def _progress(self, what: str, done: int, total: int) -> None:
        assert self._beginning is not None
        self._beginning.report("progress", {"what": what, "done": done, "total": total})

    def _open_saver(self, line: TrialChannel) -> "Saver | None":
        from tuner.train.checkpoints.saver import Saver

        try:
            return Saver(
                self._settings["checkpoints"], line.alive, self._settings["lookup_seconds"]
            )
        except TunerError as error:
            # An unusable place costs the checkpoints, never the training.
            print(f"No checkpoints: {error}", file=sys.stderr, flush=True)  # noqa: T201
            return None


def _plan(order: Mapping[str, Any]) -> "CheckpointPlan":
    from tuner.train.checkpoints.saver import CheckpointPlan

    return CheckpointPlan.read(order["plan"])


def _not_resampled(result: Result) -> list[str]:
    """Return sentences about metrics without values on resamples; once for both moments."""
    reasons = {
        f"{each.split}_{metric}": reason
        for each in result.predictions
        for metric, reason in each.not_resampled.items()
    }
    return [
        f"{figure} is not resampled, so its intervals cover seeds but not images: {reason}."
        for figure, reason in reasons.items()
    ]


def _report_result(line: TrialChannel, data: Dataset, result: Result) -> None:
    predictions = [
        {
            "split": each.split,
            "at": each.at,
            "resampled": {name: values.tolist() for name, values in each.resampled.items()},
        }
        for each in result.predictions
    ]
    labels = [
        {"split": each.split, "ids": each.ids, "patients": each.patients} for each in data.labels
    ]
    line.report(
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
        [
            *(each.log_probabilities for each in result.predictions),
            *(each.labels for each in data.labels),
        ],
    )


def _report_error(line: TrialChannel, error: BaseException, of: int = 1) -> None:
    """Report an error of work done for this many trials at once."""
    traceback.print_exception(error)
    sys.stderr.flush()
    text = str(error).strip()
    line.report("error", {"error": type(error).__name__, "text": text, "of": of})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
