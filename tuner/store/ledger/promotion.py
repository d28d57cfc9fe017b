"""Promotion: which paused trial goes on, and for how long. Asynchronous successive halving.

    rungs   2 ── 6 ── 18 ── the trial's end          first = 2, eta = 3
    trial   trained to a rung, paused there; perhaps promoted to the next

A worker that claims a trial gets, in this order:

1. while no trial is complete or on its way there, the best paused trial of the last rung: the
   search has an answer early, at the price of one training that might have been a better one's;
2. from the highest rung down, the best paused trial, if it is among the best 1/eta of all
   that have reached that rung (a promotion);
3. a new trial, as long as the study has settings left;
4. until enough trials are complete, the best paused trial of each rung in turn.

Pure functions over the stored trials; claims apply them under the study's lock. No worker waits for
another trial to reach a rung, and a decision is never revised.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

from tuner.spec.study import Spec

Why = Literal["begun", "first to finish", "promoted", "in turn", "chosen"]
"""Why a trial is given a stretch of training; `chosen` by a person."""


@dataclass(frozen=True)
class Ladder:
    """The epochs at which trials pause."""

    rungs: tuple[int, ...]
    """In ascending order, the same for all trials, however long their training is planned."""
    eta: int
    finish: int
    """How many trials are trained to their end at least."""

    @classmethod
    def of(cls, spec: Spec) -> "Ladder | None":
        """Return a study's ladder; None if its trials do not pause."""
        if not spec.promotes:
            return None
        options = spec.search.allocator_options
        first, eta = float(options["first"]), int(options["eta"])
        # By the longest training, so that trials of different lengths meet at the same epochs.
        lowest = max(1, round(first * spec.longest)) if first < 1 else int(first)
        every = (lowest * eta**power for power in range(spec.longest.bit_length() + 1))
        rungs = takewhile(lambda rung: rung < spec.longest, every)
        return cls(tuple(rungs), eta, spec.finish)

    def until(self, start: int, length: int) -> int | None:
        """Return the rung at which a stretch from epoch `start` ends; None for the trial's end."""
        following = bisect_right(self.rungs, start)
        rung = self.rungs[following] if following < len(self.rungs) else length
        return rung if rung < length else None


@dataclass(frozen=True, eq=False)
class Climber:
    """A trial that has reached a rung."""

    number: int
    values: Mapping[int, float]
    """The study's metric by rung, smaller is better."""
    paused: bool
    """Whether it is paused at the highest rung that it has reached."""

    @property
    def at(self) -> int:
        """The highest rung that it has reached."""
        return max(self.values)


@dataclass(frozen=True)
class Stretch:
    """A paused trial that goes on, and what the decision is based on."""

    number: int
    start: int
    """The epoch at which it was paused."""
    why: Why
    saw: Mapping[str, Any] = field(default_factory=dict)
    """As JSON."""


@dataclass(frozen=True)
class Rung:
    """One rung, and the best trial of those that are paused there."""

    reached: int
    paused: int
    best: int | None = None
    """Its number; the older one wins a tie. None if no trial is paused there."""
    rank: int = 0
    """Its rank among all that have reached the rung, from 1 on."""


@dataclass(frozen=True)
class Climb:
    """All trials that have reached a rung, and what follows from them."""

    ladder: Ladder
    climbers: Sequence[Climber] = ()
    complete: int = 0
    """How many trials are complete."""
    finishing: int = 0
    """How many trials are being trained to their end."""
    last_turn: int | None = None
    """The rung of the last decision by turn."""
    counted: Mapping[int, Rung] | None = None
    """The rungs, if the database has counted them; else they are made of `climbers`."""

    def promotion(self) -> Stretch | None:
        """Return the trial that goes on before any new one: the first to finish, or promoted."""
        last = max(self._occupied, default=0)
        if last in self.ladder.rungs[-1:] and self.complete + self.finishing == 0:
            return self._stretch(last, "first to finish")
        for epoch in sorted(self._occupied, reverse=True):
            rung = self._occupied[epoch]
            if rung.rank <= rung.reached // self.ladder.eta:
                return self._stretch(epoch, "promoted")
        return None

    def turn(self) -> Stretch | None:
        """Return the best paused trial of the rung whose turn it is, from the highest down."""
        if not self._occupied:
            return None
        last = self.last_turn or 0
        epoch = max([epoch for epoch in self._occupied if epoch < last] or self._occupied)
        return self._stretch(epoch, "in turn")

    @property
    def is_enough(self) -> bool:
        """Whether enough trials are complete, or will be if those that finish now do."""
        return self.complete + self.finishing >= self.ladder.finish

    @cached_property
    def saw(self) -> Mapping[str, Any]:
        """What a decision is based on, as JSON."""
        rungs = {
            str(epoch): {"reached": rung.reached, "paused": rung.paused}
            for epoch, rung in sorted(self._rungs.items())
        }
        return {"rungs": rungs, "complete": self.complete, "finishing": self.finishing}

    @cached_property
    def _rungs(self) -> Mapping[int, Rung]:
        return rungs_of(self.climbers) if self.counted is None else self.counted

    @cached_property
    def _occupied(self) -> Mapping[int, Rung]:
        """The rungs at which a trial is paused."""
        return {epoch: rung for epoch, rung in self._rungs.items() if rung.best is not None}

    def _stretch(self, epoch: int, why: Why) -> Stretch:
        rung = self._occupied[epoch]
        assert rung.best is not None
        return Stretch(rung.best, epoch, why, {"rank": rung.rank, **self.saw})


def rungs_of(climbers: Sequence[Climber]) -> dict[int, Rung]:
    """Return every rung that a trial has reached."""
    reached: dict[int, list[Climber]] = defaultdict(list)
    for climber in climbers:
        for epoch in climber.values:
            reached[epoch].append(climber)
    rungs = {}
    for epoch, those in reached.items():
        ranked = sorted(those, key=lambda one: (_order(one.values[epoch]), one.number))
        paused = [one for one in ranked if one.paused and one.at == epoch]
        best = paused[0] if paused else None
        rungs[epoch] = (
            Rung(len(ranked), 0)
            if best is None
            else Rung(len(ranked), len(paused), best.number, ranked.index(best) + 1)
        )
    return rungs


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value
