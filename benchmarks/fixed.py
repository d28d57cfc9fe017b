"""A real worker whose trainer trains nothing: every epoch takes a fixed time.

    python -m benchmarks.fixed worker HOME STUDY SECONDS NOTES     (the database in the environment)
    python -m benchmarks.fixed trainer SECONDS NOTES FD            (started by that worker)

The worker is the real supervisor with a stopwatch around the calls of its ledger. The trainer
speaks the real messages through the real `Link`, and times its waits: in each report of an epoch,
and from a trial's result to the next order. Both leave their times in the folder NOTES as JSON, a
file a process.
"""

import json
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tuner.forkserver import Program
from tuner.records import Epoch, Figures
from tuner.settings import from_environment
from tuner.spec.study_ref import StudyRef
from tuner.store.ledger.ledger import Ledger
from tuner.work.stopping import StopRequest
from tuner.work.trainer import Link, StoppedError, TrialChannel
from tuner.work.worker import Orders, work

SECONDS_OF = ("claim", "identify", "record", "complete")
"""Methods of the ledger that are timed."""


def worker(home: str, study: str, seconds: str, notes: str) -> None:
    """Work on a study until it ends, or until its trainer has trained enough."""
    taken: dict[str, list[float]] = defaultdict(list)
    for name in SECONDS_OF:
        setattr(Ledger, name, _timed(getattr(Ledger, name), taken[name]))
    trainer = Program("benchmarks.fixed", "tuner trainer", ("trainer", seconds, notes))
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    settings = replace(from_environment(os.environ), home=Path(home))
    work(settings, Orders(StudyRef(study), trainer=trainer), StopRequest())
    Path(notes, f"worker-{os.getpid()}.json").write_text(json.dumps(taken))


def _timed(method: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return method(*given, **named)
        finally:
            seconds.append(time.perf_counter() - begun)

    return call


class Trainer:
    """Takes orders and reports epochs of fixed length."""

    def __init__(self, seconds: float, notes: Path, link: Link) -> None:
        self._seconds = seconds
        self._notes = notes
        self._link = link
        self._reports: list[float] = []
        self._gaps: list[float] = []
        self._spent: list[tuple[int, float]] = []
        """Epochs reported so far and CPU seconds of the supervisor, at each trial's start."""

    def serve(self) -> None:
        """Train trials until the supervisor ends the run."""
        assert self._link.next().kind == "settings"
        ended: float | None = None
        while (order := self._link.next()).kind == "train":
            if ended is not None:
                self._gaps.append(time.perf_counter() - ended)
            self._note()
            job = order.body["job"]
            try:
                self._train(self._link.begin(int(order.body["serial"])), job)
            except StoppedError:
                self._link.send("stopped", {"serial": order.body["serial"]})
            ended = time.perf_counter()
        self._note()
        body = {"reports": self._reports, "gaps": self._gaps, "spent": self._spent}
        (self._notes / f"trainer-{os.getpid()}.json").write_text(json.dumps(body))

    def _note(self) -> None:
        times = psutil.Process(os.getppid()).cpu_times()
        self._spent.append((len(self._reports), times.user + times.system))

    def _train(self, line: TrialChannel, job: dict[str, Any]) -> None:
        setup = {"device": "none", "parameter_count": 1, "initial_weights": "w"}
        line.report("setup", {"setup": {**setup, "data_fingerprint": "d", "notes": {}}})
        for number in range(1, int(job["parameters"]["epochs"]) + 1):
            line.alive()
            if self._seconds:
                time.sleep(self._seconds)
            loss = 1.0 / number + job["seed"] / 100
            last = Epoch(number, loss, loss, 0.5, loss, 0.6, 0.7, 0.6, 1e-3, self._seconds)
            begun = time.perf_counter()
            line.report("epoch", {"epoch": asdict(last)})
            self._reports.append(time.perf_counter() - begun)
        figures = asdict(Figures(number, loss, loss, 0.5, loss, 0.6, 0.7, 0.5))
        labels = np.array([0, 1], dtype=np.int64)
        scores = np.full((2, 2), -5.0, dtype=np.float32)
        scores[[0, 1], labels] = -loss
        dataset: dict[str, Any] = {"fingerprint": "d", "classes": ["no", "yes"]}
        dataset["sizes"] = {"train": 8, "val": 2, "test": 2}
        dataset["labels"] = [{"split": "val", "ids": ["a", "b"], "patients": []}]
        kept = [{"split": "val", "at": at} for at in ("best", "last")]
        body = {"best": figures, "last": figures, "predictions": kept, "dataset": dataset}
        line.report("result", body, [scores, scores, labels])


def main(arguments: list[str]) -> None:
    """Be a worker or its trainer."""
    if arguments[0] == "worker":
        worker(*arguments[1:])
    else:
        seconds, notes, descriptor = arguments[1:]
        link = Link(socket.socket(fileno=int(descriptor)))
        Trainer(float(seconds), Path(notes), link).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
