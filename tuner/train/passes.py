"""One pass over a split: an epoch of training, or an evaluation.

Nothing in a pass waits for the device: outputs and losses are collected there
and read once at the end.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.train.augment import Augmentation
from tuner.train.data import Feed, Resident
from tuner.train.functional import ObstacleError, signature
from tuner.train.graphs import RecordedForward, RecordedSteps
from tuner.train.learners import Learner
from tuner.train.losses import Loss, log_probabilities
from tuner.train.metrics import is_right, mean_nll
from tuner.train.optimizers import Optimizer

Alive = Callable[[], None]
Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainFigures:
    """Means over the batches of an epoch, each computed just before its step."""

    loss: float
    nll: float
    accuracy: float


def training_bounds(count: int, size: int) -> Bounds:
    """Cut an epoch into batches; the last one may be smaller, or one image larger.

    A single last image joins the batch before it: batch norm has no variance over one
    image, and no network learns much from it alone.
    """
    bounds = evaluation_bounds(count, size)
    if len(bounds) > 1 and bounds[-1] == (count - 1, count):
        return (*bounds[:-2], (bounds[-2][0], count))
    return bounds


def evaluation_bounds(count: int, size: int) -> Bounds:
    """Cut a split into batches; the last one may be smaller."""
    return tuple((start, min(start + size, count)) for start in range(0, count, size))


@dataclass(frozen=True)
class TrainingPass:
    """What all training epochs of a run share: how it learns, and its batches."""

    learner: Learner
    optimizer: Optimizer
    loss: Loss
    split: Resident
    feed: Feed
    bounds: Bounds
    augmentation: Augmentation | None = None

    def train(self, order: Tensor, rates: Sequence[float], seed: int, alive: Alive) -> TrainFigures:
        """Train once on every image of the split, in the given order.

        `rates` has one rate per batch, or one for all of them.
        """
        turn = Turn(self, order, rates)
        with self.learner.begin(len(self.bounds), seed):
            if self.recorded is not None:
                epoch = self.recorded.epoch(
                    self.step,
                    self.bounds,
                    turn.order,
                    turn.targets,
                    rates=[turn.rates],
                    alive=alive,
                )
                for outputs, losses in epoch:
                    turn.keep(outputs.flatten(0, 1), losses)
                return turn.figures()
            for place, (start, stop) in enumerate(self.bounds):
                turn.set_rate(place)
                turn.keep(*self.step(turn.order[start:stop], turn.targets[start:stop]))
                alive()
            return turn.figures()

    def step(self, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Learn from the images at these indices; return outputs and loss before the step."""
        images = self.changed(self.feed.gather(places))
        outputs, loss = self.learner.learn(images, targets)
        self.optimizer.step(self.learner.pieces())
        return outputs, loss

    def changed(self, images: Tensor) -> Tensor:
        """Return a batch as the network sees it, after augmentation."""
        return images if self.augmentation is None else self.augmentation.change(images)

    @cached_property
    def recorded(self) -> RecordedSteps | None:
        """Steps as CUDA graphs, if the images are on the GPU as well."""
        if self.feed.place.type != "cuda":
            return None
        try:
            network: Hashable = signature(self.learner.model)
        except ObstacleError:
            return RecordedSteps([self.optimizer], [self.learner.model], self.generators)
        images = self.split.images.shape[1:], self.split.images.dtype
        rest = type(self.optimizer), self.loss.name, self.loss.outputs, self.augmentation is None
        kind = network, getattr(self.learner, "arithmetic", None), images, rest
        return RecordedSteps([self.optimizer], [self.learner.model], self.generators, kind)

    @property
    def generators(self) -> list[torch.Generator]:
        """The generators that steps draw from, beside torch's own."""
        return [] if self.augmentation is None else [self.augmentation.generator]


class Turn:
    """One run's epoch of training, batch by batch, computed alone or in a pack."""

    def __init__(self, training: TrainingPass, order: Tensor, rates: Sequence[float]) -> None:
        labels = training.split.labels
        self.order = order.to(training.feed.place)
        self.targets = training.loss.targets(labels)[order.to(labels.device)]
        self._training, self._rates = training, rates
        self._true = training.split.true[order.numpy()]
        self._outputs: list[Tensor] = []
        self._losses: list[Tensor] = []

    @cached_property
    def rates(self) -> Tensor:
        """The rate of every step, on the device."""
        steps = len(self._training.bounds)
        rates = torch.tensor(self._rates, dtype=torch.float32, device=self.targets.device)
        return rates.expand(steps) if len(self._rates) == 1 else rates

    def set_rate(self, place: int) -> None:
        """Set the learning rate of a step, by the index of its batch in the epoch."""
        if place == 0 or len(self._rates) > 1:
            # As recorded steps do, so that no bit depends on whether the images fit on the GPU.
            on_gpu = self.targets.is_cuda
            self._training.optimizer.set_rate(self.rates[place] if on_gpu else self._rates[place])

    def keep(self, outputs: Tensor, loss: Tensor) -> None:
        """Collect the results of one or several batches: outputs of all images, a loss for each."""
        self._outputs.append(outputs)
        self._losses.append(loss)

    def figures(self) -> TrainFigures:
        """Return the means over all batches."""
        with torch.inference_mode():
            predictions = log_probabilities(torch.cat(self._outputs).float()).cpu().numpy()
            losses = torch.cat([loss.reshape(-1) for loss in self._losses])
            means = losses.double().cpu().numpy()
        sizes = np.array([stop - start for start, stop in self._training.bounds])
        return TrainFigures(
            loss=float((means * sizes).sum() / sizes.sum()),
            nll=mean_nll(predictions, self._true),
            accuracy=float(is_right(predictions, self._true).mean()),
        )


class Evaluation:
    """The log-probabilities of one split's images under a network's current weights."""

    def __init__(self, learner: Learner, feed: Feed) -> None:
        self._learner, self._feed = learner, feed
        self._bounds = evaluation_bounds(feed.images, feed.size)
        # On a GPU, evaluation is recorded like training steps.
        resident = feed.place.type == "cuda"
        pool = torch.cuda.graph_pool_handle() if resident else None
        self.recorded = (
            [RecordedForward(learner.model, pool) for _ in self._bounds] if resident else []
        )

    def predict(self, alive: Alive) -> NDArray[np.float32]:
        """Return the log-probabilities of every class for every image, in the split's order."""
        self._learner.model.eval()
        pieces = []
        with torch.inference_mode():
            for place, (start, stop) in enumerate(self._bounds):
                forward = partial(self._forward, start, stop)
                recorded = self.recorded[place] if self.recorded else None
                pieces.append(forward() if recorded is None else recorded.outputs(forward))
                alive()
            return torch.cat(pieces).cpu().numpy()

    def _forward(self, start: int, stop: int) -> Tensor:
        return log_probabilities(self._learner.evaluate(self._feed.between(start, stop)))
