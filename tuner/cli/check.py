"""`tuner check`: checks a study's data and estimates its time and memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner import forkserver
from tuner.cli import options
from tuner.cli.terminal import clear_progress, echo, echo_json, show_progress
from tuner.errors import TunerError, UserError
from tuner.home import make_cache
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.check.cost import Cost, CostSpread
    from tuner.check.quick import Examined
    from tuner.spec.study import Spec


@click.command(
    epilog=options.examples(
        "tuner check lr_sched",
        "tuner check lr_sched@2",
        "tuner check studies/mine.toml --quick",
        "tuner check lr_sched --noise 5 --json",
    )
)
@click.argument("study")
@options.study_file_options
@click.option("--quick", is_flag=True, help="Check the data only, without training.")
@click.option(
    "--noise",
    type=click.IntRange(2, 1000),
    metavar="K",
    help="Also train the default setting with K seeds and show how much the results vary.",
)
@options.crew_options
@options.objectives_option
@options.json_option
@click.pass_obj
def check(
    settings: Settings,
    study: StudyRef,
    overrides: tuple[str, ...],
    noise: int | None,
    workers: int | None,
    device: str,
    threads: int | None,
    objective_folders: tuple[Path, ...],
    *,
    quick: bool,
    as_json: bool,
) -> None:
    """Check a study's data and cost before spending hours on it.

    Reports duplicates and patients shared between splits, class balance, blank
    and clipped images, and whether a classifier can distinguish the splits.
    Unless --quick is given, it also measures how long an epoch of the fastest
    and of the slowest settings takes, and estimates the hours and memory of the
    whole study. STUDY is a file, by name or path, or a stored version such as
    lr_sched@2. The findings are stored with every version that has the same
    data.
    """
    from tuner.check.cost import measure_cost, measure_noise
    from tuner.check.quick import configurations, examine_data
    from tuner.fleet.devices import crew_devices
    from tuner.questions import Checker

    spec, folders = _asked(settings, study, overrides, objective_folders)
    if threads is not None:
        spec = replace(spec, limits=replace(spec.limits, threads=threads))
    options.tell_home(settings, makes=True)
    make_cache(settings.home)
    cost: Cost | None = None
    spreads: Sequence[CostSpread] = ()
    devices = crew_devices(device, workers, spec.limits.threads)
    with forkserver.started((*forkserver.CHECKS, *forkserver.TRAINERS)) as forks:
        checker = Checker(settings.home, folders, show_progress, forks)
        found = [examine_data(spec, data, checker, quick=quick) for data in configurations(spec)]
        if not quick:
            cost = measure_cost(spec, checker, device=devices[0], workers=len(devices))
        if noise is not None:
            spreads = measure_noise(spec, noise, checker, device=devices[0])
    clear_progress()
    body = _described(spec, found, cost, spreads)
    kept = _keep(settings, spec, body)
    if as_json:
        echo_json(body)
        return
    _show(spec, found, cost, spreads)
    if kept:
        echo(f"Stored with {', '.join(kept)}.")


def _asked(
    settings: Settings, study: StudyRef, overrides: tuple[str, ...], paths: tuple[Path, ...]
) -> "tuple[Spec, tuple[Path, ...]]":
    """Return the spec of a file or a stored version, and where to look for its objective."""
    from tuner.store import studies

    if study.version is None:
        file = options.StudyFile.find(study, paths)
        return file.read(overrides), file.folders
    if overrides:
        raise UserError(f"{study} is a stored version; --set cannot be used with it.")
    with options.open_database(settings) as database, database.transaction() as connection:
        return studies.find(connection, study).spec, options.objective_folders(None, paths)


def _described(
    spec: "Spec",
    found: "Sequence[Examined]",
    cost: "Cost | None",
    spreads: "Sequence[CostSpread]",
) -> dict[str, Any]:
    return {
        "study": spec.name,
        "data": [{**one.body, "warnings": one.warnings} for one in found],
        "cost": None if cost is None else cost.to_json(),
        "noise": [spread.to_json() for spread in spreads],
    }


def _keep(settings: Settings, spec: "Spec", body: Mapping[str, Any]) -> list[str]:
    """Store the check with every version of the study that uses the same data."""
    from tuner.check.quick import configurations
    from tuner.store import checks, studies

    looked = (spec.objective, configurations(spec))
    try:
        with options.open_database(settings) as database, database.transaction() as connection:
            same = [
                study
                for study in studies.versions(connection, spec.name)
                if (study.spec.objective, configurations(study.spec)) == looked
            ]
            for study in same:
                checks.keep(connection, study.study_id, body)
    except TunerError:
        return []  # the check is also shown without a database
    return [study.title for study in same]


def _show(
    spec: "Spec",
    found: "Sequence[Examined]",
    cost: "Cost | None",
    spreads: "Sequence[CostSpread]",
) -> None:
    echo(f"{spec.name}: {spec.question}")
    for one in found:
        _show_data(one, {*spec.data, *(n.removeprefix("data.") for n in spec.varied)})
    if cost is not None:
        _show_cost(spec, cost)
    if spreads:
        _show_noise(spec, spreads)
    count = sum(len(one.warnings) for one in found)
    count += len(cost.remarks) + len(cost.short(spec)) if cost is not None else 0
    echo()
    echo("No warnings." if count == 0 else f"{count} warning{'s' * (count > 1)}.")


def _show_data(one: "Examined", keys: Collection[str]) -> None:
    from tuner.records import value_text

    body = one.body
    shown = " ".join(
        f"{key}={value_text(value)}" for key, value in body["data"].items() if key in keys
    )
    echo(f"\nData: {shown}")
    for split, contents in body["contents"].items():
        classes = ", ".join(f"{name} {count}" for name, count in contents["classes"].items())
        of = f" of {contents['patients']:,} patients" if contents.get("patients") else ""
        echo(f"  {split:5s} {contents['images']:6,d} images{of}: {classes}")
    for note in one.notes:
        echo(f"  note     {note}")
    for probe in body["probes"]:
        by = "; by patient" if probe.get("patients") else ""
        echo(
            f"  probe    {probe['first']} and {probe['second']}: AUC {probe['auc']:.2f} "
            f"({probe['low']:.2f} to {probe['high']:.2f}); 0.5 is chance{by}"
        )
    counts = body["duplicates"]
    if not any(value for name, value in counts.items() if name != "groups"):
        echo("  ok       no duplicates, within or across splits")
    if body["patients_known"] and not body["patients"]:
        echo("  ok       no patient is in two splits")
    for warning in one.warnings:
        echo(f"  warning  {warning}", fg="yellow")


def _show_cost(spec: "Spec", cost: "Cost") -> None:
    from tuner.records import value_text

    echo(f"\nCost on {cost.on}")
    for name, one in (("fastest", cost.measured[0]), ("slowest", cost.measured[-1])):
        chosen = " ".join(f"{k}={value_text(v)}" for k, v in one.chosen.items()) or "any setting"
        echo(f"  {name:8s} {one.seconds:8.3f} s per epoch  {one.parameters:,} parameters  {chosen}")
    echo(f"  memory   {cost.memory_bytes / 1e9:8.2f} GB at most in one trainer")
    echo(f"  packs    {_packs(cost)}")
    echo(
        f"  study    {spec.total_trials} trials, {cost.epochs:,} epochs: about "
        f"{roughly(cost.seconds / cost.workers)} on {cost.workers} "
        f"worker{'s' * (cost.workers > 1)}, an estimate from {cost.measured_epochs} measured "
        "epochs (less with pruning and reuse; excludes start-up time)"
    )
    for remark in (*cost.remarks, *cost.short(spec)):
        echo(f"  warning  {remark}.", fg="yellow")


def _packs(cost: "Cost") -> str:
    """Say how many trials a trainer would train at a time, and why not more."""
    most = max(one.pack for one in cost.measured)
    if most > 1:
        rounding = "; via torch.func, so the last digits depend on the pack size"
        together = any(one.together and one.pack > 1 for one in cost.measured)
        return f"up to {most} trials of one shape at a time in one trainer{rounding * together}"
    return f"one trial at a time ({cost.measured[0].alone})"


def roughly(seconds: float) -> str:
    """Return a time rounded like an estimate: 40 s, 15 min, 8 h."""
    for unit, name, most in ((1, "s", 100), (60, "min", 100), (3600, "h", None)):
        if most is None or seconds < most * unit:
            return f"{_rounded(max(1.0, seconds / unit))} {name}"
    raise AssertionError("hours have no end")


def _rounded(number: float) -> int:
    """Round a number to steps that grow with it: 5 from 10 on, 10 from 20 on, and so on."""
    step = 10 ** int(log10(number))
    if number < 10:
        return round(number)
    step = step // 2 if number < 2 * step else step
    return int(round(number / step) * step)


def _show_noise(spec: "Spec", spreads: "Sequence[CostSpread]") -> None:
    from math import sqrt
    from statistics import fmean

    from scipy.special import stdtrit

    seeds = spec.replicates.seeds
    count = len(spreads[0].values)
    echo(f"\nNoise of the default setting over {count} seeds")
    for spread in spreads:
        line = (
            f"  {spread.figure:9s} {fmean(spread.values):.4f}, std {spread.deviation:.4f}, "
            f"{min(spread.values):.4f} to {max(spread.values):.4f}"
        )
        if seeds > 1:
            # Half of the 95% t interval of a difference of two means over n seeds each.
            half = float(stdtrit(2 * seeds - 2, 0.975)) * spread.deviation * sqrt(2 / seeds)
            line += f"; with {seeds} seeds a difference must exceed {half:.4f} to be detectable"
        echo(line)
