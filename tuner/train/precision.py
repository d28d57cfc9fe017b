"""The precision that a network is computed in, and the memory layout of its tensors.

Weights, losses, optimizers and figures are always float32; bf16 means that a training
step's products are computed in bfloat16. Evaluation is always float32, so that no
figure is rounded; it takes a tenth of the cnn's epoch at 64×64.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.errors import UserError


@dataclass(frozen=True)
class Arithmetic:
    """The choice for one network on one device, with its reason."""

    precision: str
    """fp32 or bf16."""
    channels_last: bool
    reason: str

    def note(self) -> str:
        """Return the choice and its reason as a sentence for the record."""
        layout = "channels last" if self.channels_last else "contiguous"
        return f"{self.precision}, {layout}: {self.reason}"

    def training(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which training steps compute their outputs."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def arranged(self, images: Tensor) -> Tensor:
        """Return a batch in the network's memory layout."""
        if not self.channels_last:
            return images
        return images.contiguous(memory_format=torch.channels_last)


def choose_arithmetic(asked: str, device: torch.device, model: nn.Module) -> Arithmetic:
    """Return what `precision` means for a network on a device, or raise if it is unsupported."""
    supported = supports_bf16(device)
    if asked == "bf16" and not supported:
        raise UserError(
            f"precision = 'bf16' is not supported on {device}: it has no bfloat16 arithmetic; "
            "use precision = 'fp32' or 'auto'"
        )
    if asked == "auto":
        precision, reason = _automatic(model, supported=supported)
    else:
        precision, reason = asked, "as the study asks"
    # channels_last makes convolutions twice as fast on a CPU, and on a GPU with bf16 tensor cores.
    last = convolves(model) and (device.type == "cpu" or precision == "bf16")
    return Arithmetic(precision, last, reason)


def convolves(model: nn.Module) -> bool:
    """Return whether a network has convolutions."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def supports_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively, not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # torch has no public API for it; if these are missing, float32 is used.
    probes: list[Callable[[], bool] | None] = [
        getattr(torch.cpu, name, None)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return any(probe() for probe in probes if probe is not None)


def lay_out(model: nn.Module, arithmetic: Arithmetic) -> None:
    """Put a network's weights into the memory layout of the arithmetic."""
    if arithmetic.channels_last:
        model.to(memory_format=torch.channels_last)


def _automatic(model: nn.Module, *, supported: bool) -> tuple[str, str]:
    if not supported:
        return "fp32", "the device has no bfloat16 arithmetic"
    if not convolves(model):
        return "fp32", "small matrix products gain nothing from bfloat16"
    return "bf16", "convolutions take a fraction of the time, and weights stay float32"
