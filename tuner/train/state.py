"""The complete state of a training between two epochs."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.records import Epoch
from tuner.train.optimizers import Memory

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """A training between two epochs; with the job, it determines all further epochs."""

    weights: Weights
    best_weights: Weights
    best_epoch: int
    """0 before the first epoch."""
    optimizer: Memory
    curve: tuple[Epoch, ...]


def copy_weights(model: nn.Module) -> Weights:
    """Return a copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def fingerprint(weights: Weights) -> str:
    """Hash names, types, shapes and every bit of the weights."""
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
