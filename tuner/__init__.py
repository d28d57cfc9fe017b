"""tuner: hyperparameter studies that keep their budget, lose nothing and say what is real."""

# Nothing is imported here: under `python -m tuner` the folder one stands in is still first on
# the path of imports (see `__main__`), and a `typing.py` lying there would be taken for Python's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from tuner.notebook import OpenStudy

    __version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tuner.version import version

    return version()


def open(study: str, *, database: str | None = None) -> "OpenStudy":  # noqa: A001 - tuner.open
    """Open a stored study for a notebook or a script, by its name.

    It is looked for where the command `tuner` would look: TUNER_DATABASE_URL or
    the embedded server below TUNER_HOME; `database` names another server by URL.

        with tuner.open("lr_sched") as study:
            study.trials.groupby("scheduler").test_acc.mean()
            print(study.compare("scheduler"))
    """
    import os

    from tuner.notebook import OpenStudy
    from tuner.settings import from_environment

    return OpenStudy(from_environment(os.environ).with_database(database), study)
