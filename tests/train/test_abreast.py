"""Packs: each run trains as if alone, bit for bit, whatever it is packed with."""

import gc
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil
import pytest

from tests.train.blobs import untimed, write_blobs, write_own_blobs
from tuner.records import Epoch, Job, Value
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
    """Train runs together, each to its own end, and return their curves."""
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
    """Losses, optimizers, schedules, patience, augmentation and length may differ in a pack."""
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
    """Width, batches, data and networks that are not a stack may differ: all are trained."""
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


def test_losses_of_other_targets_are_no_pack(bench: Workbench) -> None:
    """Plain bce takes fractions, its weighted forms classes: they are packed separately."""
    shaped: list[dict[str, Any]] = [{}, {"class_weights": "balanced"}, {"label_smoothing": 0.1}]
    jobs = [job(seed, loss="bce", **chosen) for seed, chosen in enumerate([*shaped, *shaped])]
    runs = [bench.begin(one) for one in jobs]
    assert len({shape(run) for run in runs}) == 2
    assert trained(runs) == [alone(bench, one)[0] for one in jobs]


def test_a_run_joins_and_leaves_between_epochs(bench: Workbench) -> None:
    """A run may join others after training alone or a restore, and leave them again."""
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
    """The time of a pack's epoch is divided among its members."""
    runs = [bench.begin(job(seed)) for seed in range(4)]
    epochs = [epoch for _, epoch in Abreast().epochs(runs, lambda: None)]
    shares = {round(epoch.seconds - epoch.val_seconds, 9) for epoch in epochs if epoch.val_seconds}
    assert len(shares) == 1


def test_what_is_asked_for_is_taken_and_auto_measures(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "auto" goes to the next size as long as it pays off; 1 for networks that are no stack."""
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
    """Runs of a kind may differ in numbers and seeds, not in shapes, data and outputs."""
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


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Open a workbench on the blobs, with the objective's own network."""
    return write_own_blobs(tmp_path_factory.mktemp("own")).workbench()


@pytest.fixture
def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pack faster than a trial alone."""
    monkeypatch.setattr(module, "_seconds", lambda _, size: 0.01 / size)


def begun(own: Workbench, abreast: Abreast, *jobs: Job) -> list[Run]:
    """Begin jobs like a trainer whose study asks for packs of 8."""
    runs = [own.begin(one) for one in jobs]
    for run in runs:
        abreast.mark(run, 8)
    return runs


def assert_close(ours: Sequence[Epoch], theirs: Sequence[Epoch]) -> None:
    """Check that curves agree to rounding."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.lr == other.lr
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-3)
        assert one.val_loss == pytest.approx(other.val_loss, abs=1e-3)


@pytest.mark.usefixtures("paying")
def test_own_networks_train_as_one_program(own: Workbench) -> None:
    """Five seeds and settings agree with the same trials alone; a trial that ends early leaves."""
    abreast = Abreast()
    chosen = [{**one, "plain": False} for one in SETTINGS[:5]]
    chosen[1]["epochs"] = 2
    jobs = [job(place, **one) for place, one in enumerate(chosen)]
    runs = begun(own, abreast, *jobs)
    assert len({shape(run) for run in runs}) == 1
    assert [abreast.most(run, 8) for run in runs] == [8] * 5
    deque(abreast.epochs(runs, lambda: None), maxlen=0)
    assert len({id(run.training.learner.pack) for run in runs}) == 1  # type: ignore[attr-defined]
    while left := [run for run in runs if not run.ended]:
        deque(abreast.epochs(left, lambda: None), maxlen=0)
    for one, run in zip(jobs, runs, strict=True):
        single = own.begin(one)
        deque(single.epochs(lambda: None), maxlen=0)
        assert_close(run.curve, single.curve)
        assert run.result().best.val_loss == pytest.approx(single.result().best.val_loss, abs=1e-3)


@pytest.mark.usefixtures("paying")
def test_a_run_of_a_pack_goes_on_alone(own: Workbench) -> None:
    """Restored from the pack's state, or leaving it, a run gives the results of the trial alone."""
    abreast = Abreast()
    first, second = begun(own, abreast, job(0, plain=False), job(1, plain=False))
    for _ in range(2):
        deque(abreast.epochs([first, second], lambda: None), maxlen=0)
    (resumed,) = begun(own, abreast, job(0, plain=False))
    resumed.restore(first.state())
    before = first.state()
    deque(abreast.epochs([second], lambda: None), maxlen=0)
    for run in (first, resumed):
        while not run.ended:
            deque(abreast.epochs([run], lambda: None), maxlen=0)
    assert [untimed(one) for one in first.curve] == [untimed(one) for one in resumed.curve]
    assert before.curve == first.curve[:2]
    single = own.begin(job(0, plain=False))
    deque(single.epochs(lambda: None), maxlen=0)
    assert_close(first.curve, single.curve)


def test_only_a_number_marks_runs_for_packs_by_torch_func(own: Workbench, bench: Workbench) -> None:
    """Marked runs have separate checkpoint keys; "auto" and other networks keep theirs."""
    abreast = Abreast()
    own_job, odd_job = job(plain=False), job(plain=True)
    asked: list[int | str] = ["auto", 1, 2, 8]
    marked = []
    for setting in asked:
        run = own.begin(own_job)
        abreast.mark(run, setting)
        marked.append(run.together)
        assert (shape(run) is not None) == run.together
    assert marked == [False, False, True, True]
    keys = [set(own.path(own_job, together=one)) for one in (False, True)]
    assert keys[0].isdisjoint(keys[1])
    odd, stack = own.begin(odd_job), bench.begin(job())
    for run in (odd, stack):
        abreast.mark(run, 8)
        assert not run.together
    assert abreast.most(odd, 8) == 1
    assert "depends on values of the data" in abreast.alone(odd, 8)
    assert "set [search] pack to a number" in abreast.alone(own.begin(own_job), "auto")


def test_a_pack_by_torch_func_has_to_pay(own: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its steps are slower, or do not fit, trials take turns, each as if alone."""
    run = begun(own, Abreast(), job(plain=False))[0]
    for seconds, memory, most, why in (
        ({1: 0.01, 8: 0.009}, None, 1, "takes 10 ms alone, 9 ms in a pack of 8"),
        ({1: 0.01, 8: 0.005}, None, 8, ""),
        ({1: 0.01, 8: 0.005}, 1, 1, "does not fit into the memory"),
        ({1: 1.0, 8: 0.1}, None, 1, "only steps of less than 20 ms"),
    ):
        monkeypatch.setattr(module, "_seconds", lambda _, size, took=seconds: took[size])
        abreast = Abreast(memory)
        assert abreast.most(run, 8) == most
        assert why in abreast.alone(run, 8)
    monkeypatch.setattr(module, "_seconds", lambda _, __: 0.01)
    abreast = Abreast()
    runs = begun(own, abreast, job(0, plain=False), job(1, plain=False))
    while left := [one for one in runs if not one.ended]:
        deque(abreast.epochs(left, lambda: None), maxlen=0)
    for seed, one in enumerate(runs):
        assert [untimed(epoch) for epoch in one.curve] == alone(own, job(seed, plain=False))[0]


def test_measuring_a_pack_by_torch_func_changes_nothing(own: Workbench) -> None:
    """It is tried and measured on copies."""
    (run,) = begun(own, Abreast(), job(plain=False))
    assert module._seconds(run, 1) > 0
    assert module._seconds(run, 3) > 0
    assert module._bytes(run, 3) > 0
    single = [untimed(epoch) for epoch in run.epochs(lambda: None)]
    assert single == alone(own, job(plain=False))[0]


@pytest.mark.usefixtures("paying")
def test_who_leaves_takes_the_memory_of_one_program_along(own: Workbench) -> None:
    """Like a pack of stacks, it is freed without the cycle collector."""
    gc.disable()
    try:
        abreast = Abreast()
        runs = begun(own, abreast, *(job(seed, plain=False) for seed in range(2)))
        deque(abreast.epochs(runs, lambda: None), maxlen=0)
        pack = weakref.ref(runs[0].training.learner.pack)  # type: ignore[attr-defined]
        assert pack() is not None
        deque(abreast.epochs([], lambda: None), maxlen=0)
        runs.clear()
        assert pack() is None
    finally:
        gc.enable()


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
    """It is freed without the cycle collector, which may not run for hours in a trainer."""
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
