"""The settings of a storm, and the report on it."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RUN_AHEAD = 5
"""Epochs that a trainer may be ahead of what is stored: those being written and recorded."""


@dataclass(frozen=True)
class Weather:
    """One storm: the study, the crew, and the blows."""

    name: str
    trials: int
    workers: int
    kills: int
    restarts: int
    freezes: int
    seed: int = 0
    epochs: int = 20
    every: int = 5
    """Epochs between two checkpoints."""
    learning: bool = False
    """Whether TPE proposes and the median pruner stops; else a grid that is trained completely."""
    budget: int = 0
    """Epochs that are trained of a study whose trials pause (`allocator = "promote"`), or 0: then
    it ends as spent, with most trials paused."""
    pack: int = 1
    """Trials that a trainer takes at a time."""
    plain: bool = False
    """Whether the networks may train as a pack; they record no epochs then, so it is unknown how
    many were begun more than once.
    """
    deadline_seconds: float = 600.0
    images: int = 6000
    hidden: int = 512
    """The cost of an epoch: one batch of all images, so that the objective records every epoch that
    begins.
    """
    pause_seconds: float = 0.0
    """An additional wait per epoch, so that blows can hit it without any computing."""

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Return the study file."""
        common: dict[str, Mapping[str, Any]] = {
            "fixed": {"epochs": self.epochs, "batch_size": self.images, "hidden": self.hidden},
            "data": {"train_images": self.images},
            "checkpoints": {"every": self.every},
            # No trial is at fault here: with one attempt each, none may be counted.
            "limits": {"attempts": 1},
        }
        if self.plain:
            common["fixed"] = {**common["fixed"], "plain": True}
            common["search"] = {"pack": self.pack}
        if self.budget:
            return common | {
                "budget": {"trials": self.trials, "epochs": self.budget},
                "space": {"lr": {"low": 1e-6, "high": 1e-1, "log": True}},
                "search": {
                    "sampler": "random",
                    "seed": self.seed,
                    "allocator": "promote",
                    "allocator_options": {"first": 2, "eta": 3, "finish": self.trials},
                },
            }
        if not self.learning:
            rates = [1e-4, 3e-4, 1e-3, 3e-3]
            assert self.trials % len(rates) == 0
            seeds = {"seeds": self.trials // len(rates)}
            return common | {"space": {"lr": rates}, "replicates": seeds}
        return common | {
            "budget": {"trials": self.trials},
            "space": {"lr": {"low": 1e-6, "high": 1e-1, "log": True}},
            "search": {
                "sampler": "tpe",
                "pruner": "median",
                "seed": self.seed,
                "sampler_options": {"n_startup_trials": 5},
                "pruner_options": {"warmup": 3, "startup": 3},
            },
        }

    def blows(self) -> list[str]:
        """Return the blows in their order; half the kills fall on supervisors."""
        half = self.kills // 2
        few = self.freezes // 2
        counts = {
            "kill supervisor": half,
            "kill trainer": self.kills - half,
            "restart": self.restarts,
            "freeze worker": self.freezes - few,
            "freeze supervisor": few,
        }
        listed = [blow for blow, count in counts.items() for _ in range(count)]
        random.Random(self.seed).shuffle(listed)
        return listed


@dataclass
class Report:
    """The result of a storm: figures, and all broken promises."""

    weather: Weather
    blows: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    struck: int = 0
    """How many workers were hit by blows; one blow may hit several."""
    epochs_stored: int = 0
    epochs_begun: int = 0
    decisions: int = 0
    looks: int = 0
    """How often all decisions were compared with their earlier values."""
    workers_started: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def twice(self) -> int:
        """The number of epochs that were started more than once."""
        return self.epochs_begun - self.epochs_stored

    @property
    def bound(self) -> int:
        """The maximum number of epochs that may be trained twice."""
        return self.struck * (self.weather.every + RUN_AHEAD)

    def lines(self) -> list[str]:
        """Return the figures as text."""
        told = self.events
        weather = self.weather
        return [
            f"{weather.name}: {weather.trials} trials of {weather.epochs} epochs",
            f"  workers            {weather.workers}, seed {weather.seed}",
            f"  blows              {_listed(self.blows)}",
            f"  trials             {_listed(self.states)}",
            f"  workers started    {self.workers_started}",
            (
                f"  attempts lost      {told['lost']}, interrupted {told['interrupted']}, "
                f"failed {told['attempt failed']}"
            ),
            f"  trials adopted     {told['adopted']}, resumed from a checkpoint {told['resumed']}",
            f"  epochs stored      {self.epochs_stored}",
            self._begun(),
            f"  decisions          {self.decisions}, compared {self.looks} times",
            f"  seconds            {self.seconds:.0f}",
            *(f"  NOT AS PROMISED    {fault}" for fault in self.faults or ()),
        ]

    def _begun(self) -> str:
        if self.weather.plain:
            return f"  trials at a time   {self.weather.pack}"
        twice = f"twice: {self.twice}, at most {self.bound}"
        return f"  epochs begun       {self.epochs_begun} ({twice})"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
