"""Training losses, and the log-probabilities that every loss's outputs stand for.

The loss is what is trained on; the yardstick is always the negative
log-likelihood of the true class in nats, computed from these log-probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tuner.errors import UserError

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A training loss: how many outputs a model needs for it, and its value for a batch."""

    name: str
    outputs: int
    value: LossFunction
    """From outputs (n, outputs) and targets (n,) to the batch's mean, a scalar."""
    target_type: torch.dtype

    def targets(self, labels: Tensor) -> Tensor:
        """Return labels in the type that the loss takes."""
        return labels.to(self.target_type)


def choose_loss(name: str, classes: int) -> Loss:
    """Return the loss of that name for so many classes, or say why it does not fit."""
    if name == "ce":
        return Loss("ce", classes, functional.cross_entropy, torch.int64)
    assert name == "bce", f"unknown loss {name}"
    if classes != 2:
        raise UserError(
            f"loss = 'bce' has one output and separates two classes, but the data have {classes}; "
            "use loss = 'ce'"
        )
    return Loss("bce", 1, _binary_cross_entropy, torch.float32)


def log_probabilities(outputs: Tensor) -> Tensor:
    """Return the log-probability of every class, (n, classes), from outputs of either form."""
    if outputs.shape[1] == 1:
        both = torch.cat((-outputs, outputs), dim=1)
        return functional.logsigmoid(both)
    return functional.log_softmax(outputs, dim=1)


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.squeeze(1), targets)
