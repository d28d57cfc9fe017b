"""The version of tuner."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Return the installed version, or a placeholder for a source tree that is not installed."""
    try:
        return installed("tuner")
    except PackageNotFoundError:
        return "0+unknown"
