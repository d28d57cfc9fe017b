"""`tuner new`: starter files for an objective or a study that run as they are."""

import re
from collections.abc import Iterable
from pathlib import Path

import click

from tuner.cli import options, starters
from tuner.cli.options import examples
from tuner.cli.terminal import echo
from tuner.errors import UserError

LONGEST = 63


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("tuner new objective leaves", "tuner new study batch_size"),
)
def new() -> None:
    """Write commented starter files that run as they are.

    They are written to ./objectives and ./studies. Existing files are never
    overwritten.
    """


@new.command(epilog=examples("tuner new objective leaves"))
@click.argument("name")
def objective(name: str) -> None:
    """Create an objective (data and networks) and a study for it.

    NAME may contain lower-case letters, digits and _. Until data.path in the
    study file points to your images, the objective generates synthetic ones.
    """
    from tuner.train.objective import find
    from tuner.train.places import shipped_folder

    _check_name(name, "an objective", r"[a-z][a-z0-9_]*", "lower-case letters, digits and _")
    _check_unshipped(name, shipped_folder() / name, Path("objectives", name), "An objective")
    _check_study_unshipped(name)
    # Declarations come from the template, because its copy is not written yet.
    declared = find("objective", [starters.TEMPLATES]).objective.declarations()
    files = starters.objective_files(name) | starters.study_file(name, name, declared)
    starters.write_new(files)
    _tell(files, name)
    echo(f"It uses synthetic images until data.path in studies/{name}.toml points to your folder.")


@new.command(epilog=examples("tuner new study batch_size --objective chest_xray"))
@click.argument("name")
@click.option(
    "--objective",
    default="chest_xray",
    show_default=True,
    help="What to train: a package in ./objectives, or one that comes with tuner.",
)
@options.objectives_option
def study(name: str, objective: str, objective_folders: tuple[Path, ...]) -> None:
    """Write a new study file.

    NAME may contain lower-case letters, digits, _ and -. The file lists
    everything that the objective lets a study set.
    """
    from tuner.train.objective import find

    _check_name(name, "a study", r"[a-z][a-z0-9_-]*", "lower-case letters, digits, _ and -")
    _check_study_unshipped(name)
    found = find(objective, options.objective_folders(None, objective_folders))
    files = starters.study_file(name, objective, found.objective.declarations())
    starters.write_new(files)
    _tell(files, name)


def _check_name(name: str, what: str, pattern: str, allowed: str) -> None:
    if not re.fullmatch(pattern, name) or len(name) > LONGEST:
        raise UserError(
            f"{name!r} cannot be the name of {what}; expected a lower-case letter, then {allowed} "
            f"(at most {LONGEST} in all)."
        )


def _check_unshipped(name: str, shipped: Path, path: Path, what: str) -> None:
    """Refuse a name that would shadow one of tuner's; users' files are checked elsewhere."""
    if shipped.exists() and not path.exists():
        raise UserError(
            f"{what} {name!r} comes with tuner, and your file would shadow it; choose another name."
        )


def _check_study_unshipped(name: str) -> None:
    shipped = options.study_folders()[-1] / f"{name}.toml"
    _check_unshipped(name, shipped, Path("studies", f"{name}.toml"), "A study")


def _tell(files: Iterable[Path], study_name: str) -> None:
    for path in files:
        echo(f"wrote {path}")
    width = len(f"tuner launch {study_name}")
    echo("\nNext:")
    echo(f"  {f'tuner run {study_name}':<{width}}  # train one setting here and now")
    echo(f"  tuner launch {study_name}  # train every setting and show the results")
