"""tuner: hyperparameter studies that keep their budget, lose nothing and say what is real."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.notebook import OpenStudy

try:
    __version__ = version("tuner")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


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
