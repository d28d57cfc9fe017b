"""Time of a training epoch: the notebook loop, the shared trainer, and what the machine allows.

    python -m benchmarks.trainer
    python -m benchmarks.trainer --case ann-64 --epochs 30
    python -m benchmarks.trainer --case cnn-64 --device cuda:0

Both train the same network with Adam on the same images and validate after every epoch, on one
thread. Their epochs alternate in one process, so that other load on the machine affects both alike;
times are medians, without the first epoch.

The loop computes in float32, the trainer in what `precision = "auto"` chooses on this
machine. The floor is what no program can beat: the larger of the operations of an epoch
over the measured speed of a large matrix product in the trainer's precision, and the
bytes that its steps must move over the measured speed of a copy. Bytes: weights are
read on the way forward and back, gradients written and read, weights and Adam's two
moments read and written; images once.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import record
from benchmarks.peers import setting as peers
from benchmarks.peers import task
from benchmarks.peers.loop import evaluate
from benchmarks.peers.setting import Setting
from tuner.records import Job, Value
from tuner.train.data import Prepared, prepare
from tuner.train.device import Device, open_device
from tuner.train.losses import choose_loss
from tuner.train.objective import FoundObjective, find
from tuner.train.own_metrics import OwnMetrics
from tuner.train.precision import choose_arithmetic, supports_bf16
from tuner.train.products import product
from tuner.train.recipe import read_recipe
from tuner.train.run import Run
from tuner.train.seeds import seed_initialisation

REPOSITORY = Path(__file__).resolve().parents[1]
CASES: Mapping[str, tuple[str, int, dict[str, Value]]] = {
    "ann-64": ("ann", 64, {}),
    "ann-64-narrow": ("ann", 64, {"width": 32}),
    "ann-256": ("ann", 256, {}),
    "cnn-64": ("cnn", 64, {"dropout": 0.0}),
    "cnn-256": ("cnn", 256, {"dropout": 0.0}),
}
TITLES = {
    "ann-64": "ANN of 64, 64×64",
    "ann-64-narrow": "ANN of 32, 64×64",
    "ann-256": "ANN of 64, 256×256",
    "cnn-64": "CNN, 64×64",
    "cnn-256": "CNN, 256×256",
}
PASSES_OVER_WEIGHTS = 10
"""Reads and writes of each weight in a step, as the text above counts them."""


@dataclass(frozen=True)
class Machine:
    """What one thread, or the device, can do."""

    operations: Mapping[str, float]
    """Operations per second in a large matrix product, by precision."""
    bytes: float
    """Bytes per second, read or written by a copy."""


def main() -> None:
    """Measure as the command line asks."""
    options = _options()
    device = open_device(options.device, 1)
    machine = measure(device.torch)
    figures: dict[str, Any] = {
        "device": device.description,
        "gflops": {name: speed / 1e9 for name, speed in machine.operations.items()},
        "gigabytes": machine.bytes / 1e9,
        "cases": {},
    }
    for case in options.case:
        figures["cases"][case] = _case(case, options.epochs, device, machine)
        record.progress(f"{case}: {figures['cases'][case]}")
    record.finish(options, "trainer", figures, list(lines(figures)))


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as a Markdown table."""
    speeds = [f"{speed:,.0f} GFLOP/s in {name}" for name, speed in figures["gflops"].items()]
    speed = f"a large matrix product: {', '.join(speeds)}; a copy: {figures['gigabytes']:.0f} GB/s"
    yield from (f"{figures['device']}, one thread; {speed}.", "")
    yield "| | notebook loop, ms | tuner, ms | times | in | floor, ms | share of the floor |"
    yield "|---|---|---|---|---|---|---|"
    for case, one in figures["cases"].items():
        theirs, ours, least = one["loop_ms"], one["tuner_ms"], one["floor_ms"]
        yield (
            f"| {TITLES[case]} | {theirs:,.0f} | {ours:,.0f} | {theirs / ours:.1f} "
            f"| {one['precision']} | {least:,.0f} "
            f"| {100 * least / ours:.0f}% |"
        )


def measure(device: torch.device) -> Machine:
    """Measure a large matrix product, by the faster library, and a large copy."""
    side, count = 1024, 1 << 26
    types = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if supports_bf16(device) else {})
    products = {}
    for name, dtype in types.items():
        first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        fastest = min(
            _best(lambda: first @ second, device),  # noqa: B023
            _best(lambda: product(first, second), device),  # noqa: B023
        )
        products[name] = 2 * side**3 / fastest
    source = torch.randn(count // 4, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    return Machine(products, 2 * count / copy)


def _best(work: Any, device: torch.device) -> float:
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _case(case: str, epochs: int, device: Device, machine: Machine) -> dict[str, Any]:
    model, size, more = CASES[case]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = Setting(folder=folder, model=model, size=size, seeds=1, epochs=epochs)
        task.write_images(Path(folder) / "images", size)
        run, prepared = _shared(setting, more, device)
        network = _network(setting, more, prepared)
        theirs = _notebook(setting, _network(setting, more, prepared), device.torch)
        ours = (epoch.seconds for epoch in run.epochs(lambda: None))
        pairs = [(next(theirs), next(ours)) for _ in range(epochs)][1:]
    loop, tuner = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    precision = choose_arithmetic("auto", device.torch, network).precision
    least = 1000 * floor(network, setting, machine, precision)
    return {"loop_ms": loop, "tuner_ms": tuner, "floor_ms": least, "precision": precision}


def floor(network: nn.Module, setting: Setting, machine: Machine, precision: str) -> float:
    """Return the lower bound on an epoch's seconds set by operations or memory traffic."""
    steps = 2 * peers.COUNTS[""] // peers.BATCH
    images = torch.randn(peers.BATCH, 1, setting.size, setting.size)
    labels = torch.zeros(peers.BATCH, dtype=torch.int64)
    # Loads triton, which complains about itself at the end of every process that has it.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
    validation = counter.get_total_flops() / 3 * 2 * peers.COUNTS["val_"] / peers.BATCH
    operations = counter.get_total_flops() * steps + validation
    weights = sum(weight.numel() for weight in network.parameters())
    moved = 4 * (PASSES_OVER_WEIGHTS * weights + images.numel()) * steps
    return float(max(operations / machine.operations[precision], moved / machine.bytes))


def _parameters(
    setting: Setting, more: Mapping[str, Value], found: FoundObjective
) -> dict[str, Value]:
    declared = found.objective.declarations().parameters.values()
    defaults = {parameter.name: parameter.default for parameter in declared}
    chosen: dict[str, Value] = {
        "loss": "ce",
        "model": setting.model,
        "batch_size": peers.BATCH,
        "epochs": setting.epochs,
        "width": peers.WIDTH,
        "dropout": peers.DROPOUT,
    }
    return defaults | chosen | dict(more)


def _shared(setting: Setting, more: Mapping[str, Value], device: Device) -> tuple[Run, Prepared]:
    found = find("chest_xray", [REPOSITORY / "objectives"])
    parameters = _parameters(setting, more, found)
    keys: dict[str, Value] = {
        parameter.name: parameter.default
        for parameter in found.objective.declarations().data.values()
    }
    place = Path(setting.folder)
    keys |= {"source": "npy", "path": str(place / "images"), "image_size": setting.size}
    prepared = prepare(found.load_data(keys, place / "cache", lambda *_: None), device.torch)
    recipe = read_recipe(parameters)
    loss = choose_loss(recipe, len(prepared.classes), prepared.train.true, device.torch)
    seed_initialisation(0)
    model = found.build_model(parameters, prepared.inputs, loss.outputs).to(device.torch)
    job = Job("chest_xray", parameters, keys, seed=0, metric="val_loss")
    return Run(job, model, loss, prepared, device, OwnMetrics(found, ())), prepared


def _network(setting: Setting, more: Mapping[str, Value], prepared: Prepared) -> nn.Module:
    found = find("chest_xray", [REPOSITORY / "objectives"])
    return found.build_model(_parameters(setting, more, found), prepared.inputs, 2)


def _notebook(setting: Setting, model: nn.Module, device: torch.device) -> Iterator[float]:
    """Train as a notebook does, yielding the seconds of each epoch."""
    model.to(device)
    parts = {part: TensorDataset(*arrays) for part, arrays in task.load(setting).items()}
    train: DataLoader[Any] = DataLoader(parts[""], batch_size=peers.BATCH, shuffle=True)
    val: DataLoader[Any] = DataLoader(parts["val_"], batch_size=peers.BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=peers.RATE)
    criterion = nn.CrossEntropyLoss()
    while True:
        started = time.perf_counter()
        model.train()
        for images, labels in train:
            optimizer.zero_grad()
            loss = criterion(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        evaluate(model, val)
        yield time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    main()
