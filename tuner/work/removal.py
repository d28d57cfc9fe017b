"""Deleting a study with everything that belongs to it, its checkpoints included."""

import shlex
from dataclasses import dataclass

from tuner.errors import MachineError, TunerError, UserError
from tuner.settings import Settings
from tuner.store import studies
from tuner.store.checkpoints import checkpoint_place
from tuner.store.database import Database
from tuner.store.overview import Overview, overview
from tuner.store.studies import Study
from tuner.text import masked
from tuner.train.checkpoints.timely import TimelyPlace
from tuner.train.checkpoints.tree import Tree
from tuner.work.housekeeping import forget, places


@dataclass(frozen=True)
class Remains:
    """Checkpoints of a deleted study that could not be removed."""

    error: TunerError
    command: str
    """The command that removes them later."""

    def __str__(self) -> str:
        """Return what is left and what to do, as sentences."""
        return (
            f"Its checkpoints are still there: {self.error}\n"
            f"Remove them later with:  {self.command}\n"
            "(This also removes checkpoints of other databases at that place.)"
        )


def check_deletable(study: Study, seen: Overview) -> None:
    """Raise if workers are training a study."""
    if seen.workers and study.state == "open":
        workers = len({line.worker_id for line in seen.workers})
        raise UserError(
            f"{study.title} is being trained by {workers} worker{'s' * (workers > 1)}. "
            f"Stop it first:  tuner stop {study.title}"
        )


def delete(
    settings: Settings, database: Database, study: Study, *, elsewhere: bool = True
) -> Remains | None:
    """Delete a study for good; return the checkpoints that could not be removed.

    Unless `elsewhere`, connect to no server that only the study names, and not the settings.
    """
    # Loaded before the transaction: on a busy machine this takes seconds, and the server ends
    # transactions that are idle for long.
    from tuner.store import optuna_storage  # noqa: F401

    with database.transaction() as connection:
        # Under the lock of claims, so that no worker begins between the check and the deletion.
        check_deletable(studies.locked(connection, study), overview(connection, study))
        studies.delete(connection, study)
    place = checkpoint_place(settings, study.spec)
    if place is None:
        return None
    try:
        if not elsewhere and "://" in place and place != settings.checkpoints:
            # The address comes from the database. People who can write there must not choose a
            # server that is contacted with the credentials of the person who deletes.
            raise MachineError(f"{masked(place)} is not connected to from here.")
        forget(Tree(TimelyPlace(place, settings.timing.lookup)), study)
    except TunerError as error:
        command = "tuner clean --foreign"
        if place not in places(settings, database):
            # No other study names this place.
            command = f"TUNER_CHECKPOINTS={shlex.quote(masked(place))} {command}"
        return Remains(error, command)
    return None
