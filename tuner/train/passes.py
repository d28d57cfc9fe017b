"""One pass over a split: an epoch of training, or an evaluation that changes nothing.

Nothing in a pass waits for the device: outputs and losses are collected there
and read once at its end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from tuner.train.data import Feed, Resident
from tuner.train.losses import Loss, log_probabilities
from tuner.train.metrics import is_right, mean_nll

Alive = Callable[[], None]
Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainFigures:
    """Means over the batches of an epoch, each taken just before its step."""

    loss: float
    nll: float
    accuracy: float


def batch_bounds(count: int, size: int, fold_single: bool) -> Bounds:
    """Cut an epoch into batches; the last may be short, or, folded, one image longer.

    Batch norm has no deviation over one image, so there a single last image
    joins the batch before it.
    """
    starts = list(range(0, count, size))
    if fold_single and len(starts) > 1 and count - starts[-1] == 1:
        del starts[-1]
    return tuple(zip(starts, [*starts[1:], count], strict=True))


@dataclass(frozen=True)
class TrainingPass:
    """What every training epoch of a run uses again: the model, its loss, and the batches."""

    model: nn.Module
    optimizer: Optimizer
    loss: Loss
    split: Resident
    feed: Feed
    bounds: Bounds

    def train(self, order: Tensor, alive: Alive) -> TrainFigures:
        """Train on every image of the split once, in the given order."""
        self.model.train()
        there = order.to(self.split.labels.device)
        targets = self.loss.targets(self.split.labels)[there]
        outputs: list[Tensor] = []
        losses: list[Tensor] = []
        for start, stop in self.bounds:
            output = self.model(self.feed.gather(there[start:stop]))
            value = self.loss.value(output, targets[start:stop])
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            outputs.append(output.detach())
            losses.append(value.detach())
            alive()
        return _train_figures(outputs, losses, self.bounds, self.split.true[order.numpy()])


def predict(
    model: nn.Module, split: Resident, feed: Feed, size: int, alive: Alive
) -> NDArray[np.float32]:
    """Return the log-probabilities of every class for every image, in the split's order."""
    model.eval()
    pieces = []
    with torch.inference_mode():
        for start, stop in batch_bounds(len(split), size, fold_single=False):
            pieces.append(log_probabilities(model(feed.between(start, stop)).float()))
            alive()
        return torch.cat(pieces).cpu().numpy()


def _train_figures(
    outputs: Sequence[Tensor], losses: Sequence[Tensor], bounds: Bounds, true: NDArray[np.int64]
) -> TrainFigures:
    with torch.inference_mode():
        predictions = log_probabilities(torch.cat(list(outputs)).float()).cpu().numpy()
        means = torch.stack(list(losses)).double().cpu().numpy()
    sizes = np.array([stop - start for start, stop in bounds])
    return TrainFigures(
        loss=float((means * sizes).sum() / sizes.sum()),
        nll=mean_nll(predictions, true),
        accuracy=float(is_right(predictions, true).mean()),
    )
