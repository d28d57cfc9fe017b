"""How a network learns from a batch: its outputs, its loss, and gradients for the optimizer.

    learner.learn(images, targets) -> outputs, loss; gradients lie in learner.weights

Any network can learn by autograd. One that is a stack of plain layers learns
by steps that are written out (`stack`), twice as fast where it is small. Beside
others a network that learns by autograd may be a member of a pack (`functional`).
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
        """What the optimizer updates, by name."""

    def begin(self, steps: int, seed: int) -> AbstractContextManager[object]:
        """Begin an epoch of this many steps, which are taken inside of the context.

        The seed is of what the network draws (dropout).
        """

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""

    def pieces(self) -> Iterable[Piece]:
        """Yield the gradients that are not left there, one after the other, to be used at once."""


class Autograd:
    """A network of any kind, differentiated by torch as it computes."""

    def __init__(self, model: nn.Module, loss: Loss, arithmetic: Arithmetic, why: str = "") -> None:
        self.note = f"by autograd: {why}" if why else "by autograd"
        self.weights = dict(model.named_parameters())
        self.model, self.loss, self.arithmetic = model, loss, arithmetic
        self.pack: FunctionalPack | None = None
        """Where it took its last step, if not alone."""

    def begin(self, steps: int, seed: int) -> AbstractContextManager[object]:  # noqa: ARG002
        """Make the network one that learns, alone."""
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
        # Losses are float32: bfloat16 has 8 bits, too few to tell 0.99 from 0.993.
        outputs = computed.float()
        loss = self.loss.value(outputs, targets)
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()

    def pieces(self) -> Iterable[Piece]:
        """Yield nothing: autograd leaves all gradients in the weights."""
        return ()


def choose_learner(
    model: nn.Module, loss: Loss, arithmetic: Arithmetic, device: torch.device
) -> Learner:
    """Return the fastest learner for a network; weights of a stack's lie in one piece from here."""
    why = obstacle(model)
    if not why and arithmetic.precision != "fp32":
        why = f"a stack's steps are in 32 bits, not in {arithmetic.precision}"
    if not why and device.type != "cpu":
        why = f"a stack's steps were never tried on {device.type}"
    if why:
        return Autograd(model, loss, arithmetic, why)
    return Stack(model, list(model.children()), loss)
