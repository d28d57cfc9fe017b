"""`tuner run`: trains one setting in the foreground, without recording it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.errors import EXIT_DONE, EXIT_FAILURES
from tuner.records import NUMBER, SHARE
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.text import masked

if TYPE_CHECKING:
    from tuner.records import Epoch, Figures, Job, Metric, Result, Setup, Value
    from tuner.spec.study import Spec


@click.command(epilog=options.examples("tuner run lr_sched --set lr=1e-3 --set scheduler=step"))
@click.argument("study")
@options.study_file_options
@click.option("--seed", default=0, show_default=True, help="Seed of the trial.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N",
    help="Device to train on.",
)
@options.objectives_option
@options.json_option
@click.pass_obj
def run(
    settings: Settings,
    study: StudyRef,
    overrides: tuple[str, ...],
    seed: int,
    device: str,
    objective_folders: tuple[Path, ...],
    *,
    as_json: bool,
) -> int:
    """Train one setting of a study file in the foreground.

    Each varied parameter is set to its first value unless overridden with
    --set. Nothing is recorded and no database is needed, so this is a quick
    way to try out a study file.
    """
    from tuner.fleet.devices import crew_devices
    from tuner.train.workbench import Workbench

    file = options.StudyFile.find(study, objective_folders)
    spec = file.read(overrides)
    job = spec.job(_first(spec), seed)
    bench = Workbench(
        device=crew_devices(device, 1, 1)[0],
        threads=spec.limits.threads,
        cache=settings.home / "cache",
        folders=file.folders,
        progress=_progress,
    )
    run = bench.begin(job)
    if not as_json:
        _announce(spec, seed, run.setup)
    epochs = [_tell(epoch, job.metrics, quiet=as_json) for epoch in run.epochs(lambda: None)]
    result = None if run.diverged else run.result()
    if as_json:
        echo_json(_described(job, run.setup, epochs, result), indent=None)
    elif result is not None:
        _conclude(result.best, "best ", job.metrics)
        _conclude(result.last, "last ", job.metrics)
    if result is None:
        echo("The training diverged: a loss is not finite.", err=True)
        return EXIT_FAILURES
    return EXIT_DONE


def _described(
    job: "Job", setup: "Setup", epochs: "Sequence[Epoch]", result: "Result | None"
) -> dict[str, Any]:
    from tuner.records import columns_of

    moments = {} if result is None else {"best": result.best, "last": result.last}
    return {
        "parameters": dict(job.parameters),
        "seed": job.seed,
        "setup": {**asdict(setup), "notes": dict(setup.notes)},
        "epochs": [_plain(columns_of(epoch)) for epoch in epochs],
        **{
            name: _plain({**columns_of(figures), "gap": figures.gap})
            for name, figures in moments.items()
        },
    }


def _first(spec: "Spec") -> "dict[str, Value]":
    from tuner.spec.space import Choice

    chosen: dict[str, Value] = {}
    for dimension in spec.space.ordered():
        if spec.space.is_active(dimension, chosen):
            first = dimension.values[0] if isinstance(dimension, Choice) else dimension.low
            chosen[dimension.name] = first
    return {name: chosen[name] for name in spec.varied if name in chosen}


def _announce(spec: "Spec", seed: int, setup: "Setup") -> None:
    from tuner.cli.live import chosen_line

    varied = chosen_line(_first(spec)) or "nothing varies"
    changed = masked("".join(f" {text}" for text in spec.overrides))
    echo(
        f"{spec.name}:{changed} {varied} seed={seed}  "
        f"({setup.parameter_count:,} parameters on {setup.device})"
    )
    for note in ("data", "precision", "output"):
        if note in setup.notes:
            echo(f"{note}: {setup.notes[note]}")
    echo("epoch  train loss  train acc  val loss  val acc        lr   seconds")


def _tell(epoch: "Epoch", metrics: "Sequence[Metric]", *, quiet: bool) -> "Epoch":
    from tuner.answers.words import figure

    if not quiet:
        train, val = figure(SHARE, epoch.train_acc), figure(SHARE, epoch.val_acc)
        echo(
            f"{epoch.epoch:5d}  {epoch.train_loss:10.4f}  {train:>9}  "
            f"{epoch.val_loss:8.4f}  {val:>7}  {epoch.lr:8.2g}  {epoch.seconds:8.3f}"
            f"{_own(epoch, metrics)}"
        )
    return epoch


def _conclude(figures: "Figures", name: str, metrics: "Sequence[Metric]") -> None:
    from tuner.answers.words import figure

    test = "no test set"
    if figures.test_acc is not None:
        gap = figure(SHARE.difference, figures.gap)
        test = f"test acc {figure(SHARE, figures.test_acc)}, gap {gap}"
    echo(
        f"{name} epoch {figures.epoch}: val loss {figures.val_loss:.4f}, "
        f"val acc {figure(SHARE, figures.val_acc)}, {test}{_own(figures, metrics)}"
    )


def _own(record: "Epoch | Figures", metrics: "Sequence[Metric]") -> str:
    """Return the figures of the study's own metrics, for the end of a line."""
    from tuner.answers.columns import unit_of
    from tuner.answers.words import figure

    return "".join(
        f"  {name.replace('_', ' ', 1)} {figure(unit_of(name, metrics) or NUMBER, value)}"
        for name, value in record.own.items()
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values for JSON: an undefined figure is null."""
    from tuner.answers.sheets.export import json_cell

    return {name: json_cell(value) for name, value in values.items()}


def _progress(what: str, done: int, total: int) -> None:
    if total and done in (0, total):
        echo(f"{what}: {done}/{total}", err=True)
