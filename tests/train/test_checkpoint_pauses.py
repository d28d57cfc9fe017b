"""Pausing trials: whose checkpoints stay, and that only written ones are promised."""

from itertools import islice
from pathlib import Path

from tests.train.blobs import Blobs, blob_job, nothing
from tests.train.checkpoint_cases import MINE, OTHERS
from tuner.train.checkpoints.saver import CheckpointPlan, Saver
from tuner.train.checkpoints.tree import Tree


def test_a_trial_that_ends_leaves_what_an_equal_one_is_paused_at(
    tmp_path: Path, blobs: Blobs
) -> None:
    """Also with keep = "none": both stored the same state, and one still needs it."""
    bench, job = blobs.workbench(), blob_job(epochs=3)
    place = str(tmp_path / "kept")
    for labels in (MINE, OTHERS):
        saver = Saver(place)
        run = bench.begin(job)
        plan = CheckpointPlan(labels=labels, every=1, keep="none", until=1, pauses=True)
        keeping = saver.begin(bench, run, job, plan)
        for _ in islice(run.epochs(nothing), 1 - keeping.resumed):
            keeping.after(run)
        assert keeping.pause(run, 60) == bench.path(job)[0]
        saver.close(60)
    # The trial whose labels the state has continues and ends.
    saver = Saver(place)
    run = bench.begin(job)
    plan = CheckpointPlan(labels=OTHERS, every=1, keep="none", pauses=True)
    keeping = saver.begin(bench, run, job, plan)
    assert keeping.resumed == 1
    for _ in run.epochs(nothing):
        keeping.after(run)
    keeping.end(run)
    saver.close(60)
    assert [entry.epoch for entry in Tree(place).listing()] == [1]


def test_an_equal_trial_that_passes_by_leaves_it_too(tmp_path: Path, blobs: Blobs) -> None:
    """A trial is paused by the budget where an equal one, which began earlier, stores its state."""
    bench, job = blobs.workbench(), blob_job(epochs=4)
    place = str(tmp_path / "kept")
    passing, pausing = Saver(place), Saver(place)
    both = [bench.begin(job) for _ in range(2)]
    plan = CheckpointPlan(labels=OTHERS, every=1, keep="none", pauses=True)
    passes = passing.begin(bench, both[0], job, plan)
    plan = CheckpointPlan(labels=MINE, every=1, keep="none", until=2, pauses=True)
    pauses = pausing.begin(bench, both[1], job, plan)
    for _ in islice(both[1].epochs(nothing), 2):
        pauses.after(both[1])
    assert pauses.pause(both[1], 60) == bench.path(job)[1]
    pausing.close(60)
    for _ in both[0].epochs(nothing):
        passes.after(both[0])
        passing.writer.flush(60)  # so that none is replaced before it is written
    passes.end(both[0])
    passing.close(60)
    left = Tree(place).listing()
    assert [(entry.epoch, entry.labels) for entry in left] == [(2, MINE)]


def test_no_checkpoint_is_promised_that_could_not_be_written(tmp_path: Path, blobs: Blobs) -> None:
    """The trial pauses anyway, without a checkpoint; an existing one counts."""
    bench, job = blobs.workbench(), blob_job(epochs=3)
    place = tmp_path / "kept"
    plan = CheckpointPlan(labels=MINE, every=1, until=1, pauses=True)
    for is_writable in (False, True, True):
        saver = Saver(str(place))
        run = bench.begin(job)
        keeping = saver.begin(bench, run, job, plan)
        if not is_writable:
            # A file in place of the folder: nothing can be written, as root or not.
            place.write_text("")
        for _ in islice(run.epochs(nothing), 1 - keeping.resumed):
            keeping.after(run)
        promised = keeping.pause(run, 60)
        saver.close(60)
        assert promised == (bench.path(job)[0] if is_writable else "")
        if not is_writable:
            place.unlink()
