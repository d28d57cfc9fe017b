"""The notebook loop over a space of settings: what Optuna and Ray Tune search.

Each competitor gets a `Search` as JSON, and prints its trials: when each ended, whether it was
trained to its end, its number of epochs, and its lowest validation loss.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers import setting as peers
from benchmarks.peers import task
from benchmarks.peers.loop import evaluate
from benchmarks.peers.setting import Setting

SCHEDULERS = ("constant", "step", "cosine", "exponential", "onecycle")
BATCHES = (16, 32, 64, 128)
RATES, DECAYS, DEPTHS = (1e-5, 1e-1), (1e-6, 1e-2), (1, 5)


@dataclass(frozen=True)
class Search:
    """How many settings are tried, and the most epochs for each."""

    folder: str
    size: int
    trials: int
    epochs: int
    seed: int

    @classmethod
    def given(cls) -> "Search":
        """Read this program's arguments."""
        return cls(**json.loads(sys.argv[1]))

    def text(self) -> str:
        """Return the text that `given` reads."""
        return json.dumps(asdict(self))


def train(search: Search, chosen: Mapping[str, Any]) -> Iterator[float]:
    """Train one setting; yield the validation loss of every epoch."""
    torch.manual_seed(0)
    arrays = task.load(Setting(search.folder, "ann", search.size, 1, search.epochs))
    parts = {part: TensorDataset(*those) for part, those in arrays.items()}
    training = DataLoader(parts[""], batch_size=chosen["batch_size"], shuffle=True, drop_last=True)
    val = DataLoader(parts["val_"], batch_size=128)
    model = _network(search.size**2, chosen["depth"])
    optimizer = torch.optim.Adam(
        model.parameters(), lr=chosen["lr"], weight_decay=chosen["weight_decay"]
    )
    schedule = _schedule(chosen, optimizer, search.epochs, len(training))
    criterion = nn.CrossEntropyLoss()
    for _ in range(search.epochs):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
            if chosen["scheduler"] == "onecycle":
                schedule.step()
        if chosen["scheduler"] != "onecycle":
            schedule.step()
        yield evaluate(model, val)[0]


def told(losses: Sequence[float], search: Search) -> dict[str, Any]:
    """Return the result of a trial that has just ended."""
    return {
        "ended": time.time(),
        "complete": len(losses) == search.epochs,
        "epochs": len(losses),
        "loss": min(losses),
    }


def _network(inputs: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(inputs, peers.WIDTH), nn.BatchNorm1d(peers.WIDTH)]
        layers += [nn.ReLU(), nn.Dropout(peers.DROPOUT)]
        inputs = peers.WIDTH
    return nn.Sequential(*layers, nn.Linear(inputs, len(peers.CLASSES)))


def _schedule(
    chosen: Mapping[str, Any], optimizer: torch.optim.Optimizer, epochs: int, steps: int
) -> lr_scheduler.LRScheduler:
    if chosen["scheduler"] == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, chosen["lr"], total_steps=epochs * steps)
    if chosen["scheduler"] == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, 0.95)
    return task.schedule(chosen["scheduler"], optimizer, epochs)
