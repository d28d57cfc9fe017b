"""Room for checkpoints: whose they are, and which of them may go."""

from pathlib import Path

from tuner.settings import Settings
from tuner.spec.study import Spec
from tuner.store.studies import Study

NOWHERE = "off"
"""Said in place of a location, it switches checkpoints off."""


def checkpoint_place(settings: Settings, spec: Spec) -> str | None:
    """Return where a study's checkpoints go: its file decides, then the setting, then the home."""
    if NOWHERE in {settings.checkpoints, spec.checkpoints.location}:
        return None
    written = spec.checkpoints.location
    if written is not None and "://" not in written:
        written = str(Path(spec.folder, written))
    return written or settings.checkpoints or str(settings.home / "checkpoints")


def labels(study: Study, number: int) -> dict[str, str]:
    """Return what tells one trial's checkpoints from every other trial's, in any database."""
    return {
        "study": study.title,
        "created": study.created.isoformat(),
        "trial": str(number),
    }
