"""Converts a training state to files and back; files are not trusted."""

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor

from tuner.train.checkpoints.manifest import DamagedError, Manifest
from tuner.train.state import TrainingState


def encode(state: TrainingState) -> dict[str, bytes]:
    """Return a state's parts; the best weights are left out if they are the current ones."""
    parts = {"weights": _encode(state.weights), "optimizer": _encode(state.optimizer)}
    if state.best_epoch != len(state.curve):
        parts["best_weights"] = _encode(state.best_weights)
    return parts


def decode(manifest: Manifest, parts: Mapping[str, bytes]) -> TrainingState:
    """Return the state with these parts, or raise DamagedError if they are invalid."""
    try:
        weights = load(parts["weights"])
        best = load(parts["best_weights"])
        optimizer = load(parts["optimizer"])
    # For invalid bytes the library raises errors of many types.
    except Exception as error:
        raise DamagedError(f"its parts cannot be read ({type(error).__name__})") from error
    return TrainingState(weights, best, manifest.best_epoch, optimizer, manifest.curve)


def _encode(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
