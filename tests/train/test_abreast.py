"""Runs abreast: each trains as alone, in every bit, whoever it shares its epochs with."""

import gc
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psutil
import pytest

from tests.train.blobs import untimed, write_blobs
from tuner.records import Job, Value
from tuner.train import abreast as module
from tuner.train.abreast import Abreast, shape
from tuner.train.alike import kind
from tuner.train.run import Run
from tuner.train.workbench import Workbench

Curve = list[tuple[object, ...]]
SETTINGS: list[dict[str, Any]] = [
    {"lr": 1e-2, "scheduler": "cosine"},
    {"lr": 1e-3, "optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    {"lr": 1e-2, "loss": "focal", "focal_gamma": 2.0, "class_weights": "balanced"},
    {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 0.1, "label_smoothing": 0.1},
    {"lr": 1e-2, "augment": 0.5, "scheduler": "step", "step_size": 2, "decay": 0.5},
    {"lr": 0.5, "scheduler": "plateau", "plateau_patience": 1, "patience": 1, "epochs": 30},
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Open a workbench on the blobs."""
    return write_blobs(tmp_path_factory.mktemp("abreast")).workbench()


def job(seed: int = 0, data: Mapping[str, Value] | None = None, **chosen: Any) -> Job:
    """Return a job on the blobs whose network is a plain stack."""
    usual: dict[str, Value] = {"plain": True, "hidden": 8, "epochs": 4, "batch_norm": True}
    data = {"train_images": 97, "classes": 2, "contrast": 40.0, "floats": False, **(data or {})}
    return Job("blobs", {**usual, **chosen}, {**data, "each": 0}, seed, "val_loss")


def trained(runs: list[Run]) -> list[Curve]:
    """Train runs abreast, each to its own end, and return their curves."""
    abreast = Abreast()
    while left := [run for run in runs if not run.ended]:
        for _ in abreast.epochs(left, lambda: None):
            pass
    return [[untimed(epoch) for epoch in run.curve] for run in runs]


def alone(bench: Workbench, one: Job) -> tuple[Curve, Run]:
    """Train a job by itself."""
    run = bench.begin(one)
    return [untimed(epoch) for epoch in run.epochs(lambda: None)], run


def test_a_run_beside_others_is_the_run_alone(bench: Workbench) -> None:
    """Losses, optimizers, schedules, patience, augmentation and length are each one's own."""
    jobs = [job(place, **chosen) for place, chosen in enumerate(SETTINGS)]
    runs = [bench.begin(one) for one in jobs]
    assert len({shape(run) for run in runs}) == 1
    curves = trained(runs)
    for one, run, curve in zip(jobs, runs, curves, strict=True):
        expected, single = alone(bench, one)
        assert curve == expected
        for mine, theirs in zip(run.result().predictions, single.result().predictions, strict=True):
            assert (mine.split, mine.at) == (theirs.split, theirs.at)
            assert (mine.log_probabilities == theirs.log_probabilities).all()
    assert len(curves[-1]) == 2, "patience ends one of them before the others"


def test_runs_of_other_shapes_take_turns(bench: Workbench) -> None:
    """Width, batches, data, and a network that is no stack: all are trained, packed or not."""
    jobs = [
        job(),
        job(1),
        job(hidden=4),
        job(batch_size=16),
        job(plain=False),
        job(data={"train_images": 60}),
    ]
    runs = [bench.begin(one) for one in jobs]
    assert len({shape(run) or run for run in runs}) == 5
    assert trained(runs) == [alone(bench, one)[0] for one in jobs]


def test_a_run_joins_and_leaves_between_epochs(bench: Workbench) -> None:
    """One that has trained alone, or comes from a state, goes on with others, and alone again."""
    first, second = bench.begin(job(0)), bench.begin(job(1))
    abreast = Abreast()
    for _ in first.epochs(lambda: None):
        break
    for _ in abreast.epochs([first, second], lambda: None):
        pass
    moved = bench.begin(job(0))
    moved.restore(first.state())
    for _ in abreast.epochs([second, moved], lambda: None):
        pass
    expected, _ = alone(bench, job(0))
    assert [untimed(epoch) for epoch in moved.curve] == expected[:3]
    assert [untimed(epoch) for epoch in first.epochs(lambda: None)] == expected[2:]


def test_time_is_counted_once(bench: Workbench) -> None:
    """What a pack's epoch takes is shared by its members."""
    runs = [bench.begin(job(seed)) for seed in range(4)]
    epochs = [epoch for _, epoch in Abreast().epochs(runs, lambda: None)]
    shares = {round(epoch.seconds - epoch.val_seconds, 9) for epoch in epochs if epoch.val_seconds}
    assert len(shares) == 1


def test_what_is_asked_for_is_taken_and_auto_measures(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest pack that was tried, where each size was worth the next; 1 for no stack."""
    run, other = bench.begin(job()), bench.begin(job(plain=False))
    assert Abreast().most(run, 7) == 7
    assert Abreast().most(other, 7) == Abreast().most(other, "auto") == 1
    for seconds, best in (
        ({1: 1.0, 4: 0.9, 16: 0.1}, 1),
        ({1: 1.0, 4: 0.5, 16: 0.45}, 4),
        ({1: 1.0, 4: 0.5, 16: 0.2}, 16),
    ):
        monkeypatch.setattr(module, "_seconds", lambda _, size, took=seconds: took[size])
        assert Abreast().most(run, "auto") == best


def test_measuring_changes_nothing(bench: Workbench) -> None:
    """Packs are tried on copies; the run trains as it would have."""
    run = bench.begin(job())
    assert module._seconds(run, 3) > 0
    assert [untimed(epoch) for epoch in run.epochs(lambda: None)] == alone(bench, job())[0]


def test_kinds_are_of_what_changes_no_shape() -> None:
    """Numbers and seeds may differ; shapes, data and the number of outputs may not."""
    usual = kind(job())
    alike = [job(seed=3), *(job(**chosen) for chosen in SETTINGS), job(dropout=0.5)]
    others = [
        job(hidden=9),
        job(batch_size=64),
        job(loss="bce"),
        job(data={"train_images": 60}),
        replace(job(), objective="digits"),
    ]
    assert all(kind(one) == usual for one in alike)
    assert all(kind(one) != usual for one in others)


def test_a_limit_of_memory_is_heeded(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that would not fit is not tried, however fast it might be."""
    seconds = {1: 1.0, 4: 0.5, 16: 0.1}
    monkeypatch.setattr(module, "_seconds", lambda _, size: seconds[size])
    run = bench.begin(job())
    here = psutil.Process().memory_info().rss
    assert Abreast(here + module._bytes(run, 4) + (64 << 20)).most(run, "auto") == 16
    monkeypatch.setattr(module, "_bytes", lambda _, size: size << 30)
    assert Abreast(here + (8 << 30)).most(run, "auto") == 4
    assert Abreast(here + (1 << 30)).most(run, "auto") == 1


def test_who_leaves_takes_the_memory_of_a_pack_along(bench: Workbench) -> None:
    """Without the collector of cycles, which may not come by for hours in a trainer."""
    gc.disable()
    try:
        abreast, runs = Abreast(), [bench.begin(job(seed)) for seed in range(3)]
        deque(abreast.epochs(runs, lambda: None), maxlen=0)
        pack = weakref.ref(runs[0].training.learner.pack)  # type: ignore[attr-defined]
        assert pack() is not None
        deque(abreast.epochs(runs[:2], lambda: None), maxlen=0)
        del runs[2]
        assert pack() is None
        pack = weakref.ref(runs[0].training.learner.pack)  # type: ignore[attr-defined]
        deque(abreast.epochs([], lambda: None), maxlen=0)
        runs.clear()
        assert pack() is None
    finally:
        gc.enable()
