"""One trial's training, epoch by epoch: a function of job, code and data.

Between two epochs, `TrainingState` is the whole state of a run; a run restored from it
continues as if it had never stopped.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.errors import UserError
from tuner.records import (
    Epoch,
    Figures,
    Job,
    Moment,
    Predictions,
    Result,
    Setup,
    SplitName,
    split_own,
)
from tuner.train.augment import Augmentation
from tuner.train.checkpoints.fit import UnfitError, check_fit
from tuner.train.data import Feed, Prepared, Resident
from tuner.train.device import Device
from tuner.train.learners import choose_learner
from tuner.train.losses import Loss
from tuner.train.metrics import score
from tuner.train.optimizers import build_optimizer
from tuner.train.own_metrics import OwnMetrics
from tuner.train.passes import (
    Alive,
    Bounds,
    Evaluation,
    TrainFigures,
    TrainingPass,
    training_bounds,
)
from tuner.train.precision import choose_arithmetic, convolves, lay_out
from tuner.train.recipe import Recipe, read_recipe
from tuner.train.schedules import rates
from tuner.train.seeds import of_epoch, permutation
from tuner.train.state import TrainingState, copy_weights, fingerprint

LogProbabilities = NDArray[np.float32]
EPOCH_FIELDS = frozenset(field.name for field in fields(Epoch))


def _nothing() -> None:
    """Do nothing: the default of `alive`."""


@dataclass(frozen=True)
class PlannedEpoch:
    """One epoch of training, before it is trained."""

    number: int
    order: Tensor
    """The order of the training images."""
    rates: Sequence[float]
    """One for each batch, or one for all of them."""
    seed: int
    """For what the network draws (dropout)."""


class Run:
    """A trial in training on a new model, which nothing else may use."""

    setup: Setup
    training: TrainingPass
    """How an epoch is trained, alone or in a pack."""
    diverged: bool
    """Whether a figure became non-finite; training ends there."""
    together: bool
    """Whether it may train in packs by torch.func, whose size then affects its last bits."""

    def __init__(  # noqa: PLR0917 - only the workbench calls it
        self,
        job: Job,
        model: nn.Module,
        loss: Loss,
        data: Prepared,
        device: Device,
        own: OwnMetrics,
    ):
        self._job = job
        self._own = own
        self._recipe = read_recipe(job.parameters)
        self._arithmetic = choose_arithmetic(self._recipe.precision, device.torch, model)
        lay_out(model, self._arithmetic)
        self._model = model
        self._data = data
        self._device = device
        self._evaluation_size = device.evaluation_size(
            math.prod(data.inputs), convolves=convolves(model)
        )
        self._learner = choose_learner(model, loss, self._arithmetic, device.torch)
        self._optimizer = build_optimizer(self._recipe, self._learner.weights)
        self.training = self._training_pass(loss)
        self._validation = self._evaluation(data.val)
        self._curve: tuple[Epoch, ...] = ()
        self._best_weights = copy_weights(model)
        self._best_epoch = 0
        self.diverged = False
        self.together = False
        self.setup = Setup(
            device=device.description,
            parameter_count=sum(weight.numel() for weight in model.parameters()),
            initial_weights=fingerprint(self._best_weights),
            data_fingerprint=data.fingerprint,
            notes={
                **device.notes,
                "precision": self._arithmetic.note(),
                "learning": self._learner.note,
                **data.notes,
            },
        )

    @property
    def curve(self) -> tuple[Epoch, ...]:
        """All epochs so far, including restored ones."""
        return self._curve

    @property
    def evaluation_size(self) -> int:
        """How many images are evaluated at a time."""
        return self._evaluation_size

    def epochs(self, alive: Alive) -> Iterator[Epoch]:
        """Train and yield epochs until the last, patience or divergence.

        `alive` is called after every batch, of training and of validation.
        """
        while not self.ended:
            yield self._train_one(alive)

    def result(self, alive: Alive = _nothing) -> Result:
        """Evaluate the best and the last weights on validation and test; the last ones remain."""
        assert self._curve, "a run has no result before its first epoch"
        last = self._predictions("last", alive)
        if self._best_epoch == len(self._curve):
            best = tuple(replace(predictions, at="best") for predictions in last)
        else:
            best = self._best_predictions(alive)
        return Result(
            best=self._figures(self._best_epoch, best),
            last=self._figures(len(self._curve), last),
            predictions=best + last,
        )

    def state(self) -> TrainingState:
        """Return a copy of everything, beside the job, that further epochs depend on."""
        return TrainingState(
            weights=copy_weights(self._model),
            best_weights=dict(self._best_weights),
            best_epoch=self._best_epoch,
            optimizer=self._optimizer.state(),
            curve=self._curve,
        )

    def restore(self, state: TrainingState) -> None:
        """Continue from a state of the same job, as if this run had trained that far itself.

        Raises UnfitError, and changes nothing, if this run would not have reached that state.
        """
        check_fit(state, self._model, self._optimizer)
        self._check_course(state)
        self._model.load_state_dict(state.weights)
        self._optimizer.restore(state.optimizer)
        # A file does not keep the order of names, but fingerprints depend on it.
        self._best_weights = {name: state.best_weights[name] for name in self._model.state_dict()}
        self._best_epoch = state.best_epoch
        self._curve = state.curve
        self.diverged = bool(state.curve) and not state.curve[-1].is_finite(self._job.metric)

    def _training_pass(self, loss: Loss) -> TrainingPass:
        split = self._data.train
        bounds = _checked_bounds(len(split), self._recipe.batch_size, self._model)
        feed = Feed(self._data, split, max(stop - start for start, stop in bounds))
        augmentation = None
        if self._recipe.augment > 0:
            augmentation = Augmentation(self._recipe.augment, self._device.torch)
        return TrainingPass(
            learner=self._learner,
            optimizer=self._optimizer,
            loss=loss,
            split=split,
            feed=feed,
            bounds=bounds,
            augmentation=augmentation,
        )

    @property
    def ended(self) -> bool:
        """Whether training has ended, by length, patience or divergence."""
        last = self._curve[-1] if self._curve else None
        return last is not None and _ends(last, self._best_epoch, self._recipe, self._job.metric)

    def _check_course(self, state: TrainingState) -> None:
        """Raise if a state is beyond this run's end, or its best epoch is not the best."""
        best: Epoch | None = None
        for epoch in state.curve:
            best = _better(best, epoch, self._job)
            ends = _ends(epoch, best.epoch, self._recipe, self._job.metric)
            if epoch is not state.curve[-1] and ends:
                raise UnfitError("it lies beyond the end of this training", epoch.epoch)
        if (best.epoch if best else 0) != state.best_epoch:
            raise UnfitError("its best epoch is not the best of its curve")

    def _train_one(self, alive: Alive) -> Epoch:
        begun = time.perf_counter()
        plan = self.plan()
        train = self.training.train(plan.order, plan.rates, plan.seed, alive)
        return self.end_epoch(plan, train, time.perf_counter() - begun, alive)

    def plan(self) -> PlannedEpoch:
        """Return the plan of the next epoch, and seed its augmentation."""
        number = len(self._curve) + 1
        steps = rates(self._recipe, number, len(self.training.bounds), self._curve)
        if self.training.augmentation is not None:
            self.training.augmentation.begin(self._job.seed, number)
        order = permutation(len(self._data.train), self._job.seed, number)
        return PlannedEpoch(number, order, steps, of_epoch(self._job.seed, number))

    def end_epoch(
        self, plan: PlannedEpoch, train: TrainFigures, seconds: float, alive: Alive
    ) -> Epoch:
        """Validate after an epoch that took this many seconds to train, and add it to the curve."""
        begun = time.perf_counter()
        figures = self._figures_of("val", self._validation.predict(alive))
        val, own = split_own(figures, EPOCH_FIELDS)
        validated = time.perf_counter() - begun
        epoch = Epoch(
            epoch=plan.number,
            train_loss=train.loss,
            train_nll=train.nll,
            train_acc=train.accuracy,
            lr=plan.rates[0],
            seconds=seconds + validated,
            val_seconds=validated,
            own=own,
            **val,  # type: ignore[arg-type]  # floats of validation only
        )
        self._take(epoch)
        return epoch

    def _figures_of(self, split: SplitName, predicted: LogProbabilities) -> dict[str, Any]:
        """Return all figures of a split by column, built in and the study's own."""
        truth = self._data.truth(split)
        assert truth is not None
        scores = score(predicted, truth.labels).named(split)
        return {**scores, **self._own.figures(truth, predicted)}

    def _take(self, epoch: Epoch) -> None:
        self.diverged = not epoch.is_finite(self._job.metric)
        best = self._curve[self._best_epoch - 1] if self._curve else None
        if _better(best, epoch, self._job) is epoch:
            self._best_epoch = epoch.epoch
            self._best_weights = copy_weights(self._model)
        self._curve = (*self._curve, epoch)

    def _best_predictions(self, alive: Alive) -> tuple[Predictions, ...]:
        last = copy_weights(self._model)
        self._model.load_state_dict(self._best_weights)
        try:
            return self._predictions("best", alive)
        finally:
            self._model.load_state_dict(last)

    def _predictions(self, at: Moment, alive: Alive) -> tuple[Predictions, ...]:
        judged: dict[SplitName, Resident | None] = {"val": self._data.val, "test": self._data.test}
        found = []
        for name, split in judged.items():
            truth = self._data.truth(name)
            if split is not None and truth is not None:
                logs = self._evaluate(split, alive)
                resampled = self._own.resampled(truth, logs, alive)
                found.append(Predictions(name, at, logs, resampled.values, resampled.obstacles))
        return tuple(found)

    def _evaluate(self, split: Resident, alive: Alive) -> LogProbabilities:
        return self._evaluation(split).predict(alive)

    def _evaluation(self, split: Resident) -> Evaluation:
        feed = Feed(self._data, split, min(self._evaluation_size, len(split)))
        return Evaluation(self._learner, feed)

    def _figures(self, number: int, predictions: tuple[Predictions, ...]) -> Figures:
        epoch = self._curve[number - 1]
        test = [one.log_probabilities for one in predictions if one.split == "test"]
        return Figures.of(epoch, self._figures_of("test", test[0]) if test else None)


def _better(best: Epoch | None, epoch: Epoch, job: Job) -> Epoch:
    """Return the better of the best epoch so far and the next one."""
    # The first epoch counts as best even if it diverged, so that there always is a best one.
    if best is None:
        return epoch
    new, old = epoch.figure(job.metric), best.figure(job.metric)
    better = new < old if job.direction == "minimize" else new > old
    return epoch if better and epoch.is_finite(job.metric) else best


def _ends(last: Epoch, best_epoch: int, recipe: Recipe, metric: str) -> bool:
    """Return whether training ends after this epoch: by divergence, patience, or length."""
    impatient = 0 < recipe.patience <= last.epoch - best_epoch
    return not last.is_finite(metric) or impatient or last.epoch >= recipe.epochs


def _checked_bounds(count: int, size: int, model: nn.Module) -> Bounds:
    if min(count, size) == 1 and any(isinstance(m, nn.BatchNorm1d) for m in model.modules()):
        raise UserError(
            "batch norm cannot be trained on batches of one image; "
            "set batch_size to 2 or more, or batch_norm = false"
        )
    return training_bounds(count, size)
