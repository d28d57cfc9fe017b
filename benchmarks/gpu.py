"""Training on a GPU: the notebook loop, one trial step by step and recorded, and packs.

    python -m benchmarks.gpu --device cuda:0

Whole epochs of 1,600 images with the validation of 400, batches of 32, Adam, on the
images of `benchmarks.trainer`, validation and figures included; medians of epochs
without the first two, in which steps are recorded. A pack's epoch is divided by its
members. The floor is that of `benchmarks.trainer`: what operations or memory traffic
take at least. Everything goes through the trainer as a study uses it.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks import trainer as single
from benchmarks.peers import task
from benchmarks.peers.setting import Setting
from tuner.train.abreast import Abreast
from tuner.train.device import Device, open_device
from tuner.train.losses import choose_loss
from tuner.train.objective import find
from tuner.train.own_metrics import OwnMetrics
from tuner.train.recipe import read_recipe
from tuner.train.run import Run
from tuner.train.seeds import seed_initialisation

SKIPPED = 2
"""First epochs, in which libraries load and steps are recorded."""


def main() -> None:
    """Measure as the command line asks."""
    options = _options()
    device = open_device(options.device, 1)
    machine = single.measure(device.torch)
    figures: dict[str, Any] = {
        "device": device.description,
        "gflops": machine.operations["fp32"] / 1e9,
        "gigabytes": machine.bytes / 1e9,
        "cases": {},
    }
    for case in options.case:
        figures["cases"][case] = _case(case, options, device, machine)
        record.progress(f"{case}: {figures['cases'][case]}")
    record.finish(options, "gpu", figures, list(lines(figures)))


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as a Markdown table."""
    speed = f"{figures['gflops'] / 1000:.1f} TFLOP/s in fp32, {figures['gigabytes']:,.0f} GB/s"
    yield from (f"{figures['device']}: {speed}.", "")
    sizes = list(next(iter(figures["cases"].values()))["pack_ms"])
    packs = " | ".join(f"pack of {size}" for size in sizes)
    yield f"| a trial's epoch, ms | notebook loop | step by step | recorded | {packs} | floor |"
    yield "|---" * (len(sizes) + 5) + "|"
    for case, one in figures["cases"].items():
        row = [one["loop_ms"], one["steps_ms"], one["recorded_ms"]]
        row += [one["pack_ms"][size] for size in sizes]
        cells = " | ".join("–" if value is None else f"{value:,.2f}" for value in row)
        yield f"| {case} | {cells} | {one['floor_ms']:.2f} |"


def _case(
    case: str, options: argparse.Namespace, device: Device, machine: single.Machine
) -> dict[str, Any]:
    model, size, more = single.CASES[case]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = Setting(folder=folder, model=model, size=size, seeds=1, epochs=10_000)
        task.write_images(Path(folder) / "images", size)
        first, prepared = single._shared(setting, more, device)
        found = find("chest_xray", [single.REPOSITORY / "objectives"])
        network = single._network(setting, more, prepared)

        def begin(seed: int) -> Run:
            job = dataclasses.replace(first._job, seed=seed)
            recipe = read_recipe(job.parameters)
            loss = choose_loss(recipe, len(prepared.classes), prepared.train.true, device.torch)
            seed_initialisation(seed)
            built = found.build_model(job.parameters, prepared.inputs, loss.outputs)
            return Run(job, built.to(device.torch), loss, prepared, device, OwnMetrics(found, ()))

        loop = single._notebook(setting, single._network(setting, more, prepared), device.torch)
        figures: dict[str, Any] = {
            "loop_ms": _milliseconds(lambda: next(loop), options.loop_epochs, device),
            "floor_ms": 1000 * single.floor(network, setting, machine, "fp32"),
        }
        by_steps = begin(0)
        if by_steps.training.recorded is not None:
            by_steps.training.recorded.graph.obstacle = "measured step by step"
            for forward in by_steps._validation.recorded:
                forward.graph.obstacle = "measured step by step"
        for name, run in (("steps_ms", by_steps), ("recorded_ms", begin(0))):
            epochs = run.epochs(_nothing)
            figures[name] = _milliseconds(lambda: next(epochs), options.epochs, device)  # noqa: B023
            reason = run.training.recorded.graph.obstacle if run.training.recorded else "no GPU"
            figures[f"{name}_note"] = reason
        figures["pack_ms"] = {}
        for members in options.members:
            figures["pack_ms"][str(members)] = _pack(begin, members, options.epochs, device)
            torch.cuda.empty_cache() if device.torch.type == "cuda" else None
    return figures


def _pack(begin: Callable[[int], Run], members: int, epochs: int, device: Device) -> float | None:
    runs = [begin(seed) for seed in range(members)]
    abreast = Abreast()
    for run in runs:
        abreast.mark(run, members)
        if not run.together:
            record.progress(f"no pack: {abreast.obstacle(run)}")
            return None
    if not abreast._pays(runs[0], members):
        record.progress(f"no pack of {members}: {abreast.alone(runs[0], members)}")
        return None

    def train() -> None:
        for _ in abreast.epochs(runs, _nothing):
            pass

    taken = _milliseconds(train, epochs, device) / members
    for ready in abreast._ready.values():
        if ready.recorded is not None and ready.recorded.graph.obstacle:
            record.progress(f"pack of {members} not recorded: {ready.recorded.graph.obstacle}")
    return taken


def _milliseconds(work: Callable[[], Any], times: int, device: Device) -> float:
    taken = []
    for _ in range(SKIPPED + times):
        if device.torch.type == "cuda":
            torch.cuda.synchronize(device.torch)
        begun = time.perf_counter()
        work()
        if device.torch.type == "cuda":
            torch.cuda.synchronize(device.torch)
        taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken[SKIPPED:])


def _nothing() -> None:
    """Stand in for `alive`."""


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=single.CASES, default=list(single.CASES))
    parser.add_argument("--members", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--loop-epochs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
