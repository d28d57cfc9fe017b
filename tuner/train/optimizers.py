"""The optimizers that a study can choose: torch's fused kernels, without torch's classes.

One kernel updates all weights. The classes of torch.optim call the same kernels,
but spend more time on bookkeeping than a small network's update takes, and load
torch's compiler, which costs every training process 2 s.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tuner.errors import UserError
from tuner.train.recipe import Recipe

BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""The default of torch's Adam and of the paper."""

PART = 1 << 14
"""How many numbers one block of GPU threads updates in a recorded step."""

Memory = dict[str, Tensor]
"""An optimizer's state: tensors named `what.weight`."""
Memories = Callable[[str], list[Tensor]]
"""Returns one kind of state for the weights being updated."""


class Piece(NamedTuple):
    """The gradient of some rows of a weight; a weight's pieces come in the order of its rows."""

    name: str
    start: int
    gradient: Tensor


class Optimizer:
    """Updates weights by their gradients; its state has the memory layout of the weights."""

    def __init__(self, weights: Mapping[str, nn.Parameter], lr: float, remembered: tuple[str, ...]):
        self._weights = {name: one for name, one in weights.items() if one.requires_grad}
        self._lr: float | Tensor = lr
        self._remembered = remembered
        self._memory = {
            f"{what}.{name}": torch.zeros_like(weight, requires_grad=False)
            for what in remembered
            for name, weight in self._weights.items()
        }
        # A step count for each weight: a step skips weights without a gradient.
        self._memory |= {
            f"step.{name}": torch.zeros((), device=weight.device)
            for name, weight in self._weights.items()
        }

    def set_rate(self, lr: float | Tensor) -> None:
        """Set the learning rate of the following steps.

        A tensor on the weights' GPU is read by the kernel, so that a recorded step uses the
        rate that it contains at replay.
        """
        self._lr = lr

    @torch.no_grad()
    def step(self, pieces: Iterable[Piece] = ()) -> None:
        """Update every weight that has a gradient, and those whose gradients come in pieces."""
        names = [name for name, weight in self._weights.items() if weight.grad is not None]
        if names:
            weights: list[Tensor] = [self._weights[name] for name in names]
            grads = [weight.grad for weight in weights if weight.grad is not None]
            torch._foreach_add_(self._of("step", names), 1)
            if weights[0].is_cuda and torch.cuda.is_current_stream_capturing():
                self._update_in_parts(names, weights, grads)
            else:
                self._update(weights, grads, lambda what: self._of(what, names))
        for piece in pieces:
            self._update_piece(piece)

    def _update_in_parts(
        self, names: list[str], weights: list[Tensor], grads: list[Tensor]
    ) -> None:
        """Update weights as views of some thousand numbers each.

        The kernels give 65,536 numbers of a tensor to one block of threads, so a small
        network's update would keep only a few of a GPU's hundred processors busy. Each number
        is updated independently, so the bits do not depend on the parts. Creating views costs
        Python some time, which a recorded step pays once.
        """
        parts: dict[str, list[Tensor]] = {}
        held = ("weights", "grads", *self._remembered)
        for name, weight, grad in zip(names, weights, grads, strict=True):
            whole = [weight, grad, *(self._memory[f"{what}.{name}"] for what in self._remembered)]
            if all(one.is_contiguous() for one in whole):
                split = [one.view(-1).split(PART) for one in whole]  # type: ignore[no-untyped-call]
            else:
                split = [(one,) for one in whole]
            for what, tensors in zip(held, split, strict=True):
                parts.setdefault(what, []).extend(tensors)
            parts.setdefault("step", []).extend([self._memory[f"step.{name}"]] * len(split[0]))
        self._update(parts["weights"], parts["grads"], lambda what: parts[what])

    def _update_piece(self, piece: Piece) -> None:
        name, rows = piece.name, slice(piece.start, piece.start + len(piece.gradient))
        if piece.start == 0:
            self._memory[f"step.{name}"] += 1

        def of(what: str) -> list[Tensor]:
            held = self._memory[f"{what}.{name}"]
            return [held if what == "step" else held[rows]]

        self._update([self._weights[name][rows]], [piece.gradient], of)

    def state(self) -> Memory:
        """Return a copy of the state, which later steps do not change."""
        return {name: held.clone() for name, held in self._memory.items()}

    def restore(self, state: Memory) -> None:
        """Restore the state of another optimizer of this kind, in our weights' memory layout."""
        for name, held in self._memory.items():
            held.copy_(state[name])

    def _of(self, what: str, names: list[str]) -> list[Tensor]:
        return [self._memory[f"{what}.{name}"] for name in names]

    def _update(self, weights: list[Tensor], grads: list[Tensor], of: Memories) -> None:
        raise NotImplementedError


class Adam(Optimizer):
    """Adam with weight decay added to gradients, or AdamW with decoupled weight decay."""

    def __init__(self, weights: Mapping[str, nn.Parameter], recipe: Recipe, *, decoupled: bool):
        super().__init__(weights, recipe.lr, ("mean", "square"))
        self._decay = recipe.weight_decay
        self._kernel: Callable[..., None] = torch._fused_adamw_ if decoupled else torch._fused_adam_

    def _update(self, weights: list[Tensor], grads: list[Tensor], of: Memories) -> None:
        self._kernel(
            weights,
            grads,
            of("mean"),
            of("square"),
            [],
            of("step"),
            lr=self._lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self._decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, optionally Nesterov's."""

    def __init__(self, weights: Mapping[str, nn.Parameter], recipe: Recipe):
        super().__init__(weights, recipe.lr, ("velocity",) if recipe.momentum else ())
        self._recipe = recipe

    def _update(self, weights: list[Tensor], grads: list[Tensor], of: Memories) -> None:
        # A velocity of 0 becomes the gradient in the first step, which needs no special case.
        kernel: Callable[..., None] = torch._fused_sgd_
        kernel(
            weights,
            grads,
            of("velocity") if self._recipe.momentum else [],
            weight_decay=self._recipe.weight_decay,
            momentum=self._recipe.momentum,
            lr=self._lr,
            dampening=0.0,
            nesterov=self._recipe.nesterov,
            maximize=False,
            is_first_step=False,
        )


def build_optimizer(recipe: Recipe, weights: Mapping[str, nn.Parameter]) -> Optimizer:
    """Return a new optimizer of the recipe's kind over named weights."""
    if recipe.optimizer == "sgd":
        _check_nesterov(recipe)
        return SGD(weights, recipe)
    return Adam(weights, recipe, decoupled=recipe.optimizer == "adamw")


def _check_nesterov(recipe: Recipe) -> None:
    if recipe.nesterov and recipe.momentum == 0:
        raise UserError(
            "nesterov = true with momentum = 0: Nesterov's method needs momentum; "
            "set momentum above 0 or leave nesterov out"
        )
