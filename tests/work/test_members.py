"""A trainer with several trials: which messages it sends when one or all of them fail."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.train.blobs import Blobs, write_blobs, write_own_blobs
from tests.train.test_abreast import job
from tuner.records import Job
from tuner.work.messages import Message, receive, send
from tuner.work.trainer import Link, Trainer

OPEN: list[socket.socket] = []
"""Channels of finished trainers: closing one would end this process, as designed."""


class Station:
    """A trainer on a thread, and the supervisor's end of its channel."""

    def __init__(self, blobs: Blobs, cache: Path, checkpoints: Path | None = None) -> None:
        self.ours, theirs = socket.socketpair()
        OPEN.append(self.ours)
        settings: dict[str, Any] = {"device": "cpu", "threads": 1, "cache": str(cache)}
        settings |= {"folders": [str(blobs.folder)], "lookup_seconds": 10.0}
        settings["checkpoints"] = None if checkpoints is None else str(checkpoints)
        self.trainer = Trainer(Link(theirs), settings)
        self._thread = threading.Thread(target=self.trainer.serve, daemon=True)

    def train(
        self, *jobs: Job, pack: int = 8, study_pack: int | str = 8, until: int | None = None
    ) -> None:
        """Order trials, all before the trainer begins; their serial numbers begin at 1."""
        for serial, one in enumerate(jobs, 1):
            plain = {**asdict(one), "parameters": dict(one.parameters), "data": dict(one.data)}
            labels = {"study": "s", "trial": str(one.seed)}
            plan = {"labels": labels, "every": 1, "keep": "auto"}
            plan |= {"expected": 0, "branches": [], "until": until}
            self.tell("train", serial, job=plain, pack=pack, study_pack=study_pack, plan=plan)
        self._thread.start()

    def tell(self, kind: str, serial: int, **body: Any) -> None:
        """Send a command for a trial."""
        send(self.ours, Message(kind, {"serial": serial, **body}))

    def hear(self, *kinds: str) -> dict[int, dict[str, Any]]:
        """Read until each trial in training has sent a message of one of these kinds."""
        found: dict[int, dict[str, Any]] = {}
        while len(found) < 2:
            message = receive(self.ours)
            assert message is not None
            if message.kind in kinds:
                found[int(message.body["serial"])] = {"kind": message.kind, **message.body}
        return found

    def next(self, kind: str) -> dict[str, Any]:
        """Read until a message of this kind has come."""
        while (message := receive(self.ours)) is not None:
            if message.kind == kind:
                return dict(message.body)
        raise AssertionError("the trainer has gone")

    def close(self) -> None:
        """Let the trainer exit."""
        send(self.ours, Message("quit"))
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    """Open a trainer on the blobs."""
    station = Station(write_blobs(tmp_path), tmp_path / "cache")
    yield station
    station.close()


def test_trials_of_one_kind_are_trained_side_by_side(station: Station) -> None:
    """Both report an epoch before either ends; both ends are reported."""
    station.train(job(0), job(1))
    assert {one["pack"] for one in station.hear("setup").values()} == {8}
    first = station.hear("epoch", "result")
    assert {one["kind"] for one in first.values()} == {"epoch"}
    assert set(station.hear("result")) == {1, 2}


def test_an_error_of_one_is_told_of_that_one(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluating the first fails; the second continues to its end."""
    from tuner.train.run import Run

    whole = Run.result

    def broken(run: Run, *given: Any) -> Any:
        if run.setup.initial_weights == weights[0]:
            raise ValueError("a shape does not fit")
        return whole(run, *given)

    weights: list[str] = []
    monkeypatch.setattr(Run, "result", broken)
    station.train(job(0), job(1))
    weights.append(station.hear("setup")[1]["setup"]["initial_weights"])
    ends = station.hear("result", "error")
    assert (ends[1]["kind"], ends[1]["of"]) == ("error", 1)
    assert ends[2]["kind"] == "result"


def test_an_error_of_a_pack_is_nobodys(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message has the number of trials: with several, the supervisor blames none."""

    def broken(runs: Sequence[Any], _alive: Any) -> Any:
        raise MemoryError(f"{len(runs)} are too many")

    monkeypatch.setattr(station.trainer._abreast, "epochs", broken)
    station.train(job(0), job(1))
    told = [(end["error"], end["text"], end["of"]) for end in station.hear("error").values()]
    assert told == [("MemoryError", "2 are too many", 2)] * 2


def test_who_is_to_leave_leaves_and_the_other_stays(station: Station) -> None:
    """Stopping or leaving one trial does not affect the other."""
    station.train(job(0, epochs=2000), job(1, epochs=30))
    station.hear("epoch")
    station.tell("leave", 1)
    ends = station.hear("left", "result")
    assert (ends[1]["kind"], ends[2]["kind"]) == ("left", "result")


def test_who_is_to_leave_in_its_last_epoch_comes_to_its_end(station: Station) -> None:
    """A peer would have nothing left to train; at a rung it is paused."""
    for serial in (1, 2):
        station.tell("leave", serial)
    station.train(job(0, epochs=1), job(1, epochs=2), until=1)
    ends = station.hear("left", "result", "paused")
    assert (ends[1]["kind"], ends[2]["kind"]) == ("result", "paused")


def test_a_stopped_trial_ends_its_training_alone(station: Station) -> None:
    """The trial stopped by the pruner is not trained further; the other continues to its end."""
    station.train(job(0, epochs=2000), job(1, epochs=30))
    station.hear("epoch")
    station.tell("stop", 1)
    ends = station.hear("stopped", "result")
    assert (ends[1]["kind"], ends[2]["kind"]) == ("stopped", "result")


@pytest.fixture
def _paying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pack faster than a trial alone."""
    monkeypatch.setattr("tuner.train.abreast._seconds", lambda _, size: 0.01 / size)


@pytest.mark.usefixtures("_paying")
def test_a_trial_of_an_own_network_leaves_its_pack_and_is_resumed_alone(tmp_path: Path) -> None:
    """It resumes from its checkpoint alone or in another pack, but not in a study without packs."""
    blobs, stored = write_own_blobs(tmp_path), tmp_path / "checkpoints"
    with closing(Station(blobs, tmp_path / "cache", stored)) as station:
        station.train(job(0, plain=False, epochs=2000), job(1, plain=False, epochs=3))
        setups = station.hear("setup")
        assert [one["pack"] for one in setups.values()] == [8, 8]
        notes = {one["setup"]["notes"]["packs"] for one in setups.values()}
        assert notes == {"by torch.func: last digits depend on their sizes"}
        station.hear("epoch")
        station.tell("leave", 1)
        ends = station.hear("left", "result")
        assert (ends[1]["kind"], ends[2]["kind"]) == ("left", "result")
    for pack, study_pack, resumes in ((1, 8, True), (8, 8, True), (1, "auto", False)):
        with closing(Station(blobs, tmp_path / "cache", stored)) as station:
            station.train(job(0, plain=False, epochs=2000), pack=pack, study_pack=study_pack)
            message = station.next("setup")
            assert (message["resumed"] > 0) == resumes
            assert message["pack"] == (8 if pack > 1 else 1)
            station.tell("leave", 1)
            station.next("left")
