"""A trainer that trains nothing: it sends the real messages, and misbehaves on request.

    BEHAVIOUR FOLDER FD

It records itself and its environment in FOLDER. A behaviour may carry a number (`segfault:2`): this
many attempts misbehave, counted in FOLDER, then all go well. `large:2000` predicts this many
images, a kilobyte each.
"""

import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.records import Epoch, Figures
from tuner.train.metrics import mean_nll
from tuner.work.trainer import Link, StoppedError, TrialChannel

CLASSES = 2
LARGE_CLASSES = 250
ODD = "\x00\udce9\ud800"
"""Text that PostgreSQL cannot store."""


def large_scores(images: int) -> NDArray[np.float32]:
    """Return the predictions of the behaviour `large`: a kilobyte per image."""
    scores = np.random.default_rng(0).random((images, LARGE_CLASSES), np.float32)
    logs: NDArray[np.float32] = np.log(scores / scores.sum(axis=1, keepdims=True))
    return logs


class Double:
    """One trainer process."""

    def __init__(self, behaviour: str, folder: Path, channel: socket.socket) -> None:
        name, _, times = behaviour.partition(":")
        self._behaviour = name
        self._times = int(times) if times else 10**9
        self._folder = folder
        self._channel = channel
        (folder / f"environ-{os.getpid()}").write_text(json.dumps(dict(os.environ)))

    def serve(self) -> None:
        """Train all orders, until the supervisor exits."""
        link = Link(self._channel)
        assert link.next().kind == "settings"
        while True:
            command = link.next()
            if command.kind == "quit":
                return
            line = link.begin(int(command.body["serial"]))
            try:
                self._train(line, command.body["job"])
            except StoppedError:
                line.report("stopped", {})

    def _train(self, line: TrialChannel, job: dict[str, Any]) -> None:
        if self._misbehaves():
            getattr(self, f"_{self._behaviour}")(line)
        odd = ODD if self._behaviour == "odd" else ""
        setup = {"device": f"double{odd}", "parameter_count": 1, "initial_weights": "w"}
        notes = {f"note{odd}": f"text{odd}"}
        line.report("setup", {"setup": {**setup, "data_fingerprint": f"d{odd}", "notes": notes}})
        last = None
        epochs = int(job["parameters"]["epochs"])
        for number in range(1, epochs + 1):
            self._work(line)
            last = self._epoch(number, job)
            line.report("epoch", {"epoch": asdict(last)})
            if line.leaving and number < epochs:
                line.report("left", {})
                return
        assert last is not None
        self._report_result(line, last)

    def _work(self, line: TrialChannel) -> None:
        line.alive()
        if self._behaviour == "chatty":
            os.write(1, b"an epoch begins\n")
        if self._behaviour in ("slow", "chatty"):
            # An epoch lasts until the test lets it end, or for a short time.
            until = time.monotonic() + 0.1
            while time.monotonic() < until:
                time.sleep(0.01)
                line.alive()
        while self._behaviour == "held" and not (self._folder / "go").exists():
            time.sleep(0.01)
            line.alive()

    def _epoch(self, number: int, job: dict[str, Any]) -> Epoch:
        diverges = self._behaviour == "diverges" and number == 2
        loss = float("nan") if diverges else 1.0 / number + job["seed"] / 100
        if self._behaviour == "large":
            loss = mean_nll(large_scores(self._times), np.arange(self._times) % CLASSES)
        return Epoch(number, loss, loss, 0.5, loss, 0.6, 0.7, 0.6, 1e-3, 0.001)

    def _report_result(self, line: TrialChannel, last: Epoch) -> None:
        figures = asdict(
            Figures(last.epoch, last.train_loss, last.train_nll, 0.5, last.val_loss, 0.6, 0.7, 0.5)
        )
        labels = np.array([0, 1], dtype=np.int64)
        # Predictions whose loss is the epoch's, like a real trainer's.
        right = 0.0 if self._behaviour == "mixed" else last.val_loss
        scores = np.full((2, CLASSES), -5.0, dtype=np.float32)
        scores[[0, 1], labels] = -right
        dataset: dict[str, Any] = {
            "fingerprint": "d",
            "classes": ["no", "yes"],
            "sizes": {"val": 2},
            "labels": [{"split": "val", "ids": ["a", "b"], "patients": []}],
        }
        if self._behaviour == "odd":
            dataset["fingerprint"] = f"d{ODD}"
            dataset["classes"] = [f"no{ODD}", f"yes{ODD}"]
            ids = [r"\udce9", "\udce9"]
            dataset["labels"] = [{"split": "val", "ids": ids, "patients": ids}]
        if self._behaviour == "large":
            labels = np.arange(self._times) % CLASSES
            scores = large_scores(self._times)
            ids = [f"image {number}" for number in range(self._times)]
            dataset["labels"] = [{"split": "val", "ids": ids, "patients": []}]
        kept = [{"split": "val", "at": at} for at in ("best", "last")]
        body = {"best": figures, "last": figures, "predictions": kept, "dataset": dataset}
        line.report("result", body, [scores, scores, labels])

    def _misbehaves(self) -> bool:
        if self._behaviour in (
            "quick",
            "slow",
            "chatty",
            "held",
            "diverges",
            "odd",
            "large",
            "mixed",
        ):
            return False
        attempt = len(list(self._folder.glob("attempt-*")))
        (self._folder / f"attempt-{attempt}-{os.getpid()}").touch()
        return attempt < self._times

    def _absurd(self, line: TrialChannel) -> None:
        """Send an epoch that no column can store."""
        self._set_up(line, pack=1)
        epoch = asdict(self._epoch(1, {"seed": 0})) | {"epoch": 10**12}
        line.report("epoch", {"epoch": epoch})
        while True:
            time.sleep(0.02)
            line.alive()

    def _exit(self, _line: TrialChannel) -> None:
        os._exit(0)

    def _code3(self, _line: TrialChannel) -> None:
        os._exit(3)

    def _segfault(self, _line: TrialChannel) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

    def _killed(self, _line: TrialChannel) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _garbage(self, _line: TrialChannel) -> None:
        self._channel.sendall(b"\xff" * 64)
        time.sleep(60)

    def _nonsense(self, line: TrialChannel) -> None:
        line.report("epoch", {"epoch": {"no": "figures"}})
        time.sleep(60)

    def _setupless(self, line: TrialChannel) -> None:
        line.report("epoch", {"epoch": asdict(self._epoch(1, {"seed": 0}))})
        line.report("result", {})
        time.sleep(60)

    def _leaves(self, _line: TrialChannel) -> None:
        raise StoppedError

    def _raises(self, line: TrialChannel) -> None:
        os.write(2, b"Traceback: something of the objective\n")
        line.report("error", {"error": "ValueError", "text": "a shape does not fit"})
        raise StoppedError

    def _crowd(self, line: TrialChannel) -> None:
        """Ask for three trials at a time, and crash once the second has come, or the third."""
        self._set_up(line, pack=3)
        line.link.next()
        self._segfault(line)

    def _mixed_up(self, line: TrialChannel) -> None:
        """Ask for two trials at a time, and send an invalid message about the second."""
        self._set_up(line, pack=2)
        second = line.link.next()
        line.link.begin(int(second.body["serial"])).report("epoch", {"epoch": {"no": "figures"}})
        time.sleep(60)

    def _shared(self, line: TrialChannel) -> None:
        """Report an error of three trials at a time."""
        line.report("error", {"error": "MemoryError", "text": "too many", "of": 3})
        raise StoppedError

    def _late(self, line: TrialChannel) -> None:
        """Begin slowly: send no setup until the test allows it."""
        while not (self._folder / "go").exists():
            time.sleep(0.01)
            line.alive()

    def _set_up(self, line: TrialChannel, pack: int) -> None:
        setup = {"device": "double", "parameter_count": 1, "initial_weights": "w"}
        setup |= {"data_fingerprint": "d", "notes": {}}
        line.report("setup", {"setup": setup, "resumed": 0, "pack": pack})

    def _prints(self, _line: TrialChannel) -> None:
        os.write(1, b"said on stdout\n")
        os.write(2, b"said on stderr\n")

    def _silent(self, _line: TrialChannel) -> None:
        time.sleep(3600)

    def _hoards(self, line: TrialChannel) -> None:
        hoard = []
        while True:
            hoard.append(np.ones(5_000_000))
            line.alive()

    def _greedy(self, line: TrialChannel) -> None:
        hoard = np.ones(30_000_000)
        while hoard.any():
            time.sleep(0.05)
            line.alive()


def main(arguments: list[str]) -> int:
    """Serve one supervisor."""
    behaviour, folder, descriptor = arguments
    Double(behaviour, Path(folder), socket.socket(fileno=int(descriptor))).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
