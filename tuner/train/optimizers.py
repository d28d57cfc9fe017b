"""The optimizers a study can choose, in torch's fastest form for the device."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from tuner.errors import UserError
from tuner.train.recipe import Recipe

FUSED_DEVICES = ("cpu", "cuda")
"""Where one kernel updates all weights; elsewhere torch's foreach form is used."""


def build_optimizer(
    recipe: Recipe, weights: Iterable[nn.Parameter], device: torch.device
) -> Optimizer:
    """Return a fresh optimizer of the recipe's kind over the weights."""
    fused = True if device.type in FUSED_DEVICES else None
    if recipe.optimizer == "sgd":
        _check_nesterov(recipe)
        return SGD(
            weights,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    kind = AdamW if recipe.optimizer == "adamw" else Adam
    return kind(weights, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the steps to come."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _check_nesterov(recipe: Recipe) -> None:
    if recipe.nesterov and recipe.momentum == 0:
        raise UserError(
            "nesterov = true with momentum = 0: Nesterov's method needs momentum; "
            "set momentum above 0 or leave nesterov out"
        )
