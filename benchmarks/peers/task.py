"""The task of every competitor written in torch: the same images, network and schedules."""

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from benchmarks.peers.setting import CLASSES, COUNTS, DROPOUT, WIDTH, Setting

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_images(folder: Path, size: int) -> None:
    """Write grey noise with a faint bright spot, at one of two places, as NPY files.

    They are synced to disk before this returns: otherwise the first program to sync a file would
    pay for them.
    """
    random = np.random.default_rng(size)
    folder.mkdir(parents=True, exist_ok=True)
    across = np.linspace(-1, 1, size)
    for (part, count), (place, name) in product(COUNTS.items(), enumerate(CLASSES)):
        centre = -0.3 if place == 0 else 0.3
        spot = np.exp(-((across[:, None] ** 2) + (across[None] - centre) ** 2) / 0.1)
        noise = random.normal(110, 45, (count, size, size))
        strength = random.uniform(0, 500 / size, (count, 1, 1))
        images = (noise + strength * spot).clip(0, 255).astype(np.uint8)
        np.save(folder / f"{part}{name}.npy", images)
    os.sync()


def load(setting: Setting) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images, as float with mean 0 and deviation 1, and labels of every part."""
    folder = Path(setting.folder) / "images"
    arrays: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for part in COUNTS:
        of_class = [np.load(folder / f"{part}{name}.npy") for name in CLASSES]
        labels = np.repeat(np.arange(len(CLASSES)), [len(one) for one in of_class])
        arrays[part] = np.concatenate(of_class), labels
    mean, deviation = arrays[""][0].mean(), arrays[""][0].std()
    return {
        part: (
            torch.from_numpy(images).float().sub_(mean).div_(deviation).unsqueeze(1),
            torch.from_numpy(labels),
        )
        for part, (images, labels) in arrays.items()
    }


def network(setting: Setting) -> nn.Module:
    """Return the network: three blocks of 64 with batch norm and dropout, or convolutions."""
    if setting.model == "ann":
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = setting.size**2
        for _ in range(3):
            layers += [nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH)]
            layers += [nn.ReLU(), nn.Dropout(DROPOUT)]
            inputs = WIDTH
        return nn.Sequential(*layers, nn.Linear(inputs, len(CLASSES)))
    layers, channels = [], 1
    for _ in range(3):
        layers += [nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = 32
    flat = 32 * (setting.size // 8) ** 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(flat, 32), nn.ReLU(), nn.Linear(32, len(CLASSES))
    )


def schedule(name: str, optimizer: Optimizer, epochs: int) -> lr_scheduler.LRScheduler:
    """Return a schedule of the learning rate, stepped after every epoch."""
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    if name == "step":
        return lr_scheduler.StepLR(optimizer, 10, 0.1)
    return lr_scheduler.ConstantLR(optimizer, 1.0)
