"""A training state as files, and back; nothing in a file is trusted on the way."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from tuner.train.checkpoints.manifest import DamagedError, Manifest
from tuner.train.state import TrainingState, Weights


def encode(state: TrainingState) -> dict[str, bytes]:
    """Return a state's parts; the best weights are left out where they are the current ones."""
    parts = {"weights": _encode_weights(state.weights), "optimizer": _encode(state.optimizer)}
    if state.best_epoch != len(state.curve):
        parts["best_weights"] = _encode_weights(state.best_weights)
    return parts


def decode(manifest: Manifest, parts: Mapping[str, bytes]) -> TrainingState:
    """Return the state whose parts these are, or raise DamagedError if they are none."""
    try:
        weights = load(parts["weights"])
        best = load(parts["best_weights"])
        optimizer = torch.load(
            io.BytesIO(parts["optimizer"]), map_location="cpu", weights_only=True
        )
    # Bytes that are no tensors make both libraries raise errors of many kinds.
    except Exception as error:
        raise DamagedError(f"its parts cannot be read ({type(error).__name__})") from error
    if not isinstance(optimizer, dict):
        raise DamagedError("its optimizer state is none")
    return TrainingState(weights, best, manifest.best_epoch, optimizer, manifest.curve)


def _encode_weights(weights: Weights) -> bytes:
    return save({name: _here(value) for name, value in weights.items()})


def _here(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()


def _encode(optimizer: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(optimizer), buffer)
    return buffer.getvalue()
