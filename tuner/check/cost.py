"""What a study will cost: seconds per epoch at the ends of its space, hours, memory; and noise."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tuner.answers.forecast import Guess, fit_sentence
from tuner.questions import Body, Checker, Progress, serve
from tuner.records import Job, Value
from tuner.spec.space import Choice, Dimension
from tuner.spec.study import Spec

DRIVERS = ("model", "depth", "width", "pool_kernel", "batch_size", "augment", "precision")
"""Parameters that determine the cost of an epoch, besides the size and number of images."""
DATA_DRIVERS = ("data.image_size", "data.train_images", "data.source", "data.path")
MOST = 6
"""How many settings are measured."""
MEASURED = 2
"""Epochs that are measured after one warm-up epoch."""
FALLING = ("batch_size", "pool_kernel")
"""Drivers whose larger values cost less."""
HEAVIER = ("ann", "cnn_gap", "cnn", "efficientnet_b0", "resnet18", "densenet121")
"""Networks by the cost of an epoch, cheapest first."""


@dataclass(frozen=True)
class EpochCost:
    """The measured cost of an epoch of one setting."""

    chosen: dict[str, Value]
    """Only the parameters that determine the cost."""
    seconds: float
    parameters: int
    pack: int
    """How many trials of its shape a trainer would train at a time."""
    alone: str
    """Why trials are trained one at a time, if they are."""
    together: bool
    """Whether a pack would use torch.func, which rounds differently from training alone."""


@dataclass(frozen=True)
class Cost:
    """The cheapest and the most expensive settings of a study, and an estimate of all of it."""

    measured: tuple[EpochCost, ...]
    """Fastest first."""
    memory_bytes: int
    """Peak memory of the measuring process, or of the GPU it used."""
    on: str
    epochs: int
    """Epochs of all trials together, limited by a budget in epochs, assuming that no trial is
    pruned and no epoch reused."""
    seconds: float
    """Seconds of these epochs, trained one after another."""
    workers: int
    all_epochs: int
    """Epochs of all trials if each is trained to completion."""
    all_seconds: float
    """Seconds of those epochs."""
    remarks: tuple[str, ...] = ()
    """What the trainer noticed about the models' outputs."""

    @property
    def measured_epochs(self) -> int:
        """How many epochs the estimate is based on."""
        return MEASURED * len(self.measured)

    @property
    def hours(self) -> float:
        """Estimated hours of the study on its workers."""
        return self.seconds / self.workers / 3600

    def short(self, spec: Spec) -> tuple[str, ...]:
        """Say whether the study's budget of hours, money or epochs is too small for its trials."""
        # A study with paused trials has, on purpose, many more trials than its budget in epochs
        # could complete. The question is then whether it can train the budget's epochs.
        by_epochs = spec.promotes and spec.epoch_limit is not None
        epochs = self.epochs if by_epochs else self.all_epochs
        hours = (self.seconds if by_epochs else self.all_seconds) / 3600
        budget = spec.budget
        price = budget.price_per_hour or 0.0
        limits = (
            (budget.hours, hours),
            (budget.money, hours * price),
            (spec.epoch_limit, epochs),
        )
        reach = [limit / needed for limit, needed in limits if limit is not None and needed > 0]
        if not reach or min(reach) >= 1:
            return ()
        fit = fit_sentence(Guess(min(reach) * spec.total_trials), spec.total_trials)
        needs = [f"{hours:,.2g} hours"] + ([f"a cost of {hours * price:,.2f}"] if price else [])
        if by_epochs:
            part = f"about {round(min(reach) * epochs):,} of {epochs:,} epochs"
            fit = f"At this pace, {part} fit into the budget"
        elif spec.epoch_limit is not None:
            needs.append(f"{epochs:,} epochs")
        return (f"{fit}; all {spec.total_trials:,} trials need about {' and '.join(needs)}",)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            **asdict(self),
            "hours": self.hours,
            "measured_epochs": self.measured_epochs,
        }


@dataclass(frozen=True)
class CostSpread:
    """One figure of the default setting over several seeds."""

    figure: str
    values: tuple[float, ...]

    @property
    def deviation(self) -> float:
        """The standard deviation over seeds."""
        return statistics.stdev(self.values)

    def to_json(self) -> dict[str, Any]:
        """Return values, mean and deviation."""
        return {
            "figure": self.figure,
            "values": self.values,
            "mean": statistics.fmean(self.values),
            "deviation": self.deviation,
        }


def candidates(spec: Spec) -> list[dict[str, Value]]:
    """Return settings from the cheapest to the most expensive, both included."""
    ordered = sorted(_combinations(spec), key=_weight)
    if len(ordered) <= MOST:
        return ordered
    last = len(ordered) - 1
    return [ordered[round(k * last / (MOST - 1))] for k in range(MOST)]


def measure_cost(
    spec: Spec,
    checker: Checker,
    *,
    device: str,
    workers: int,
) -> Cost:
    """Train a few epochs of a few settings in a child process, and estimate the study's cost."""
    settings = candidates(spec)
    length = {"epochs": MEASURED + 1, "patience": 0}
    whole = [spec.job({**_first(spec), **chosen}, seed=0) for chosen in settings]
    jobs = [replace(job, parameters={**job.parameters, **length}) for job in whole]
    answer = checker.ask("tuner.check.cost", _body(spec, jobs, device))
    runs = answer["runs"]
    measured = tuple(
        sorted(
            (
                EpochCost(
                    chosen,
                    statistics.fmean(run["seconds"][1:]),
                    run["parameters"],
                    run["pack"],
                    run["alone"],
                    run["together"],
                )
                for chosen, run in zip(settings, runs, strict=True)
            ),
            key=lambda setting: setting.seconds,
        )
    )
    all_epochs, all_seconds = _estimate(spec, measured)
    epochs = min(all_epochs, all_epochs if spec.epoch_limit is None else spec.epoch_limit)
    noticed = tuple(dict.fromkeys(run["noticed"] for run in runs if run["noticed"]))
    return Cost(
        measured,
        answer["memory"],
        answer["on"],
        epochs,
        all_seconds * epochs / all_epochs,
        workers,
        all_epochs,
        all_seconds,
        noticed,
    )


def measure_noise(
    spec: Spec,
    seeds: int,
    checker: Checker,
    *,
    device: str,
) -> tuple[CostSpread, ...]:
    """Train the default setting under several seeds and return how its figures vary."""
    jobs = [spec.job(_first(spec), seed) for seed in range(seeds)]
    answer = checker.ask("tuner.check.cost", _body(spec, jobs, device))
    best = [run["best"] for run in answer["runs"]]
    names = [name for name in ("val_loss", "val_acc", "test_acc") if best[0][name] is not None]
    return tuple(CostSpread(name, tuple(figures[name] for figures in best)) for name in names)


def _body(spec: Spec, jobs: Sequence[Job], device: str) -> Body:
    return {
        "jobs": [job.plain() for job in jobs],
        "device": device,
        "threads": spec.limits.threads,
        "pack": spec.search.pack,
        "memory_limit": spec.limits.memory_bytes,
    }


def _first(spec: Spec) -> dict[str, Value]:
    """Return the first value of everything that varies, like `tuner run`."""
    chosen: dict[str, Value] = {}
    for dimension in spec.space.ordered():
        if spec.space.is_active(dimension, chosen):
            chosen[dimension.name] = _ends(dimension)[0]
    return chosen


def _ends(dimension: Dimension) -> tuple[Value, ...]:
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


def _combinations(spec: Spec) -> list[dict[str, Value]]:
    """Return the distinct settings of the cost drivers: of the grid, or at the ends of ranges."""
    drivers = [name for name in (*DRIVERS, *DATA_DRIVERS) if name in spec.varied]
    if spec.search.sampler == "grid":
        parts = [{name: cell[name] for name in drivers if name in cell} for cell in spec.grid]
    else:
        ends = [_ends(d) for d in spec.space.dimensions if d.name in drivers]
        names = [d.name for d in spec.space.dimensions if d.name in drivers]
        parts = [dict(zip(names, values, strict=True)) for values in product(*ends)]
    distinct: list[dict[str, Value]] = []
    for part in parts:
        if part not in distinct:
            distinct.append(part)
    return distinct


def _weight(chosen: Mapping[str, Value]) -> tuple[float, float]:
    """Return a sort key by the likely cost of a setting; the real cost is measured."""
    model = str(chosen.get("model", ""))
    heavy = float(HEAVIER.index(model)) if model in HEAVIER else 0.0
    weight = 1.0
    for name, value in chosen.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            power = 2.0 if name == "data.image_size" else 1.0
            weight *= float(value) ** (-power if name in FALLING else power)
    return heavy, weight


def _estimate(spec: Spec, measured: Sequence[EpochCost]) -> tuple[int, float]:
    """Return epochs and seconds of all trials, each by the measured setting nearest to it."""
    if spec.search.sampler == "grid":
        trials = [spec.job(cell, 0).parameters for cell in spec.grid]
        share = spec.total_trials / len(trials)
        epochs = [int(parameters["epochs"]) for parameters in trials]
        seconds = [
            int(parameters["epochs"]) * _nearest(spec.job(chosen, 0).parameters, measured).seconds
            for parameters, chosen in zip(trials, spec.grid, strict=True)
        ]
        return round(sum(epochs) * share), sum(seconds) * share
    mean = statistics.fmean(setting.seconds for setting in measured)
    fixed = (spec.job(_first(spec), 0).parameters["epochs"],)
    lengths = next((_ends(d) for d in spec.space.dimensions if d.name == "epochs"), fixed)
    epochs_each = statistics.fmean(float(length) for length in lengths)
    return round(epochs_each * spec.total_trials), epochs_each * spec.total_trials * mean


def _nearest(parameters: Mapping[str, Value], measured: Sequence[EpochCost]) -> EpochCost:
    def differences(setting: EpochCost) -> int:
        return sum(
            parameters.get(name) != value
            for name, value in setting.chosen.items()
            if not name.startswith("data.")
        )

    return min(measured, key=differences)


def _work(body: Body, progress: Progress) -> Body:
    from tuner.train.abreast import Abreast
    from tuner.train.workbench import Workbench

    abreast = Abreast(body["memory_limit"])
    bench = Workbench(
        device=body["device"],
        threads=body["threads"],
        cache=Path(body["cache"]),
        folders=[Path(folder) for folder in body["folders"]],
        progress=progress,
    )
    jobs = [Job.read(job) for job in body["jobs"]]
    whole = sum(int(job.parameters["epochs"]) for job in jobs)
    done = 0
    runs = []
    on = ""
    for job in jobs:
        run = bench.begin(job)
        abreast.mark(run, body["pack"])
        seconds = []
        for epoch in run.epochs(lambda: None):
            seconds.append(epoch.seconds)
            done += 1
            progress("training epochs", done, whole)
        result = run.result()
        on = run.setup.device
        runs.append(
            {
                "seconds": seconds,
                "parameters": run.setup.parameter_count,
                "best": asdict(result.best),
                "noticed": run.setup.notes.get("output", ""),
                "pack": abreast.most(run, body["pack"]),
                "alone": abreast.alone(run, body["pack"]),
                "together": run.together,
            }
        )
    return {"runs": runs, "memory": _memory(body["device"]), "on": on}


def _memory(device: str) -> int:
    """Return the peak memory in bytes: on the GPU, or of this process."""
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def main(_arguments: Sequence[str]) -> int:
    """Do the work that standard input describes."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))
