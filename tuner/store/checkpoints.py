"""Where a study's checkpoints are stored, and the labels that identify each trial's."""

from pathlib import Path

from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.store.studies import Study

NOWHERE = "off"
"""The location that switches checkpoints off."""


def checkpoint_place(settings: Settings, spec: Spec) -> str | None:
    """Return where to store checkpoints: as the study says, else the settings, else in the home."""
    if NOWHERE in {settings.checkpoints, spec.checkpoints.location}:
        return None
    written = spec.checkpoints.location
    if written is not None and "://" not in written:
        written = str(Path(spec.folder, written))
    return written or settings.checkpoints or str(settings.home / "checkpoints")


def labels(study: Study, number: int) -> dict[str, str]:
    """Return labels that identify a trial's checkpoints among all trials of all databases."""
    return {
        "study": study.optuna_name,
        "created": study.created.isoformat(),
        "trial": str(number),
    }
