"""Time of one training epoch: the shared trainer against the notebook loop it replaces.

    python benchmarks/epoch_time.py --image-size 64 --batch-size 32 --epochs 12
    python benchmarks/epoch_time.py --model cnn --image-size 256 --device cuda:0

Both train the same network with Adam on the same random images and validate
after every epoch. Their epochs alternate in one process, so that whatever else
the machine does hits both alike. Times are medians, without the first epoch.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tuner.records import Job, Value
from tuner.train.data import prepare
from tuner.train.device import open_device
from tuner.train.losses import choose_loss
from tuner.train.objective import Data, Found, Split, find
from tuner.train.recipe import read_recipe
from tuner.train.run import Run

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ("normal", "pneumonia")


def main() -> None:
    """Measure as the command line asks and print milliseconds an epoch and their ratio."""
    options = _options()
    device = open_device(options.device, options.threads)
    found = find("chest_xray", [REPOSITORY / "objectives"])
    parameters = _parameters(found, options)
    data = _random_data(options.image_size, options.train_images, options.val_images)
    prepared = prepare(data, device.torch)
    job = Job("chest_xray", parameters, data={}, seed=0)
    model = found.build_model(parameters, prepared.inputs, 1).to(device.torch)
    loss = choose_loss(read_recipe(parameters), 2, prepared.train.true, device.torch)
    run = Run(job, model, loss, prepared, device)
    shared = (epoch.seconds for epoch in run.epochs(lambda: None))
    notebook = _notebook(
        found.build_model(parameters, prepared.inputs, 1), data, options.batch_size, device.torch
    )
    pairs = [(next(shared), next(notebook)) for _ in range(options.epochs)][1:]
    ours, theirs = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{device.description}, threads {options.threads}, torch {torch.__version__}")
    print(f"{options.model} at {options.image_size}: {run.setup.notes['precision']}")
    print(f"shared trainer {ours:8.1f} ms an epoch   (median of {len(pairs)})")
    print(f"notebook loop  {theirs:8.1f} ms an epoch   ratio {theirs / ours:.2f}")


def _notebook(
    model: nn.Module, data: Data, batch_size: int, device: torch.device
) -> Iterator[float]:
    """Train as the reports' notebooks do, yielding the seconds of each epoch."""
    model.to(device)
    train = DataLoader(_float_images(data.train, data), batch_size=batch_size, shuffle=True)
    val = DataLoader(_float_images(data.val, data), batch_size=batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.BCEWithLogitsLoss()
    while True:
        started = time.perf_counter()
        _notebook_pass(model, train, criterion, device, optimizer)
        with torch.no_grad():
            _notebook_pass(model, val, criterion, device, None)
        yield time.perf_counter() - started


def _notebook_pass(
    model: nn.Module,
    loader: "DataLoader[tuple[torch.Tensor, ...]]",
    criterion: nn.Module,
    device: torch.device,
    optimizer: torch.optim.Optimizer | None,
) -> tuple[float, int]:
    model.train(optimizer is not None)
    total_loss, total_right = 0.0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)  # noqa: PLW2901 - as notebooks do
        outputs = model(images).squeeze(1)
        loss = criterion(outputs, labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        total_loss += loss.item() * len(labels)
        total_right += int(((outputs > 0).float() == labels).sum().item())
    return total_loss, total_right


def _float_images(split: Split, data: Data) -> TensorDataset:
    mean, deviation = float(data.train.images.mean()), float(data.train.images.std())
    images = torch.from_numpy(split.images).float().sub(mean).div(deviation).unsqueeze(1)
    return TensorDataset(images, torch.from_numpy(split.labels).float())


def _random_data(size: int, train: int, val: int) -> Data:
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = random.integers(0, 256, (count, size, size), dtype=np.uint8)
        labels = random.integers(0, 2, count, dtype=np.int64)
        return Split(images, labels, tuple(str(i) for i in range(count)))

    return Data(split(train), split(val), None, CLASSES, "random")


def _parameters(found: Found, options: argparse.Namespace) -> dict[str, Value]:
    declared = found.objective.declarations().parameters.values()
    defaults = {parameter.name: parameter.default for parameter in declared}
    return defaults | {
        "loss": "bce",
        "model": options.model,
        "precision": options.precision,
        "batch_size": options.batch_size,
        "epochs": options.epochs,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="ann")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--train-images", type=int, default=1600)
    parser.add_argument("--val-images", type=int, default=400)
    return parser.parse_args()


if __name__ == "__main__":
    main()
