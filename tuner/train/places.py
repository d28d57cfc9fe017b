"""The folders in which objectives are searched; nothing here loads their code."""

from collections.abc import Sequence
from pathlib import Path


def search_folders(folders: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders in which to search for objectives, in order, without duplicates."""
    return tuple(dict.fromkeys(folder.resolve() for folder in (*folders, shipped_folder())))


def is_shipped(name: str, folders: Sequence[Path]) -> bool:
    """Return whether a name means an objective that ships with tuner, without loading any code."""
    if not name.isidentifier():
        return False
    places = (
        place for place in search_folders(folders) if (place / name / "__init__.py").is_file()
    )
    return next(places, None) == shipped_folder()


def shipped_folder() -> Path:
    """Return the folder of the objectives shipped with tuner."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped" / "objectives"
    return installed if installed.is_dir() else package.parent / "objectives"
