"""Resuming equals never having stopped, bit for bit, through files on a disk."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.train.blobs import Blobs, blob_job, nothing, write_blobs
from tests.train.checkpoint_cases import MINE, OTHERS, Trained, outcome, state_text, train
from tests.train.checkpoint_process import Resumer
from tuner.records import METRICS, Job
from tuner.spec.parameters import SHARED
from tuner.train.checkpoints.fit import UnfitError
from tuner.train.checkpoints.keys import root
from tuner.train.checkpoints.manifest import Description
from tuner.train.checkpoints.resume import resume
from tuner.train.checkpoints.tree import Tree
from tuner.train.objective import find
from tuner.train.precision import supports_bf16
from tuner.train.workbench import Workbench

NOISY = {"contrast": 3.0}
"""Hardly visible blobs: the best epoch is an early one, and patience runs out."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    """The blobs objective, one for all examples of this module."""
    return write_blobs(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def resumer(shared: Blobs) -> Iterator[Resumer]:
    """Another process, started once: other tests show that earlier runs do not matter."""
    process = Resumer([shared.folder], shared.cache)
    yield process
    process.close()


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Draw a job of any loss, optimizer, schedule, metric, length and patience."""
    optimizer = draw(st.sampled_from(SHARED["optimizer"].choices))
    return blob_job(
        seed=draw(st.integers(0, 3)),
        metric=draw(st.sampled_from(sorted(METRICS))),
        data=draw(st.sampled_from([{}, NOISY])),
        loss=draw(st.sampled_from(SHARED["loss"].choices)),
        optimizer=optimizer,
        scheduler=draw(st.sampled_from(SHARED["scheduler"].choices)),
        step_size=draw(st.integers(1, 3)),
        decay=draw(st.sampled_from([0.0, 0.5])),
        warmup_epochs=draw(st.sampled_from([0, 0, 2])),
        plateau_patience=draw(st.integers(1, 2)),
        label_smoothing=draw(st.sampled_from([0.0, 0.1])),
        class_weights=draw(st.sampled_from(SHARED["class_weights"].choices)),
        augment=draw(st.sampled_from([0.0, 0.0, 1.0])),
        momentum=draw(st.sampled_from([0.5, 0.9])),
        nesterov=draw(st.booleans()),
        weight_decay=draw(st.sampled_from([0.0, 0.01])),
        batch_size=draw(st.sampled_from([8, 32])),
        batch_norm=draw(st.booleans()),
        lr=draw(st.sampled_from([1e-3, 0.05, 50.0])),
        epochs=draw(st.integers(1, 6)),
        patience=draw(st.integers(0, 2)),
    )


def check_every_stop(bench: Workbench, resumer: Resumer, job: Job) -> None:
    """Stop a job after each of its epochs, continue in the other process, and compare all bits."""
    run = bench.begin(job)
    trained = train(bench, job)
    for _ in run.epochs(nothing):
        pass
    whole = outcome(run)
    with tempfile.TemporaryDirectory() as place:
        for epoch in range(1, len(trained.states) + 1):
            location = str(Path(place) / str(epoch))
            trained.store(Tree(location), epoch)
            assert resumer.finish(job, location) == (epoch, whole)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(job=jobs())
def test_a_training_stopped_after_any_epoch_is_the_training_that_never_stopped(
    shared: Blobs, resumer: Resumer, job: Job
) -> None:
    """Weights, best weights, curve, predictions and end are equal for random settings and stops."""
    check_every_stop(shared.workbench(), resumer, job)


@pytest.mark.parametrize("scheduler", SHARED["scheduler"].choices)
@pytest.mark.parametrize("optimizer", SHARED["optimizer"].choices)
def test_every_optimizer_resumes_under_every_schedule(
    shared: Blobs, resumer: Resumer, optimizer: str, scheduler: str
) -> None:
    """Every pair is tested."""
    job = blob_job(epochs=3, optimizer=optimizer, scheduler=scheduler, step_size=1)
    check_every_stop(shared.workbench(), resumer, job)


def chest_models() -> tuple[str, ...]:
    """Return the models that the shipped objective offers."""
    return find("chest_xray", []).objective.declarations().parameters["model"].choices


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", chest_models())
def test_every_model_resumes(shared: Blobs, resumer: Resumer, model: str, precision: str) -> None:
    """The shipped networks, batch norm and dropout included, in both precisions."""
    if precision == "bf16" and not supports_bf16(torch.device("cpu")):
        pytest.skip("this CPU has no bfloat16 arithmetic")
    declared = find("chest_xray", []).objective.declarations()
    parameters = {name: one.default for name, one in declared.parameters.items()}
    parameters |= {"model": model, "epochs": 2, "width": 8, "precision": precision}
    data = {name: one.default for name, one in declared.data.items()}
    data |= {"image_size": 32, "train_images": 12, "val_images": 8, "test_images": 8}
    check_every_stop(shared.workbench(), resumer, Job("chest_xray", parameters, data, seed=1))


def test_a_fresh_process_resumes_what_another_left(shared: Blobs, tmp_path: Path) -> None:
    """A new process without earlier trainings resumes with the same bits."""
    bench, job = shared.workbench(), blob_job(epochs=4, scheduler="cosine")
    trained = train(bench, job)
    trained.store(Tree(str(tmp_path)), 2)
    run = bench.begin(job)
    list(run.epochs(nothing))
    fresh = Resumer([shared.folder], shared.cache)
    assert fresh.finish(job, str(tmp_path)) == (2, outcome(run))
    fresh.close()


@pytest.mark.parametrize(
    ("scheduler", "trained_epochs"),
    [("step", 6), ("exponential", 6), ("constant", 6), ("cosine", 12)],
)
def test_a_sweep_over_epochs_trains_each_epoch_once(
    blobs: Blobs, tmp_path: Path, scheduler: str, trained_epochs: int
) -> None:
    """2, 4 and 6 epochs cost 6 if rates agree, all 12 under cosine; results are the same."""
    tree, bench, cost = Tree(str(tmp_path / "tree")), blobs.workbench(), 0
    for number, epochs in enumerate((2, 4, 6)):
        job = blob_job(scheduler=scheduler, step_size=3, epochs=epochs)
        labels, path = {"trial": str(number)}, bench.path(job)
        run = bench.begin(job)
        began = resume(run, tree, path, labels)
        cost += sum(1 for _ in run.epochs(nothing))
        assert [epoch.reused for epoch in run.curve] == [n < began for n in range(epochs)]
        tree.store(
            path[-1], run.state(), Description(bench.base(job), root(bench.base(job)), labels)
        )
        alone = bench.begin(job)
        list(alone.epochs(nothing))
        assert outcome(run) == outcome(alone)
    assert cost == trained_epochs


@pytest.mark.parametrize(
    "other",
    [
        blob_job(seed=1),
        blob_job(data=NOISY),
        blob_job(metric="val_acc"),
        blob_job(hidden=9),
        blob_job(optimizer="sgd"),
        blob_job(batch_size=16),
        blob_job(lr=0.5),
    ],
)
def test_nothing_is_taken_from_another_training(blobs: Blobs, tmp_path: Path, other: Job) -> None:
    """If seed, data, metric, model, optimizer, batches or rates differ, training starts again."""
    bench, tree = blobs.workbench(), Tree(str(tmp_path / "tree"))
    train(bench, other).store(tree, 1, 2, 3)
    assert resume(bench.begin(blob_job()), tree, bench.path(blob_job()), MINE) == 0


def overfitting(patience: int = 0) -> Job:
    """Return a job with an early best epoch that its patience, if any, ends."""
    return blob_job(epochs=12, hidden=64, lr=0.05, data=NOISY, patience=patience)


def test_a_training_that_ends_early_takes_nothing_beyond_its_end(
    blobs: Blobs, tmp_path: Path
) -> None:
    """Patience is in no key: epochs that an equal but more patient trial trained are skipped."""
    bench, tree = blobs.workbench(), Tree(str(tmp_path / "tree"))
    alone = bench.begin(overfitting(patience=2))
    end = sum(1 for _ in alone.epochs(nothing))
    assert 3 <= end < 12
    train(bench, overfitting(), OTHERS).store(tree, 1, end - 1, end + 1, 12)
    run = bench.begin(overfitting(patience=2))
    assert resume(run, tree, bench.path(overfitting(patience=2)), MINE) == end - 1
    assert len(list(run.epochs(nothing))) == 1
    assert outcome(run) == outcome(alone)


def test_reused_epochs_say_so_and_keep_their_seconds(blobs: Blobs, tmp_path: Path) -> None:
    """A peer's epochs are marked as reused, also after a resume; its own are not."""
    bench, job, tree = blobs.workbench(), blob_job(epochs=5), Tree(str(tmp_path / "tree"))
    peer = train(bench, job, OTHERS)
    peer.store(tree, 2)
    run = bench.begin(job)
    assert resume(run, tree, bench.path(job), MINE) == 2
    list(islice(run.epochs(nothing), 2))
    mine = replace(peer.description, labels=MINE)
    tree.store(bench.path(job)[3], run.state(), mine)
    again = bench.begin(job)
    assert resume(again, tree, bench.path(job), MINE) == 4
    assert [epoch.reused for epoch in again.curve] == [True, True, False, False]
    seconds = [epoch.seconds for epoch in again.curve]
    assert seconds[:2] == [epoch.seconds for epoch in peer.states[1].curve]
    assert seconds == [epoch.seconds for epoch in run.curve]


@pytest.mark.parametrize(
    "other", [blob_job(hidden=9), blob_job(batch_norm=False), blob_job(optimizer="sgd")]
)
def test_a_state_that_does_not_fit_is_damage(
    blobs: Blobs, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: Job
) -> None:
    """A state of another model or optimizer under this key is named, and not used."""
    bench, job, tree = blobs.workbench(), blob_job(), Tree(str(tmp_path / "tree"))
    mine, foreign = train(bench, job), train(bench, other)
    Trained(mine.path, foreign.states, foreign.description).store(tree, 3)
    mine.store(tree, 1)
    run = bench.begin(job)
    assert resume(run, tree, mine.path, MINE) == 1
    assert mine.path[2] in caplog.text
    list(run.epochs(nothing))
    alone = bench.begin(job)
    list(alone.epochs(nothing))
    assert outcome(run) == outcome(alone)


def test_a_refused_state_leaves_the_run_as_it_was(blobs: Blobs) -> None:
    """A state is checked before use: weights, optimizer and curve stay fresh."""
    bench = blobs.workbench()
    trained = train(bench, blob_job())
    for unfit in (
        replace(trained.states[1], best_epoch=trained.states[1].best_epoch % 2 + 1),
        replace(trained.states[1], best_weights={}),
        replace(trained.states[1], optimizer={}),
        replace(trained.states[1], optimizer={"anything": torch.zeros(1)}),
    ):
        run = bench.begin(blob_job())
        before = state_text(run.state())
        with pytest.raises(UnfitError):
            run.restore(unfit)
        assert state_text(run.state()) == before


def test_one_state_serves_two_runs(blobs: Blobs) -> None:
    """A run that continues from a state does not write into it."""
    bench, job = blobs.workbench(), blob_job(epochs=4)
    state = train(bench, job).states[1]
    left = []
    for _ in range(2):
        run = bench.begin(job)
        run.restore(state)
        list(run.epochs(nothing))
        left.append(outcome(run))
    assert left[0] == left[1]
