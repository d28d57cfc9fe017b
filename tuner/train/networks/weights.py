"""Reads a file of weights without executing anything in it."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tuner.errors import UserError

NESTED = ("state_dict", "model")
"""Keys under which training programs save the weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a torch file that holds only tensors."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return _named(path, torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"there is no file of weights at {path}; correct `weights`") from None
    except OSError as error:
        raise UserError(f"the weights at {path} cannot be read: {error.strerror}") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
        raise UserError(
            f"{path} is not a file of weights: expected safetensors, or a torch file that contains "
            "only tensors"
        ) from None


def _named(path: Path, content: object) -> dict[str, Tensor]:
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(x, Tensor) for x in content.values()):
        raise UserError(f"{path} has no weights by name; save the model's state_dict()")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
