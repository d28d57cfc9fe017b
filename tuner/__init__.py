"""tuner: hyperparameter studies with exact budgets, no lost work, and honest statistics."""

# Nothing is imported here: under `python -m tuner` the working folder is still first on the
# import path (see `__main__`), and a `typing.py` in it would shadow Python's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from typing import Any

    from tuner.notebook import OpenStudy, StoredStudy
    from tuner.winner.loaded import Loaded

    __version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tuner.version import version

    return version()


def open(study: str, *, database: str | None = None) -> "OpenStudy":  # noqa: A001 - tuner.open
    """Open a stored study for a notebook or a script, by its name.

    The database is the one that the command `tuner` would use: TUNER_DATABASE_URL or
    the embedded server below TUNER_HOME; `database` is the URL of another server.

        with tuner.open("lr_sched") as study:
            study.trials.groupby("scheduler").test_acc.mean()
            print(study.compare("scheduler"))
    """
    import os

    from tuner.notebook import OpenStudy
    from tuner.settings import from_environment

    return OpenStudy(from_environment(os.environ).with_database(database), study)


def studies(*, database: str | None = None) -> "list[StoredStudy]":
    """Return the stored studies, oldest first: name, question, state and numbers of trials.

        for study in tuner.studies():
            print(study.name, study.state, f"{study.ended}/{study.total}")

    `pandas.DataFrame(tuner.studies())` turns them into a data frame.
    """
    import os

    from tuner.notebook import listing
    from tuner.settings import from_environment

    return listing(from_environment(os.environ).with_database(database))


def launch(
    study: "str | PathLike[str] | Mapping[str, Any] | OpenStudy",
    *,
    set: "Mapping[str, Any] | Sequence[str]" = (),  # noqa: A002 - as the option --set
    workers: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    objectives: "Sequence[str | PathLike[str]]" = (),
    enqueue: "Sequence[Mapping[str, Any]]" = (),
    epochs_to: int | None = None,
    finish: "Sequence[int]" = (),
    new_version: bool = False,
    accept_changes: bool = False,
    check: bool = True,
    wait: float = 60.0,
    database: str | None = None,
) -> "OpenStudy":
    """Launch or resume a study, train it to its end, and return it opened.

    `study` is a name, the path of a study file, a stored version such as "lr@2",
    an opened study, or a dict with the content of a study file:

        study = tuner.launch({
            "study": {"name": "rates", "question": "Which rate?", "objective": "digits"},
            "budget": {"trials": "grid"},
            "space": {"lr": [1e-3, 1e-2]},
        }, workers=2)

    Settings in `enqueue`, such as [{"lr": 1e-2}], are trained before the others;
    paused trials whose numbers are in `finish` are trained to completion first.
    Everything else is as in `tuner launch`: progress is shown, tables are printed, and
    interrupting once releases the trials and raises KeyboardInterrupt. What the
    command would reject raises its error (`tuner.errors`), with all faults at once. A study
    that ends with failed trials raises StudyFailedError; `tuner.open` can still open it.
    """
    import os

    from tuner.cli.launch import launch_here
    from tuner.settings import from_environment

    return launch_here(
        from_environment(os.environ).with_database(database),
        study,
        changes=set,
        workers=workers,
        device=device,
        threads=threads,
        objectives=objectives,
        enqueue=enqueue,
        epochs_to=epochs_to,
        finish=tuple(finish),
        new_version=new_version,
        accept_changes=accept_changes,
        no_check=not check,
        wait=wait,
    )


def load(
    folder: "str | PathLike[str]",
    *,
    device: str = "cpu",
    objectives: "Sequence[str | PathLike[str]]" = (),
) -> "Loaded":
    """Load a network written by `tuner best STUDY --save FOLDER`, with its preprocessing.

        model = tuner.load("models/lr_sched")
        model.predict(["scan.png", "more_scans/"])   # or an array of images

    `model.network` is the torch module, and `model.preprocess(images)` returns its input. The code
    of the network's objective is imported from ./objectives, from the folders in `objectives`, or
    from tuner itself.
    """
    from pathlib import Path

    from tuner.winner.loaded import Loaded

    # The nearest first, as in `tuner predict`.
    folders = [Path(folder_name).resolve() for folder_name in (*objectives, "objectives")]
    return Loaded.read(Path(folder), folders, device)
