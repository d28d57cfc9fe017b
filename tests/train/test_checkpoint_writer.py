"""The writer: the newest state first, in the background, and never delaying training."""

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.train.blobs import Blobs, blob_job, nothing
from tests.train.checkpoint_cases import MINE, OTHERS, Trained, state_text, train
from tuner.train.checkpoints.keys import root
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.space import owner
from tuner.train.checkpoints.tree import Tree
from tuner.train.checkpoints.writer import PAUSE_SECONDS, WAITING, Offer, Writer, Written
from tuner.train.state import TrainingState

LONG = 60.0
"""Seconds that a test only reaches if something hangs."""


class SlowTree(Tree):
    """A tree that writes only when allowed."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.stored: list[tuple[str, int]] = []

    def store(self, key: str, state: TrainingState, description: Description) -> int:
        """Wait for permission, then write and record the state."""
        self.begun.release()
        assert self.let.acquire(timeout=LONG)
        self.stored.append((description.labels["trial"], len(state.curve)))
        return super().store(key, state, description)


@pytest.fixture
def slow(tmp_path: Path) -> SlowTree:
    """A slow tree."""
    return SlowTree(str(tmp_path / "checkpoints"))


@pytest.fixture
def trained(blobs: Blobs) -> Trained:
    """A training of eight epochs."""
    return train(blobs.workbench(), blob_job(epochs=8))


@pytest.fixture
def writer(slow: SlowTree) -> Iterator[Writer]:
    """A writer on the slow tree, which is allowed to finish at the end."""
    writing = Writer(slow)
    yield writing
    slow.let.release(100)
    assert writing.close(LONG)


def offer(trained: Trained, epoch: int, trial: str = "1", keep: bool = False) -> Offer:
    """Return the offer of one state of one trial."""
    description = Description(trained.description.base, trained.description.parent, {**MINE})
    description = Description(description.base, description.parent, {**MINE, "trial": trial})
    return Offer(trained.path[epoch - 1], trained.states[epoch - 1], description, keep)


def test_a_newer_state_replaces_one_that_waits(
    slow: SlowTree, writer: Writer, trained: Trained
) -> None:
    """Of five states that arrive during the first write only the newest is written."""
    writer.offer(offer(trained, 1))
    assert slow.begun.acquire(timeout=LONG)
    for epoch in range(2, 7):
        writer.offer(offer(trained, epoch))
    assert not writer.flush(0.0)
    slow.let.release(10)
    assert writer.flush(LONG)
    assert slow.stored == [("1", 1), ("1", 6)]


def test_a_state_to_be_kept_is_not_replaced(
    slow: SlowTree, writer: Writer, trained: Trained
) -> None:
    """A branch point is written in spite of newer states; it still replaces an older one."""
    writer.offer(offer(trained, 1))
    assert slow.begun.acquire(timeout=LONG)
    for epoch in range(2, 7):
        writer.offer(offer(trained, epoch, keep=epoch == 4))
    slow.let.release(10)
    assert writer.flush(LONG)
    assert slow.stored == [("1", 1), ("1", 4), ("1", 6)]


@pytest.mark.parametrize("keep", [True, False])
def test_what_waits_is_bounded(
    slow: SlowTree, writer: Writer, trained: Trained, keep: bool
) -> None:
    """On a disk that does not answer the oldest are dropped, of one trial or of many."""
    writer.offer(offer(trained, 1))
    assert slow.begun.acquire(timeout=LONG)
    for epoch in range(2, 9):
        writer.offer(offer(trained, epoch, trial="1" if keep else str(epoch), keep=keep))
    slow.let.release(10)
    assert writer.flush(LONG)
    assert [epoch for _, epoch in slow.stored] == [1, *range(9 - WAITING, 9)]


def test_trials_that_are_trained_together_do_not_push_each_other_out(
    slow: SlowTree, writer: Writer, trained: Trained
) -> None:
    """All are due at the same time, and each has its place, however slow the disk."""
    writer.trials = 3 * WAITING
    writer.offer(offer(trained, 1))
    assert slow.begun.acquire(timeout=LONG)
    for member in range(3 * WAITING):
        writer.offer(offer(trained, 2, trial=f"member {member}"))
        writer.trials -= 1  # they end together, each with its last state
    slow.let.release(100)
    assert writer.flush(LONG)
    assert len(slow.stored) == 1 + 3 * WAITING


def test_one_trial_s_last_state_is_not_replaced_by_the_next_trial_s(
    slow: SlowTree, writer: Writer, trained: Trained
) -> None:
    """Each trial has its own place in the queue."""
    writer.offer(offer(trained, 1))
    assert slow.begun.acquire(timeout=LONG)
    writer.offer(offer(trained, 2))
    writer.offer(offer(trained, 1, trial=OTHERS["trial"]))
    slow.let.release(10)
    assert writer.flush(LONG)
    assert slow.stored == [("1", 1), ("1", 2), ("2", 1)]


def test_training_on_does_not_reach_a_state_that_waits(
    slow: SlowTree, writer: Writer, blobs: Blobs
) -> None:
    """The state is written as offered, even if the run has ended by then."""
    bench, job = blobs.workbench(), blob_job(epochs=6)
    run, base, path = bench.begin(job), bench.base(job), bench.path(job)
    list(islice(run.epochs(nothing), 2))
    state = run.state()
    before = state_text(state)
    writer.offer(Offer(path[1], state, Description(base, root(base), MINE)))
    assert slow.begun.acquire(timeout=LONG)
    list(run.epochs(nothing))
    slow.let.release(1)
    assert writer.flush(LONG)
    stored = slow.longest(path)
    assert stored is not None
    assert state_text(stored.state) == before != state_text(run.state())


def test_a_written_state_is_let_go(slow: SlowTree, writer: Writer, blobs: Blobs) -> None:
    """An idle writer keeps no state in memory."""
    trained = train(blobs.workbench(), blob_job(epochs=1))
    state = weakref.ref(trained.states[0])
    writer.offer(offer(trained, 1))
    slow.let.release(1)
    assert writer.flush(LONG)
    del trained
    gc.collect()
    assert state() is None


def test_what_was_written_is_told(tmp_path: Path, trained: Trained) -> None:
    """Key, epoch and size of each checkpoint are reported once it is complete."""
    tree, told = Tree(str(tmp_path)), list[Written]()
    writer = Writer(tree, told.append)
    writer.offer(offer(trained, 3))
    assert writer.flush(LONG)
    assert writer.close(LONG)
    sizes = [file.size for file in tree._place.files("parts")]
    assert told == [Written(trained.path[2], 3, sum(sizes), owner(MINE))]
    writer.offer(offer(trained, 4))
    assert [written.epoch for written in told] == [3]


def test_a_failure_stops_checkpoints_for_a_while_and_is_told_once(
    tmp_path: Path, trained: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    """An invalid location gives one warning and no retries for a while; fixed, it is used again."""
    place = tmp_path / "checkpoints"
    place.write_text("a file where a folder is expected")
    tree, now = Tree(str(place)), [1000.0]
    writer = Writer(tree, clock=lambda: now[0])

    def paused_after(seconds: float, epoch: int) -> bool:
        now[0] = 1000.0 + seconds
        writer.offer(offer(trained, epoch))
        assert writer.flush(LONG)
        return writer.paused

    with caplog.at_level(logging.WARNING, "tuner"):
        for seconds, epoch in ((0, 1), (1, 2), (PAUSE_SECONDS + 1, 3)):
            assert paused_after(seconds, epoch)
        assert caplog.text.count("No checkpoints are written") == 1
        assert str(place) in caplog.text
        place.unlink()
        assert paused_after(PAUSE_SECONDS + 2, 4)
        assert tree.longest(trained.path) is None
        assert not paused_after(2 * PAUSE_SECONDS + 3, 5)
        assert caplog.text.count("are written again") == 1
    stored = tree.longest(trained.path)
    assert stored is not None
    assert stored.epoch == 5
    assert writer.close(LONG)
