"""SIGINT and SIGTERM with real training: the trial is handed over, neither lost nor repeated."""

import signal
from dataclasses import replace

import pytest

from tests.faults.proof import assert_as_undisturbed, assert_whole, events_of, kinds
from tests.faults.scenery import Scene, Sizes, epochs_of, held_by, worker_of
from tests.harness.processes import until
from tests.store.specs import Bench
from tuner.settings import Timing
from tuner.store import tables as t

PATIENT = Timing(lease=300.0, renew=1.0, grace=0.5, poll=0.15, give_back=60.0)
"""Leases too long to expire during a test."""
ADOPTED_SECONDS = 2.0
"""By the database's clock, between giving back and adoption; a promise of ours."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_trial_is_handed_over_at_the_epoch_where_it_was_left(
    scene: Scene, number: int, code: int
) -> None:
    """The epoch is finished and checkpointed, and an idle peer continues with the next at once."""
    scene.settings = replace(scene.settings, timing=PATIENT)
    # No checkpoint falls due by itself: the one to resume from is written on leaving.
    bench = scene.launch(Sizes(rates=(1e-3,), epochs=200, every=1000))
    first = scene.start()
    until(lambda: held_by(bench, worker_of(bench, first)), "the first has the trial")
    second = scene.start()
    worker_of(bench, second)
    until(lambda: len(bench.rows(t.epoch)) >= 5, "5 epochs")
    first.send_signal(number)
    assert first.wait(60) == code, scene.said()
    assert second.wait(120) == 0, scene.said()
    assert_whole(bench)
    assert_handed_over(bench)
    assert_as_undisturbed(bench, scene.blobs)


def assert_handed_over(bench: Bench) -> None:
    """Check that the peer adopted at once, and resumed right after the last stored epoch."""
    told = events_of(bench)
    turns = [one.kind for one in told if one.trial_id and one.kind != "checkpoint"]
    assert turns == [
        "created",
        "given back",
        "adopted",
        "resumed",
        "complete",
    ]
    given, adopted, resumed = (
        next(one for one in told if one.kind == kind)
        for kind in ("given back", "adopted", "resumed")
    )
    assert (adopted.happened - given.happened).total_seconds() < ADOPTED_SECONDS
    left = epochs_of(bench, given.trial_id, token=1)
    assert 5 <= len(left) < 200
    assert resumed.text == f"at epoch {len(left)}, from a checkpoint"
    assert epochs_of(bench, given.trial_id, token=2)[0] == len(left) + 1


def test_an_epoch_that_takes_too_long_is_dropped(scene: Scene) -> None:
    """After the time limit the trial is given back without the running epoch only."""
    scene.settings = replace(scene.settings, timing=replace(PATIENT, give_back=0.2))
    slow = Sizes(rates=(1e-3,), epochs=2, images=300, batch_size=2, every=1)
    bench = scene.launch(slow)
    first = scene.start()
    until(lambda: bench.rows(t.epoch), "an epoch")
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, scene.said()
    (row,) = bench.rows(t.epoch)
    assert row.epoch == 1
    assert kinds(bench)["given back"] == 1
    assert scene.start().wait(120) == 0, scene.said()
    assert_whole(bench)
    (resumed,) = [one.text for one in events_of(bench) if one.kind == "resumed"]
    assert resumed == "at epoch 1, from a checkpoint"


def test_asked_before_its_first_epoch_a_worker_leaves_the_trial_whole(scene: Scene) -> None:
    """A signal while the trainer is loading costs no attempt, and the peer begins at epoch 1."""
    scene.settings = replace(scene.settings, timing=PATIENT)
    bench = scene.launch(Sizes(rates=(1e-3,), epochs=20))
    first = scene.start()
    until(lambda: held_by(bench, worker_of(bench, first)), "the first has the trial")
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 143, scene.said()
    assert kinds(bench)["attempt failed"] == 0
    assert scene.start().wait(120) == 0, scene.said()
    assert_whole(bench)
    assert_as_undisturbed(bench, scene.blobs)
