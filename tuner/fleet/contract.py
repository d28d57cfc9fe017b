"""The contract of a fleet, which starts workers, watches them and asks them to stop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Crew:
    """The workers to start: one for each device, all on one study."""

    study: str
    devices: tuple[str, ...]
    threads: int | None = None
    folders: tuple[Path, ...] = ()


class Fleet(Protocol):
    """An engine that runs a crew."""

    def start(self) -> None:
        """Start the workers."""

    def running(self) -> int:
        """Return how many workers are running; replace those that crashed or were killed."""

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit."""

    def stop_now(self) -> None:
        """Ask every worker to exit at once, giving its trial back if possible."""

    def close(self) -> None:
        """End the workers that are left."""
