"""The contract of a fleet: an engine keeps workers alive, and never sees a trial.

A worker that reaches the database can join, leave and be replaced without loss. So an engine only
starts `tuner worker` where there is room, counts the running workers, and asks them to leave.

    launch --on NAME ──> engines.load(NAME) ──> Engine.fleet(settings, crew) ──> Fleet.start
    fleet scale STUDY 8 ──> store/fleets: crew, handle ──> Engine.again ──> Fleet.scale

The database's address reaches workers in a way that only their owner can read: a process's
environment, a file of mode 0600, or the engine's own secrets. It is never part of a crew, a handle
or a command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tuner.forkserver import ForkServer
from tuner.settings import Settings

RETURN_SECONDS = 15.0
"""How long a worker takes to end its trainer and give its trial back."""


def epoch_seconds(notice: float) -> float:
    """Return how long a worker may continue its epoch if it is killed this long after a notice."""
    return max(notice / 2, notice - RETURN_SECONDS)


@dataclass(frozen=True)
class Crew:
    """The workers to start, all on one study."""

    study: str
    """Its full name, `name@version`, because the bare name always means the newest version. If
    empty, workers take whichever study is next in the queue."""
    devices: tuple[str, ...] = ()
    """A device for each worker, if the engine places them by device (this machine)."""
    threads: int | None = None
    folders: tuple[Path, ...] = ()
    """Folders searched for objectives, by their paths on the launcher's machine."""
    workers: int = 1
    """How many workers, if the engine places them itself."""
    device: str = "auto"
    """The device option of such workers."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own options, checked by `Engine.options`."""
    further: tuple[str, ...] = ()
    """Further arguments of each `tuner worker`."""
    fill: bool = False
    """Whether to add workers to a GPU on which the first one leaves room (this machine)."""
    pin: bool = False
    """Whether to divide the cores among the workers (this machine)."""

    @property
    def size(self) -> int:
        """How many workers are requested."""
        return len(self.devices) or self.workers

    def arguments(self, device: str | None = None) -> tuple[str, ...]:
        """Return the arguments of `tuner worker` for one of them."""
        words = [self.study or "--any", "--device", device or self.device]
        if self.threads is not None:
            words += ["--threads", str(self.threads)]
        for folder in self.folders:
            words += ["--objectives", str(folder)]
        return (*words, *self.further)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that is stored, so that another machine can scale the fleet."""
        return {
            "study": self.study,
            "devices": list(self.devices),
            "threads": self.threads,
            "folders": [str(folder) for folder in self.folders],
            "workers": self.workers,
            "device": self.device,
            "options": dict(self.options),
            "further": list(self.further),
            "fill": self.fill,
            "pin": self.pin,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Crew":
        """Return a crew from its stored JSON."""
        return cls(
            study=body["study"],
            devices=tuple(body["devices"]),
            threads=body["threads"],
            folders=tuple(Path(folder) for folder in body["folders"]),
            workers=body["workers"],
            device=body["device"],
            options=body["options"],
            further=tuple(body["further"]),
            fill=body.get("fill", False),
            pin=body.get("pin", False),
        )


class Fleet(Protocol):
    """The workers of one crew, on one engine.

    `running` is called twice a second, so an engine that asks a service caches the answer.
    """

    def start(self) -> None:
        """Start the workers."""

    def running(self) -> int:
        """Return how many workers run or wait for room; replace those that died by accident.

        `replacements.Replacements` decides which are replaced, and when to give up.
        """

    def scale(self, workers: int) -> None:
        """Start more workers, or ask some to finish their epoch, give their trial back and exit."""

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit; replace none."""

    def stop_now(self) -> None:
        """Ask every worker to exit at once, giving its trial back if possible."""

    def close(self) -> None:
        """End the remaining workers, and free the fleet's resources on the engine."""

    def failures(self) -> list[str]:
        """Return why workers gave up, as sentences; empty if none did."""

    def remarks(self) -> list[str]:
        """Return remarks about its workers for people, each once; usually none."""

    def handle(self) -> dict[str, Any]:
        """Return how to find the fleet from another machine, as JSON without secrets.

        `start`, `scale` and `running` may change it, so their callers store it again.
        """


class Engine(Protocol):
    """Creates fleets of one kind; see `engines.load`."""

    name: str
    outlives: bool
    """Whether workers outlive the launcher; then fleets are found again by their handle."""

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the engine's options and return them; one UserError lists all faults.

        Values come from [fleet.NAME] of the study file, or as text from `--fleet KEY=VALUE`.
        """

    def fleet(self, settings: Settings, crew: Crew, forks: ForkServer | None = None) -> Fleet:
        """Return a fleet for a crew, not yet started.

        Workers on this machine may be forked from a server that has loaded what they need.
        """

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Return a started fleet by its `handle`, on any machine."""

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run `tuner worker STUDY --probe --json` where a worker would run; return its output.

        Raise a MachineError with the engine's words if it could not be run there.
        """
