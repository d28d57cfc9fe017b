"""The notebook loop: a DataLoader, Adam, and two for-loops."""

import time
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers import setting as peers
from benchmarks.peers import task
from benchmarks.peers.setting import Setting

Loader = DataLoader[tuple[torch.Tensor, ...]]


def train(setting: Setting, name: str, seed: int) -> dict[str, Any]:
    """Train one trial and return its accuracies at its best validation loss."""
    began = time.time()
    torch.manual_seed(seed)
    parts = {part: TensorDataset(*arrays) for part, arrays in task.load(setting).items()}
    training: Loader = DataLoader(parts[""], batch_size=peers.BATCH, shuffle=True)
    val: Loader = DataLoader(parts["val_"], batch_size=peers.BATCH)
    test: Loader = DataLoader(parts["test_"], batch_size=peers.BATCH)
    model = task.network(setting)
    optimizer = torch.optim.Adam(model.parameters(), lr=peers.RATE)
    steps = task.schedule(name, optimizer, setting.epochs)
    criterion = nn.CrossEntropyLoss()
    best: tuple[float, dict[str, torch.Tensor]] = (float("inf"), {})
    for _ in range(setting.epochs):
        model.train()
        for images, labels in training:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        steps.step()
        val_loss, val_acc = evaluate(model, val)
        if val_loss < best[0]:
            best = (val_loss, {k: v.clone() for k, v in model.state_dict().items()})
            reached = val_acc
    model.load_state_dict(best[1])
    result = {"schedule": name, "seed": seed, "began": began}
    return result | {"val": reached, "test": evaluate(model, test)[1]}


def evaluate(model: nn.Module, loader: Loader) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in loader:
            images, labels = (tensor.to(device) for tensor in batch)
            outputs = model(images)
            loss += nn.functional.cross_entropy(outputs, labels, reduction="sum").item()
            right += int((outputs.argmax(1) == labels).sum())
            count += len(labels)
    return loss / count, right / count


if __name__ == "__main__":
    given = Setting.given()
    peers.tell([train(given, name, seed) for name, seed in given.trials()])
