"""Time of a member's epoch in packs of several sizes, beside the same network by autograd.

    python -m benchmarks.packs
    python -m benchmarks.packs --device cuda:0 --case ann-64 --members 1 4 16 64

Batches of noise, 50 steps an epoch of 32 images each, Adam; epochs of all sizes
take turns in one process. `apart` is the largest difference between the loss of
a member and the loss of the same network by autograd over the first steps, before
rounding errors have grown: what a device computes is compared with another way of
computing it. The ANNs are packs of stacks, the others packs by torch.func, of one
member too. On a GPU both are used here alone; training there is by autograd.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import record
from tuner.records import Value
from tuner.train.device import Device, open_device
from tuner.train.functional import FunctionalPack
from tuner.train.learners import Autograd, Learner
from tuner.train.losses import Loss, choose_loss
from tuner.train.networks.declared import PARAMETERS
from tuner.train.networks.models import build
from tuner.train.optimizers import Optimizer, build_optimizer
from tuner.train.precision import Arithmetic, convolves, lay_out
from tuner.train.recipe import read_recipe
from tuner.train.stack import Pack, Stack, layers_of

CASES: Mapping[str, tuple[int, dict[str, Value]]] = {
    "ann-64": (64, {"width": 64}),
    "ann-64-narrow": (64, {"width": 32}),
    "ann-32-tiny": (32, {"width": 16}),
    "ann-256": (256, {"width": 64}),
    "cnn-64": (64, {"model": "cnn"}),
    "cnn-16": (16, {"model": "cnn"}),
    "own-16": (16, {"model": "own", "width": 8}),
    "own-8": (8, {"model": "own", "width": 4}),
}
TITLES = {
    "ann-64": "ANN of 64, 64×64",
    "ann-64-narrow": "ANN of 32, 64×64",
    "ann-32-tiny": "ANN of 16, 32×32",
    "ann-256": "ANN of 64, 256×256",
    "cnn-64": "CNN, 64×64",
    "cnn-16": "CNN, 16×16",
    "own-16": "own network (residual, batch norm) of 8 channels, 16×16",
    "own-8": "the same of 4 channels, 8×8",
}
STEPS, BATCH, CLASSES = 50, 32, 2
COMPARED = 3
"""First steps whose losses are compared with autograd's."""


class Own(nn.Module):
    """A small network as an objective may define it: two residual blocks with batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.last = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.first(images)
        for block, norm in zip(self.blocks, self.norms, strict=True):
            found = functional.relu(found + norm(block(found)))
        outputs: Tensor = self.last(found.mean((2, 3)))
        return outputs


Epoch = Callable[[], list[float]]
"""Trains an epoch and returns the losses of its first steps, of every member."""


def main() -> None:
    """Measure as the command line asks."""
    options = _options()
    device = open_device(options.device, 1)
    figures: dict[str, Any] = {"device": device.description, "cases": {}}
    for case in options.case:
        alone, packed, apart = _measure(case, options.members, options.epochs, device)
        packs = {str(size): packed[size] for size in options.members}
        figures["cases"][case] = {"autograd_ms": alone, "pack_ms": packs, "apart": apart}
        record.progress(f"{case}: {figures['cases'][case]}")
    record.finish(options, "packs", figures, list(lines(figures)))


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as a Markdown table."""
    sizes = list(next(iter(figures["cases"].values()))["pack_ms"])
    heads = ["alone" if size == "1" else f"of {size}" for size in sizes]
    yield f"| a member's epoch, ms | by autograd | {' | '.join(heads)} | first losses apart |"
    yield "|---" * (len(sizes) + 3) + "|"
    for case, one in figures["cases"].items():
        row = " | ".join(f"{one['pack_ms'][size]:,.0f}" for size in sizes)
        yield f"| {TITLES[case]} | {one['autograd_ms']:,.0f} | {row} | {one['apart']:.0e} |"


def _measure(
    case: str, sizes: list[int], epochs: int, device: Device
) -> tuple[float, dict[int, float], float]:
    size, more = CASES[case]
    parameters = {one.name: one.default for one in PARAMETERS} | {"dropout": 0.0} | more
    torch.manual_seed(0)
    if parameters["model"] == "own":
        network: nn.Module = Own(int(parameters["width"])).to(device.torch)
    else:
        network = build(parameters, (1, size, size), CLASSES).to(device.torch)
    arithmetic = Arithmetic("fp32", channels_last=convolves(network), reason="")
    lay_out(network, arithmetic)
    chance = torch.Generator().manual_seed(1)
    images = torch.randn(STEPS, BATCH, 1, size, size, generator=chance).to(device.torch)
    labels = torch.randint(CLASSES, (STEPS, BATCH), generator=chance).to(device.torch)
    recipe = read_recipe({"lr": 1e-4})
    loss = choose_loss(recipe, CLASSES, np.arange(CLASSES), device.torch)
    model = copy.deepcopy(network)
    usual = Autograd(model, loss, arithmetic)
    makers = {0: _alone(usual, build_optimizer(recipe, usual.weights), images, labels)}
    makers |= {count: _packed(network, count, usual, images, labels) for count in sizes}
    first = {count: epoch() for count, epoch in makers.items()}
    apart = max(
        abs(one - first[0][at % COMPARED]) for f in first.values() for at, one in enumerate(f)
    )
    taken: dict[int, list[float]] = {count: [] for count in makers}
    for _ in range(epochs):
        for count, epoch in makers.items():
            begun = time.perf_counter()
            epoch()
            _await(device)
            taken[count].append((time.perf_counter() - begun) / max(1, count))
    medians = {count: 1000 * statistics.median(seconds) for count, seconds in taken.items()}
    return medians.pop(0), medians, apart


def _alone(learner: Learner, optimizer: Optimizer, images: Tensor, labels: Tensor) -> Epoch:
    def epoch() -> list[float]:
        losses = []
        with learner.begin(STEPS, 0):
            for some, true in zip(images, labels, strict=True):
                losses.append(learner.learn(some.clone(), true)[1])
                optimizer.step(learner.pieces())
        return [float(one) for one in losses[:COMPARED]]

    return epoch


def _packed(
    network: nn.Module, count: int, usual: Autograd, images: Tensor, labels: Tensor
) -> Epoch:
    learners: list[Stack] | list[Autograd]
    pack: Pack | FunctionalPack
    if layers_of(network) is None:
        models = [copy.deepcopy(network) for _ in range(count)]
        learners = [Autograd(model, usual.loss, usual.arithmetic) for model in models]
        pack = FunctionalPack(learners)
    else:
        learners = [_stack(network, usual.loss) for _ in range(count)]
        pack = Pack(learners)
    optimizers = [build_optimizer(read_recipe({"lr": 1e-4}), one.weights) for one in learners]
    bare = count == 1 and isinstance(pack, Pack)

    def epoch() -> list[float]:
        losses = []
        with pack.begin(STEPS, range(count)):
            for some, true in zip(images, labels, strict=True):
                given = some.clone() if bare else some.expand(count, *some.shape).clone()
                losses.append(pack.learn(given, [true] * count)[1])
                for place, optimizer in enumerate(optimizers):
                    optimizer.step(pack.pieces(place))
        seen = [one.reshape(-1).tolist() for one in losses[:COMPARED]]
        return [step[member] for member in range(count) for step in seen]

    return epoch


def _stack(network: nn.Module, loss: Loss) -> Stack:
    model = copy.deepcopy(network)
    layers = layers_of(model)
    assert layers is not None
    return Stack(model, layers, loss)


def _await(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--members", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
