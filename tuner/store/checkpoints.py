"""Where a study's checkpoints go, and by what a trial's are told from all others."""

from pathlib import Path

from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.store.studies import Study

NOWHERE = "off"
"""Given as the location, it switches checkpoints off."""


def checkpoint_place(settings: Settings, spec: Spec) -> str | None:
    """Return where a study's checkpoints go: by its file, else by the settings, else the home."""
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
