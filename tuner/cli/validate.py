"""`tuner validate`: check a study file without creating anything."""

from pathlib import Path

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.errors import StudyFileError
from tuner.spec.study_ref import StudyRef


@click.command(
    epilog=options.examples("tuner validate studies/lr_sched.toml --set replicates.seeds=3")
)
@click.argument("study")
@options.study_file_options
@options.objectives_option
@options.json_option
def validate(
    study: StudyRef,
    overrides: tuple[str, ...],
    objective_folders: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    """Check a study file and report the size of the study.

    STUDY is a name or a path. All errors are listed at once, each with its
    location, what was expected, and the nearest valid name. The data's path
    must exist, and the objective's code must be importable. Nothing is
    created, and no database is needed.
    """
    from tuner.check.code import check_code
    from tuner.check.feasibility import check_paths
    from tuner.spec.identity import fingerprint

    file = options.StudyFile.find(study, objective_folders)
    try:
        spec = file.read(overrides)
        check_paths(spec, str(file.path))
    except StudyFileError as error:
        raise StudyFileError(error.source, error.faults, creating=False) from None
    check_code(spec, file.folders)
    grid = spec.grid_size if spec.search.sampler == "grid" else None
    if as_json:
        described = {
            "study": spec.name,
            "fingerprint": fingerprint(spec),
            "grid": grid,
            "configurations": spec.configurations,
            "seeds": spec.replicates.seeds,
            "trials": spec.total_trials,
        }
        echo_json(described, indent=None)
        return
    size = f"{spec.search.sampler} search, {_count(spec.configurations, 'configuration')}"
    if grid is not None:
        part = "" if spec.configurations == grid else f"{spec.configurations} of the "
        size = f"{part}grid of {_count(grid, 'configuration')}"
    echo(
        f"{spec.name} is valid: {size} × {_count(spec.replicates.seeds, 'seed')} = "
        f"{_count(spec.total_trials, 'trial')}."
        if spec.replicates.of == "all"
        else f"{spec.name} is valid: {size}, at most {_count(spec.total_trials, 'trial')}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
