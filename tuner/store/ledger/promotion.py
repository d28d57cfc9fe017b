"""Promotion: which paused trial goes on, and for how long. Asynchronous successive halving.

    rungs   2 ── 6 ── 18 ── the trial's end          first = 2, eta = 3
    trial   trained to a rung, paused there; perhaps promoted to the next

A worker that asks gets, in this order:

1. from the highest rung down, the best paused trial, if it is among the best 1/eta of all
   that have reached that rung (a promotion);
2. a new trial, as long as the study has settings left;
3. until enough trials are complete, the best paused trial of each rung in turn.

Pure functions over what is stored; claims apply them under the study's lock. No worker
waits for another one to reach a rung, and a decision is never revised.
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

Why = Literal["begun", "promoted", "in turn", "chosen"]
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

    def promotion(self) -> Stretch | None:
        """Return the trial to promote, if a paused one is among the best of its rung."""
        for rung in sorted(self._paused, reverse=True):
            best = self._paused[rung]
            if self._ranks[rung].index(best) < len(self._ranks[rung]) // self.ladder.eta:
                return self._stretch(best, rung, "promoted")
        return None

    def turn(self) -> Stretch | None:
        """Return the best paused trial of the rung whose turn it is, from the highest down."""
        if not self._paused:
            return None
        last = self.last_turn or 0
        rung = max([rung for rung in self._paused if rung < last] or self._paused)
        return self._stretch(self._paused[rung], rung, "in turn")

    @property
    def is_enough(self) -> bool:
        """Whether enough trials are complete, or will be if those that finish now do."""
        return self.complete + self.finishing >= self.ladder.finish

    @cached_property
    def saw(self) -> Mapping[str, Any]:
        """What a decision is based on, as JSON."""
        rungs = {
            str(rung): {
                "reached": len(those),
                "paused": sum(one.paused and one.at == rung for one in those),
            }
            for rung, those in sorted(self._ranks.items())
        }
        return {"rungs": rungs, "complete": self.complete, "finishing": self.finishing}

    @cached_property
    def _ranks(self) -> Mapping[int, Sequence[Climber]]:
        """All that have reached each rung, the best first; the older one wins a tie."""
        reached: dict[int, list[Climber]] = defaultdict(list)
        for climber in self.climbers:
            for rung in climber.values:
                reached[rung].append(climber)
        return {
            rung: sorted(those, key=lambda one: (_order(one.values[rung]), one.number))
            for rung, those in reached.items()
        }

    @cached_property
    def _paused(self) -> Mapping[int, Climber]:
        """The best paused trial of each rung that has one."""
        best: dict[int, Climber] = {}
        for rung, those in self._ranks.items():
            paused = (one for one in those if one.paused and one.at == rung)
            if (first := next(paused, None)) is not None:
                best[rung] = first
        return best

    def _stretch(self, climber: Climber, rung: int, why: Why) -> Stretch:
        rank = self._ranks[rung].index(climber) + 1
        return Stretch(climber.number, rung, why, {"rank": rank, **self.saw})


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value
