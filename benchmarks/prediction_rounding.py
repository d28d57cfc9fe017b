"""How much predictions differ if only the order of summation does: batch sizes and threads.

    python -m benchmarks.prediction_rounding [device]

Each network predicts the same images in batches as large as a study's, in batches of other sizes
and, on a CPU, with another number of threads. The differences are measured as in
`tuner.winner.document`: in nats, relative above 1 nat.
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
from tuner.winner.agreement import compare

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
SURE = 20.0
"""Outputs are multiplied by this: a trained network is more confident than random weights."""

Logs = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A network with random weights, and the precision and device it runs in."""

    model: nn.Module
    arithmetic: Arithmetic
    device: Device
    size: int
    """Images evaluated at a time."""

    def predict(self, images: Tensor, size: int) -> Logs:
        """Return the log-probabilities of images, predicted in batches of this size."""
        parts = []
        with torch.inference_mode():
            for part in torch.split(images, size):
                there = self.arithmetic.arranged(part.clone().to(self.device.torch))
                parts.append(log_probabilities(SURE * self.model(there)).cpu().numpy())
        return np.concatenate(parts)


def prepare(kind: str, side: int, outputs: int, device: Device) -> Network:
    """Build a network as a trainer would."""
    torch.manual_seed(0)
    model = build({**PARAMETERS, "model": kind}, (1, side, side), outputs).to(device.torch)
    arithmetic = choose_arithmetic("auto", device.torch, model)
    lay_out(model, arithmetic)
    model.eval()
    size = device.evaluation_size(side * side, convolves=convolves(model))
    return Network(model, arithmetic, device, min(size, IMAGES))


def main() -> None:
    """Print a line for each network."""
    device = open_device(sys.argv[1] if len(sys.argv) > 1 else "cpu", 1)
    print(f"{device.description}, {dict(device.notes)}")
    for kind, side in CASES:
        for outputs in (1, 2):
            torch.manual_seed(1)
            images = torch.randn(IMAGES, 1, side, side)
            network = prepare(kind, side, outputs, device)
            stored = network.predict(images, network.size)
            sizes = {
                other: compare(network.predict(images, other), stored).largest_difference
                for other in OTHER_SIZES
            }
            torch.set_num_threads(2)
            threads = compare(network.predict(images, network.size), stored).largest_difference
            torch.set_num_threads(1)
            worst = max(sizes, key=lambda other: sizes[other])
            print(
                f"{kind} {side}×{side} {outputs} out: {sizes[worst]:.1e} in batches of {worst}, "
                f"{threads:.1e} with 2 threads",
                flush=True,
            )


if __name__ == "__main__":
    main()
