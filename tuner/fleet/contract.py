"""What a fleet is: workers started somewhere, watched, and asked to stop."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Crew:
    """Which workers to start: one for each device, all on one study."""

    study: str
    devices: tuple[str, ...]
    threads: int | None = None
    folders: tuple[Path, ...] = ()


class Fleet(Protocol):
    """An engine that runs a crew."""

    def start(self) -> None:
        """Start the workers."""

    def running(self) -> int:
        """Return how many workers are left; replace those that died by accident."""

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and leave."""

    def stop_now(self) -> None:
        """Ask every worker to leave at once; its trial is given back if that is possible."""

    def close(self) -> None:
        """Leave nothing behind."""
