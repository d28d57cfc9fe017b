"""Which tuner this is."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Return the version that is installed; a mark for a source tree that never was."""
    try:
        return installed("tuner")
    except PackageNotFoundError:
        return "0+unknown"
