"""Training losses, and the log-probabilities that a network's outputs represent.

Training minimises the loss; evaluation always uses the negative log-likelihood of the
true class in nats, computed from these log-probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tuner.errors import DataError, UserError
from tuner.train.recipe import Recipe

LossFunction = Callable[[Tensor, Tensor], Tensor]
LossWithGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

SMALLEST_DOUBT = 1e-12
"""Below this, focal's factor is taken as constant: its derivative is unbounded near 0."""


@dataclass(frozen=True)
class Loss:
    """A training loss: the number of outputs that it needs, and its value for a batch."""

    name: str
    outputs: int
    value: LossFunction
    """From outputs (n, outputs) and targets (n,) to the batch's mean, a scalar."""
    target_type: torch.dtype
    closed_form: LossWithGradient | None = None
    """Value and gradient at once, for losses with a simple derivative."""

    def value_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's value, and its gradient with respect to the outputs."""
        if self.closed_form is not None:
            return self.closed_form(outputs, targets)
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaf = outputs.clone().requires_grad_()
            value = self.value(leaf, targets.clone())
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def targets(self, labels: Tensor) -> Tensor:
        """Return labels in the type that the loss expects."""
        return labels.to(self.target_type)


def choose_loss(
    recipe: Recipe, classes: int, labels: NDArray[np.int64], device: torch.device
) -> Loss:
    """Return the recipe's loss for this many classes and these training labels."""
    if recipe.loss == "bce" and classes != 2:
        raise UserError(
            f"loss = 'bce' has one output and separates two classes, but the data have {classes}; "
            "use loss = 'ce'"
        )
    outputs = output_count(recipe, classes)
    weighted = recipe.class_weights == "balanced"
    if recipe.loss == "focal" or weighted or recipe.label_smoothing > 0:
        weights = balanced_weights(labels, classes).to(device) if weighted else None
        return Loss(recipe.loss, outputs, _shaped(recipe, weights), torch.int64)
    # The plain losses in torch's fastest form, one kernel each.
    if recipe.loss == "bce":
        return Loss(
            "bce", 1, _binary_cross_entropy, torch.float32, _binary_cross_entropy_and_gradient
        )
    return Loss("ce", classes, functional.cross_entropy, torch.int64, _cross_entropy_and_gradient)


def output_count(recipe: Recipe, classes: int) -> int:
    """Return the number of outputs per image: one per class, or one for bce."""
    return 1 if recipe.loss == "bce" else classes


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return the log-probability of every class, (n, classes), from outputs of either form."""
    if outputs.shape[1] == 1:
        both = torch.cat((-outputs, outputs), dim=1)
        return functional.logsigmoid(both)
    return functional.log_softmax(outputs, dim=1)


def balanced_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return one weight per class, inverse to its share; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise DataError(
            f"class_weights = 'balanced' has no weight for {int((counts == 0).sum())} of "
            f"{classes} classes: the training split has no image of them"
        )
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32)


def _shaped(recipe: Recipe, weights: Tensor | None) -> LossFunction:
    """Return cross-entropy with the recipe's label smoothing, focal factor and class weights.

    A batch's value is the plain mean of its images' weighted losses: if it were divided
    by the batch's own weights, an image's influence would depend on the rest of its batch.
    """
    smoothing = recipe.label_smoothing
    gamma = recipe.focal_gamma if recipe.loss == "focal" else 0.0

    def value(outputs: Tensor, labels: Tensor) -> Tensor:
        logs = log_probabilities(outputs)
        true = logs.gather(1, labels[:, None]).squeeze(1)
        losses = -true if smoothing == 0 else -(1 - smoothing) * true - smoothing * logs.mean(1)
        if gamma > 0:
            losses = losses * (-torch.expm1(true)).clamp_min(SMALLEST_DOUBT) ** gamma
        if weights is not None:
            losses = losses * weights[labels]
        return losses.mean()

    return value


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets)


def _cross_entropy_and_gradient(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logs = functional.log_softmax(outputs, dim=1)
    value = functional.nll_loss(logs, targets)
    # Gradient of the batch's mean: the probabilities, minus 1 for the true class, over its images.
    true = targets[:, None]
    gradient = logs.exp_().scatter_add_(1, true, logs.new_full(true.shape, -1.0))
    return value, gradient.mul_(1 / len(outputs))


def _binary_cross_entropy_and_gradient(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    value = _binary_cross_entropy(outputs, targets)
    return value, outputs.sigmoid().sub_(targets[:, None]).mul_(1 / len(outputs))
