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

from tuner.train.augment import Augmentation
from tuner.train.data import Feed, Resident
from tuner.train.learners import Learner
from tuner.train.losses import Loss, log_probabilities
from tuner.train.metrics import is_right, mean_nll
from tuner.train.optimizers import Optimizer
from tuner.train.precision import Arithmetic

Alive = Callable[[], None]
Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainFigures:
    """Means over the batches of an epoch, each taken just before its step."""

    loss: float
    nll: float
    accuracy: float


def training_bounds(count: int, size: int) -> Bounds:
    """Cut an epoch into batches; the last may be short, or one image longer.

    A single last image joins the batch before it: batch norm has no deviation
    over one image, and no network learns much from it alone.
    """
    bounds = evaluation_bounds(count, size)
    if len(bounds) > 1 and bounds[-1] == (count - 1, count):
        return (*bounds[:-2], (bounds[-2][0], count))
    return bounds


def evaluation_bounds(count: int, size: int) -> Bounds:
    """Cut a split into batches; the last may be short."""
    return tuple((start, min(start + size, count)) for start in range(0, count, size))


@dataclass(frozen=True)
class TrainingPass:
    """What every training epoch of a run uses again: how it learns, and the batches."""

    learner: Learner
    optimizer: Optimizer
    loss: Loss
    split: Resident
    feed: Feed
    bounds: Bounds
    augmentation: Augmentation | None = None

    def train(self, order: Tensor, rates: Sequence[float], alive: Alive) -> TrainFigures:
        """Train on every image of the split once, in the given order.

        `rates` has one rate for every batch, or one for all of them.
        """
        with self.learner.begin(len(self.bounds)):
            labels, where = self.split.labels, self.feed.place
            there = order.to(where)
            targets = self.loss.targets(labels)[order.to(labels.device)]
            self.optimizer.set_rate(rates[0])
            outputs: list[Tensor] = []
            losses: list[Tensor] = []
            for place, (start, stop) in enumerate(self.bounds):
                if len(rates) > 1:
                    self.optimizer.set_rate(rates[place])
                images = self.feed.gather(there[start:stop])
                if self.augmentation is not None:
                    images = self.augmentation.change(images)
                output, value = self.learner.learn(images, targets[start:stop])
                self.optimizer.step(self.learner.pieces())
                outputs.append(output)
                losses.append(value)
                alive()
            return _train_figures(outputs, losses, self.bounds, self.split.true[order.numpy()])


def predict(
    model: nn.Module, feed: Feed, arithmetic: Arithmetic, alive: Alive
) -> NDArray[np.float32]:
    """Return the log-probabilities of every class for every image, in the split's order."""
    model.eval()
    pieces = []
    with torch.inference_mode():
        for start, stop in evaluation_bounds(feed.images, feed.size):
            pieces.append(log_probabilities(model(arithmetic.arranged(feed.between(start, stop)))))
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
