"""The contract of a fleet: an engine keeps workers alive, and never sees a trial.

A worker that reaches the database joins, leaves and is replaced without loss, so all that an engine
does is to start `tuner worker` where there is room, to count what runs, and to ask it to leave.

    launch --on NAME ──> engines.load(NAME) ──> Engine.fleet(settings, crew) ──> Fleet.start
    fleet scale STUDY 8 ──> store/fleets: crew, handle ──> Engine.again ──> Fleet.scale

The database's address reaches workers by a way that only their owner can read: the environment of a
process, a file of mode 0600, a secret of the engine. It is never part of a crew, of a handle or of
a command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tuner.forkserver import ForkServer
from tuner.settings import Settings

RETURN_SECONDS = 15.0
"""How long a worker takes to end its trainer and give its trial back, once it waits no more."""


def epoch_seconds(notice: float) -> float:
    """Return how long a worker may go on with its epoch that is killed after this notice."""
    return max(notice / 2, notice - RETURN_SECONDS)


@dataclass(frozen=True)
class Crew:
    """The workers to start, all on one study."""

    study: str
    """Its full name, `name@version`: the bare name means another study once there is a newer.
    Empty: workers take whichever study is next in the queue."""
    devices: tuple[str, ...] = ()
    """A device for each worker, where the engine places them by device (this machine)."""
    threads: int | None = None
    folders: tuple[Path, ...] = ()
    """Where objectives are looked for, as the launcher sees them."""
    workers: int = 1
    """How many workers, where the engine places them by itself."""
    device: str = "auto"
    """What such a worker is told to train on."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own options, checked by `Engine.options`."""
    further: tuple[str, ...] = ()
    """Further arguments of each `tuner worker`."""
    fill: bool = False
    """Whether more workers join the one on a GPU that it leaves room on (this machine)."""
    pin: bool = False
    """Whether the cores are divided between the workers (this machine)."""

    @property
    def size(self) -> int:
        """How many workers are wanted."""
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
        """Return what the database keeps, so that another machine can scale the fleet."""
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
        """Return a crew as it was stored."""
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

    `running` is called twice a second; an engine that asks a service for it remembers the answer
    for a while.
    """

    def start(self) -> None:
        """Start the workers."""

    def running(self) -> int:
        """Return how many workers run or wait for room; replace those that died by accident.

        Who is replaced, and when that is given up, is `replacements.Replacements`.
        """

    def scale(self, workers: int) -> None:
        """Start more workers, or ask some to finish their epoch, give their trial back and exit."""

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit; replace none."""

    def stop_now(self) -> None:
        """Ask every worker to exit at once, giving its trial back if possible."""

    def close(self) -> None:
        """End the workers that are left, and free what the fleet holds on the engine."""

    def failures(self) -> list[str]:
        """Return why workers gave up, for people; empty while all is well."""

    def remarks(self) -> list[str]:
        """Return what people should know of its workers, each once; usually nothing."""

    def handle(self) -> dict[str, Any]:
        """Return what finds the fleet again from another machine, as JSON without secrets.

        It may change by `start`, `scale` and `running`; who called them stores it again.
        """


class Engine(Protocol):
    """Makes fleets of one kind; see `engines.load`."""

    name: str
    outlives: bool
    """Whether workers stay when the launcher ends: then fleets are found again by their handle."""

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the engine's options and return them; all faults are one UserError.

        Values come from [fleet.NAME] of the study file, or as text from `--fleet KEY=VALUE`.
        """

    def fleet(self, settings: Settings, crew: Crew, forks: ForkServer | None = None) -> Fleet:
        """Return a fleet for a crew, not yet started.

        Workers on this machine may be forked from a server that has loaded what they need.
        """

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Return a started fleet by what its `handle` was, on whatever machine this is."""

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run `tuner worker STUDY --probe --json` where a worker would run; return its output.

        Raise a MachineError with the engine's words if it could not be run there.
        """
