"""A checkpoint location that refuses, hangs, or is shared costs checkpoints, never a training."""

import logging
import socket
import threading
from pathlib import Path

import pytest

from tests.store.specs import SETUP, Bench, claim_trial, make_epoch
from tests.store.test_promotion_claims import small
from tests.train.blobs import Blobs, blob_job, nothing
from tests.train.checkpoint_cases import MINE, OTHERS, train
from tuner.errors import MachineError
from tuner.store.checkpoints import labels
from tuner.store.database import Database
from tuner.text import masked
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.saver import CheckpointPlan, Saver
from tuner.train.checkpoints.timely import Lookups, opened
from tuner.train.checkpoints.tree import Tree
from tuner.work.housekeeping import remove, survey

ADDRESSES = {
    "s3://AKIA:hunter2@bucket/a": "s3://***@bucket/a",
    "ftp://me:hun/ter2@x@host/a": "ftp://***@host/a",
    "s3://bucket/a@b": "s3://bucket/a@b",
    "https://host/a?sig=hunter2&part=1": "https://host/a?sig=***&part=1",
    "https://host/a?x=1&secret_key=hunter2": "https://host/a?x=1&secret_key=***",
    "/data/a@b": "/data/a@b",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_credentials_are_masked(address: str) -> None:
    """User, password and signatures are masked in an address; nothing else is."""
    assert masked(address) == ADDRESSES[address]
    assert masked(f"location = '{address}' # why") == f"location = '{ADDRESSES[address]}' # why"


def test_a_place_that_refuses_to_be_opened_is_an_error_of_ours() -> None:
    """Any exception on connecting becomes our error, without the password that it may contain."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(MachineError, match="cannot be opened") as caught:
        Tree(f"ftp://me:hunter2@127.0.0.1:{port}/kept")
    assert "hunter2" not in str(caught.value)


def test_a_place_that_never_answers_is_given_up() -> None:
    """Opening a server that accepts and never answers times out, with signs of life meanwhile."""
    signs: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = f"ftp://127.0.0.1:{silent.getsockname()[1]}/kept"
        with pytest.raises(MachineError, match="cannot be opened: no answer within 1 s"):
            opened(location, 1.0, lambda: signs.append(1))
    assert signs


class Hanging(Tree):
    """A tree whose location stops answering."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.go = threading.Event()
        self.asked = 0

    def known(self, keys: object) -> set[str]:
        """Wait until the test releases it."""
        self.asked += 1
        self.go.wait()
        return super().known(keys)  # type: ignore[arg-type]


def test_a_place_that_stops_to_answer_is_not_asked_again_until_it_does(
    tmp_path: Path, blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    """The first look-up times out and is reported; the next ones cost no time while it hangs."""
    bench, job = blobs.workbench(), blob_job()
    trained = train(bench, job, MINE)
    tree = Hanging(str(tmp_path / "kept"))
    trained.store(tree, 2)
    lookups = Lookups(tree, seconds=0.5)
    with caplog.at_level(logging.WARNING):
        assert lookups.longest(trained.path) is None
        assert lookups.longest(trained.path) is None
    assert tree.asked == 1
    assert caplog.text.count("Training continues without them") == 1
    tree.go.set()
    patient = Lookups(tree, seconds=60)
    found = patient.longest(trained.path)
    assert found is not None
    assert found.epoch == 2


def test_a_state_that_another_trial_stored_since_is_not_removed(
    tmp_path: Path, blobs: Blobs
) -> None:
    """Two databases may train the same path at one location: each removes only its own states."""
    bench, job = blobs.workbench(), blob_job(epochs=3)
    place = str(tmp_path / "kept")
    saver = Saver(place)
    run = bench.begin(job)
    keeping = saver.begin(bench, run, job, CheckpointPlan(labels=MINE, every=1))
    epochs = run.epochs(nothing)
    next(epochs)
    keeping.after(run)
    keeping.settle(run, 60)
    first = bench.path(job)[0]
    state, base = run.state(), bench.base(job)
    Tree(place).store(first, state, Description(base, "", OTHERS))
    next(epochs)
    keeping.after(run)
    saver.close(60)
    entries = {entry.epoch: dict(entry.labels) for entry in Tree(place).listing()}
    assert entries == {1: OTHERS, 2: MINE}


def test_tidying_leaves_another_databases_checkpoints(
    tmp_path: Path, blobs: Blobs, database: Database
) -> None:
    """They may belong to a running trial of that database; no limit applies to them."""
    trained = train(blobs.workbench(), blob_job(), MINE)
    tree = Tree(str(tmp_path / "kept"))
    trained.store(tree, 1, 3)
    room = survey(tree, database, limit=0)
    assert room.removable == []
    assert {entry.epoch for entry in room.foreign} == {1, 3}


def test_a_state_that_was_promised_after_the_survey_stays(
    tmp_path: Path, blobs: Blobs, database: Database
) -> None:
    """A trial was paused on a state that an ended one had left."""
    bench = Bench.launch(database, small())
    worker, peer = bench.worker(), bench.worker()
    ended, pausing = claim_trial(worker), claim_trial(peer)
    trained = train(blobs.workbench(), blob_job(), labels(bench.study, ended.number))
    tree = Tree(str(tmp_path / "kept"))
    trained.store(tree, 1, 3)
    keys = {entry.epoch: entry.key for entry in tree.listing()}
    worker.record(ended, [make_epoch(1)])
    worker.prune(ended, SETUP, "diverged at epoch 1")
    room = survey(tree, database, limit=0)
    assert {entry.epoch for entry in room.removable} == {1, 3}
    peer.record(pausing, [make_epoch(1)])
    peer.pause(pausing, SETUP, keys[1])
    assert [entry.epoch for entry in remove(tree, database, room.removable)] == [3]
    assert tree.known(keys.values()) == {keys[1]}


@pytest.mark.parametrize(("seconds", "stored"), [(0.0, [1, 2]), (1e6, [1])])
def test_states_that_take_long_to_write_are_written_less_often(
    tmp_path: Path,
    blobs: Blobs,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    stored: list[int],
) -> None:
    """Without an interval in the study, writing takes a small share of the processor's time."""
    monkeypatch.setattr("tuner.train.checkpoints.saver.AUTO_SECONDS", 0.0)
    bench, job = blobs.workbench(), blob_job(epochs=3)
    saver = Saver(str(tmp_path / "kept"))
    run = bench.begin(job)
    keeping = saver.begin(bench, run, job, CheckpointPlan(labels=MINE))
    epochs = run.epochs(nothing)
    written: list[int] = []
    for _ in range(2):
        next(epochs)
        keeping.after(run)
        assert saver.writer.flush(60)
        written = sorted({*written, *(entry.epoch for entry in saver.tree.listing())})
        saver.writer.processor_seconds = seconds
    saver.close(60)
    assert written == stored
