"""The versions of tuner and of other packages."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Return the installed version, or a placeholder for a source tree that is not installed."""
    try:
        return installed("tuner")
    except PackageNotFoundError:
        return "0+unknown"


def version_of(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    if package == "tuner":
        return version()
    try:
        return installed(package)
    except PackageNotFoundError:
        return None
