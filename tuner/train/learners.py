"""How a network learns from a batch: outputs, loss, and gradients for the optimizer.

    learner.learn(images, targets) -> outputs, loss; gradients lie in learner.weights

Any network can learn by autograd. A stack of plain layers learns by hand-written
derivatives (`stack`), twice as fast if it is small. A network that learns by autograd
may also be a member of a pack (`functional`).
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from tuner.train.functional import FunctionalPack, part
from tuner.train.losses import Loss
from tuner.train.optimizers import Piece
from tuner.train.precision import Arithmetic
from tuner.train.stack import Stack, obstacle


class Learner(Protocol):
    """One network under one loss."""

    model: nn.Module
    note: str
    """How it learns, for the record."""

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """The weights that the optimizer updates, by name."""

    def begin(self, steps: int, seed: int) -> AbstractContextManager[object]:
        """Start an epoch of this many steps, which are taken inside the context.

        The seed determines what the network draws (dropout).
        """

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""

    def pieces(self) -> Iterable[Piece]:
        """Yield the gradients that are not left in the weights; each must be used at once."""

    def evaluate(self, images: Tensor) -> Tensor:
        """Return the outputs of the network, which is in evaluation mode; no gradients."""


class Autograd:
    """Any network, differentiated by torch's autograd."""

    def __init__(self, model: nn.Module, loss: Loss, arithmetic: Arithmetic, why: str = "") -> None:
        self.note = f"by autograd: {why}" if why else "by autograd"
        self.weights = dict(model.named_parameters())
        self.model, self.loss, self.arithmetic = model, loss, arithmetic
        self.pack: FunctionalPack | None = None
        """The pack of its last step, if it was not alone."""

    def begin(self, steps: int, seed: int) -> AbstractContextManager[object]:  # noqa: ARG002
        """Put the network in training mode, outside of any pack."""
        if self.pack is not None:
            part(self.model)
            self.pack = None
        torch.manual_seed(seed)
        self.model.train()
        return nullcontext()

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""
        with self.arithmetic.training(images.device):
            computed: Tensor = self.model(self.arithmetic.arranged(images))
        # Losses are float32: the 8 bits of bfloat16 cannot distinguish 0.99 from 0.993.
        outputs = computed.float()
        loss = self.loss.value(outputs, targets)
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()

    def pieces(self) -> Iterable[Piece]:
        """Yield nothing: autograd leaves all gradients in the weights."""
        return ()

    def evaluate(self, images: Tensor) -> Tensor:
        """Return the outputs of the network, which is in evaluation mode."""
        outputs: Tensor = self.model(self.arithmetic.arranged(images))
        return outputs


def choose_learner(
    model: nn.Module, loss: Loss, arithmetic: Arithmetic, device: torch.device
) -> Learner:
    """Return the fastest learner for a network; a stack's weights move into one tensor."""
    why = obstacle(model)
    if not why and arithmetic.precision != "fp32":
        why = f"a stack's steps are in 32 bits, not in {arithmetic.precision}"
    if not why and device.type != "cpu":
        why = f"a stack's steps are untested on {device.type}"
    if why:
        return Autograd(model, loss, arithmetic, why)
    return Stack(model, list(model.children()), loss)
