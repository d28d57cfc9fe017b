"""`tuner best`: a study's best setting, and its network saved as a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import clear_progress, echo_json, show_progress
from tuner.errors import UserError
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.answers.ensemble import Ensemble
    from tuner.answers.winner import Winner
    from tuner.winner.document import Model
    from tuner.winner.saving import Workspace

FIRST_DROPPED = (("ECE", "Brier"), ("images",), ("AUC",), ("sensitivity", "specificity"))
"""Columns of an ensemble's table that are dropped first if not all fit; --json has all of them."""


@click.command(
    epilog=options.examples(
        "tuner best lr_sched",
        "tuner best lr_sched --save models/lr_sched",
        "tuner best lr_sched --ensemble --save models/ensemble",
        "tuner best lr_sched --trial 12 --json",
    )
)
@click.argument("study")
@click.option(
    "--trial", type=click.IntRange(0), metavar="N", help="Trial to use instead of the best one."
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="S",
    help="Seed of the best setting to use instead of its median seed.",
)
@click.option(
    "--ensemble",
    "as_ensemble",
    is_flag=True,
    help="Use all seeds of the best setting as one predictor: the mean of their probabilities.",
)
@click.option(
    "--save",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write weights, description, stored predictions and a model card to a new folder.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["torchscript", "onnx"]),
    help="With --save: also write the network as one file that needs neither tuner nor your code.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model previously saved in DIR.")
@click.option(
    "--allow-different",
    is_flag=True,
    help="Save the weights even if they do not reproduce the stored predictions; the "
    "differences are recorded.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N",
    help="Device for checking or retraining; auto uses the kind the trial was trained on.",
)
@options.objectives_option
@options.json_option
@click.pass_obj
def best(
    settings: Settings,
    study: StudyRef,
    trial: int | None,
    seed: int | None,
    target: Path | None,
    form: str | None,
    device: str,
    objective_folders: tuple[Path, ...],
    *,
    as_ensemble: bool,
    overwrite: bool,
    allow_different: bool,
    as_json: bool,
) -> None:
    """Show a study's best setting and optionally save its network.

    If settings have several seeds, this is the setting ranked first by `tuner
    table`, with the network of its median seed; otherwise, the best complete
    trial. Values have 95% intervals; the output includes the selection bias
    and the gap. With --save, the weights come from a checkpoint or are
    trained again, and must reproduce the stored predictions up to rounding.
    docs/best.md describes the folder.

    --ensemble averages the probabilities of all seeds of the best setting,
    and shows the results of the ensemble and of each seed. Test images
    influence neither the choice of the setting nor that of the ensemble's
    members.
    """
    from tuner.answers import ensemble as of_ensemble
    from tuner.answers.winner import described, winner

    if target is None and (overwrite or allow_different):
        raise UserError("--overwrite and --allow-different require --save DIR.")
    if form is not None:
        if target is None:
            raise UserError("--format goes with --save DIR.")
        from tuner.winner.exported import check_packages

        check_packages(form)
    if trial is not None and seed is not None:
        raise UserError("--seed selects a seed of the best setting, --trial any trial; use one.")
    if as_ensemble and (trial is not None or seed is not None):
        raise UserError(
            "--ensemble uses all seeds of the best setting; it cannot be combined with --trial "
            "or --seed."
        )
    subject: Winner | Ensemble
    with options.open_results(settings, study) as results:
        subject = of_ensemble.ensemble(results) if as_ensemble else winner(results, trial, seed)
        if target is not None:
            from tuner.winner import saving

            stored = saving.stored(results, subject)
    saved = None
    if target is not None:
        # Outside the transaction: training may take hours.
        machine = _machine(settings, subject, device, objective_folders)
        allowed = {"overwrite": overwrite, "allow_different": allow_different}
        saved = saving.save(subject, stored, target, machine, show_progress, form=form, **allowed)
        clear_progress()
    if as_json:
        told = None if saved is None else {"folder": str(target), **_described(saved)}
        body = (
            of_ensemble.described(subject)
            if isinstance(subject, of_ensemble.Ensemble)
            else described(subject)
        )
        echo_json({**body, "saved": told})
    else:
        _show(subject, saved, target)


def _show(subject: "Winner | Ensemble", saved: "Model | None", target: Path | None) -> None:
    from tuner.answers.ensemble import Ensemble
    from tuner.cli.console import open_console

    console = open_console()
    if isinstance(subject, Ensemble):
        _print_ensemble(console, subject)
    else:
        _print(console, subject)
    if saved is not None and target is not None:
        _print_saved(console, saved, target)


def _machine(
    settings: Settings, subject: "Winner | Ensemble", device: str, paths: tuple[Path, ...]
) -> "Workspace":
    from tuner.answers.ensemble import Ensemble
    from tuner.store.checkpoints import checkpoint_place, labels
    from tuner.winner.saving import Workspace

    if isinstance(subject, Ensemble):
        winner, numbers = subject.winner, [member.trial for member in subject.members]
    else:
        winner, numbers = subject, [subject.number]
    return Workspace(
        cache=settings.home / "cache",
        # Objectives are found as by a worker: the database does not name folders of code.
        folders=options.objective_folders(None, paths),
        checkpoints=checkpoint_place(settings, winner.study.spec),
        labels={number: labels(winner.study, number) for number in numbers},
        device=_device(winner, device),
    )


def _device(winner: "Winner", asked: str) -> str:
    """Return the device to compute on; by default, the kind that the trial was trained on."""
    if asked != "auto":
        return asked
    from tuner.fleet.devices import crew_devices

    on = str(winner.trial.setup.get("device", "cpu")).partition(" ")[0]
    return crew_devices("auto", 1, 1)[0] if on.startswith("cuda") else on


def _described(saved: "Model") -> dict[str, object]:
    return {
        "origin": saved.origin,
        "members": [member.model_dump() for member in saved.members],
        "weights_sha256": saved.weights_sha256,
        "files": saved.reading.files,
        "agreement": {
            name: {
                **agreement.model_dump(),
                "exact": agreement.exact,
                "matches": agreement.matches,
            }
            for name, agreement in saved.agreement.items()
        },
    }


def _print(console: "Console", winner: "Winner") -> None:
    from tuner.answers.settings import name
    from tuner.answers.winner import figures, seeds, sentences
    from tuner.answers.words import level_name, listed, sampling_unit
    from tuner.cli.console import as_rich, print_sentences

    setting, title = winner.setting, winner.study.title
    settings = " ".join(f"{key}={level_name(value)}" for key, value in winner.settings.items())
    fixed = " ".join(f"{key}={level_name(value)}" for key, value in winner.fixed.items())
    console.print()
    if setting is None:
        console.print(f"{title}: trial {winner.number}", style="bold")
        console.print(f"{settings} seed={winner.trial.row['seed']}".strip())
    else:
        so_far = "" if winner.study.state == "complete" else " so far"
        best = f"best setting{so_far}"
        rank = best if setting.rank == 1 else f"setting of trial {winner.number}"
        console.print(f"{title}: {rank}", style="bold")
        console.print(name(setting.values))
    if fixed:
        console.print(f"fixed: {fixed}")
    console.print()
    if setting is not None:
        console.print(as_rich(seeds(winner)))
        console.print()
        console.print(f"Trial {winner.number} (seed {winner.trial.row['seed']})", style="bold")
    units = {part.split: sampling_unit(part.patients) for part in winner.splits}
    if len(set(units.values())) == 1:
        console.print(f"95% intervals over {next(iter(units.values()))}")
    elif units:
        told = listed([f"{unit} on {split}" for split, unit in units.items()])
        console.print(f"95% intervals over {told}")
    # Six figures with intervals do not fit side by side, so each split is a column.
    console.print(as_rich(figures(winner).turned))
    print_sentences(console, sentences(winner))
    console.print()


def _print_ensemble(console: "Console", ensemble: "Ensemble") -> None:
    from tuner.answers.ensemble import figures, sentences
    from tuner.answers.settings import name
    from tuner.cli.console import as_rich, fits, print_sentences

    console.print()
    console.print(f"{ensemble.winner.study.title}: {ensemble.title}", style="bold")
    console.print(name(ensemble.setting.values))
    console.print()
    table = figures(ensemble)
    for names in FIRST_DROPPED:
        if fits(console, as_rich(table)):
            break
        table = table.without([at for at, head in enumerate(table.head) if head in names])
    console.print(as_rich(table))
    print_sentences(console, sentences(ensemble))
    console.print()


def _print_saved(console: "Console", saved: "Model", target: Path) -> None:
    from tuner.cli.console import print_sentences
    from tuner.winner.agreement import words
    from tuner.winner.document import EXPORTS

    said = [f"Saved in {target}. The weights come from: {saved.origin}."]
    said += [words(agreement, name) for name, agreement in saved.agreement.items()]
    said += [
        f"{target / name} maps pixels to log-probabilities; reloaded and verified."
        for name in EXPORTS.values()
        if (target / name).is_file()
    ]
    said.append(
        f"`tuner predict {target} IMAGES…` classifies images with it; the model card is "
        f"{target}/README.md."
    )
    print_sentences(console, said)
    console.print()
