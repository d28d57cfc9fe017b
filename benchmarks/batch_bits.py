"""What decides the last bits of a prediction: companions, the place among them, their number.

    python -m benchmarks.batch_bits [device] [threads]

For each network a batch is predicted, and then one image at a time again: at its
own place among other companions, at other places, and in batches of other sizes.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.records import Value
from tuner.train.device import Device, open_device
from tuner.train.losses import log_probabilities
from tuner.train.networks.models import build
from tuner.train.precision import Arithmetic, choose_arithmetic, convolves, lay_out

CASES = (
    ("ann", 64),
    ("ann", 256),
    ("cnn", 64),
    ("cnn", 128),
    ("cnn_gap", 64),
    ("resnet18", 64),
    ("efficientnet_b0", 64),
    ("densenet121", 64),
)
OTHER_SIZES = (1, 2, 3, 4, 7, 16, 31, 32, 33)
IMAGES = 103
PARAMETERS: dict[str, Value] = {
    "depth": 3,
    "width": 64,
    "dropout": 0.3,
    "batch_norm": True,
    "pool_kernel": 2,
    "weights": "",
}

Logs = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A network with random weights, and how it is computed."""

    model: nn.Module
    arithmetic: Arithmetic
    device: Device
    size: int
    """Images evaluated at a time."""

    def predict(self, images: Tensor) -> Logs:
        """Return the log-probabilities of one batch."""
        with torch.inference_mode():
            there = self.arithmetic.arranged(images.clone().to(self.device.torch))
            return np.asarray(log_probabilities(self.model(there)).cpu().numpy())


def prepare(kind: str, side: int, outputs: int, device: Device) -> Network:
    """Build a network as a trainer would."""
    torch.manual_seed(0)
    model = build({**PARAMETERS, "model": kind}, (1, side, side), outputs).to(device.torch)
    arithmetic = choose_arithmetic("auto", device.torch, model)
    lay_out(model, arithmetic)
    model.eval()
    size = device.evaluation_size(side * side, convolves=convolves(model))
    return Network(model, arithmetic, device, min(size, IMAGES))


def differing(network: Network, images: Tensor) -> str:
    """Say in how many of the images bits change, and by how much at most."""
    size = network.size
    whole = np.concatenate([network.predict(part) for part in torch.split(images, size)])
    company, place = 0, 0
    for number in range(len(images)):
        start = number // size * size
        length = len(images[start : start + size])
        for shift in (0, 1):
            batch = torch.zeros_like(images[:length])
            at = (number - start + shift) % length
            batch[at] = images[number]
            apart = bool((network.predict(batch)[at] != whole[number]).any())
            company, place = company + (apart and not shift), place + (apart and bool(shift))
    sizes = []
    for other in OTHER_SIZES:
        found = network.predict(images[:other])
        apart = (found != whole[:other]).any(axis=1)
        if apart.any():
            sizes.append(f"{other} ({np.abs(found - whole[:other]).max():.0e})")
    return (
        f"{company} by companions, {place} by the next place; batches of other sizes that differ "
        f"from {size}: {', '.join(sizes) or 'none'}"
    )


def main() -> None:
    """Print a line a network."""
    text = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    device = open_device(text, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    print(f"{device.description}, {dict(device.notes)}")
    for kind, side in CASES:
        for outputs in (1, 2):
            torch.manual_seed(1)
            images = torch.randn(IMAGES, 1, side, side)
            network = prepare(kind, side, outputs, device)
            print(f"{kind} {side}×{side} {outputs} out: {differing(network, images)}", flush=True)


if __name__ == "__main__":
    main()
