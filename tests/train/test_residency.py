"""Where images are kept: on the device if they fit, in main memory otherwise."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.blobs import Blobs, blob_job, nothing
from tuner.errors import DataError
from tuner.train.checkpoints.keys import root
from tuner.train.data import Feed, choose_home, prepare
from tuner.train.objective import Data, Split
from tuner.train.own_metrics import check_metric
from tuner.train.workbench import Workbench

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")


def data(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], notes: tuple[str, ...] = ()
) -> Data:
    """Return images as training and validation split."""
    labels = np.arange(len(images), dtype=np.int64) % 2
    names = tuple(str(i) for i in range(len(images)))
    train = Split(images, labels, names)
    val = Split(images[:4], labels[:4], tuple(f"v{i}" for i in range(4)))
    return Data(train, val, None, ("no", "yes"), "data", notes)


@pytest.mark.parametrize(
    ("needed", "device", "free", "home", "words"),
    [
        (100, CPU, None, CPU, "where they were loaded"),
        (10_000_000, GPU, 40_000_000, GPU, "40 MB free"),
        (30_000_000, GPU, 40_000_000, CPU, "in main memory"),
        (10_000_000, torch.device("mps"), None, torch.device("mps"), "where they were loaded"),
    ],
)
def test_images_live_where_there_is_room(
    needed: int, device: torch.device, free: int | None, home: torch.device, words: str
) -> None:
    """They may take half of a GPU's free memory; the reason is reported."""
    found, reason = choose_home(needed, device, free)
    assert found == home
    assert words in reason


def test_mapped_images_stay_mapped(tmp_path: Path) -> None:
    """Images mapped from a file are used for training without a copy in memory."""
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    prepared = prepare(data(mapped), CPU)
    assert np.shares_memory(prepared.train.images.numpy(), mapped)
    feed = Feed(prepared, prepared.train, 4)
    plain = prepare(data(images), CPU)
    places = torch.tensor([3, 0, 7])
    assert torch.equal(feed.gather(places), Feed(plain, plain.train, 4).gather(places))


def test_what_was_done_with_the_data_is_on_record(blobs: Blobs) -> None:
    """A trial's notes say where its images are, and what their source reported."""
    prepared = prepare(data(np.ones((6, 4, 4), dtype=np.uint8), ("Seven were left out.",)), CPU)
    assert prepared.notes["data"] == "Seven were left out."
    notes = blobs.workbench().begin(blob_job()).setup.notes
    assert "MB of images" in notes["residency"]
    assert "data" not in notes


def test_a_file_of_weights_is_part_of_the_key(tmp_path: Path) -> None:
    """Another file at the same path is another training; the same file elsewhere is not."""
    from tests.train.test_precision import job
    from tuner.train.networks.models import build

    def save(name: str, seed: int) -> Path:
        torch.manual_seed(seed)
        parameters = {**job(model="resnet18").parameters, "weights": ""}
        torch.save(build(parameters, (1, 32, 32), 2).state_dict(), tmp_path / name)
        return tmp_path / name

    def key(path: Path) -> str:
        bench = Workbench("cpu", 1, tmp_path / "cache", [], lambda *_: None)
        return root(bench.base(job(model="resnet18", weights=str(path))))

    first = key(save("a.pth", 0))
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    assert key(tmp_path / "b.pth") == first
    assert key(save("a.pth", 1)) != first


@pytest.mark.parametrize("metric", ["val_auc", "val_sensitivity", "val_specificity"])
def test_metrics_that_need_every_class_are_refused_without(metric: str, tmp_path: Path) -> None:
    """A metric that cannot be computed is reported by name before the first epoch."""
    one_sided = data(np.zeros((8, 4, 4), dtype=np.uint8))
    val = Split(one_sided.val.images, np.zeros(4, dtype=np.int64), one_sided.val.ids)
    held = prepare(Data(one_sided.train, val, None, ("no", "yes"), "f"), CPU)
    with pytest.raises(DataError, match=f"{metric} cannot be the metric.*class yes"):
        check_metric(metric, (), held.truth("val"))
    check_metric("val_balanced_acc", (), held.truth("val"))


def test_training_ends_at_the_best_of_any_metric(blobs: Blobs) -> None:
    """The best epoch is that of the study's metric, whichever it is."""
    for metric in ("val_sensitivity", "val_specificity", "val_loss"):
        run = blobs.workbench().begin(blob_job(metric=metric, data={"contrast": 8.0}, epochs=6))
        epochs = list(run.epochs(nothing))
        best = run.result().best.epoch
        figures = [epoch.figure(metric) for epoch in epochs]
        wanted = min(figures) if metric == "val_loss" else max(figures)
        assert figures[best - 1] == wanted
