"""Racing: which contenders get a further seed, and when they are compared with each other.

A group-sequential design as pure functions over the existing trials and the stored
decisions; the comparison itself is made in the rooms above. The looks are scheduled
beforehand, and a decision is never revised.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, takewhile
from typing import Any, Literal

ERROR = 0.05
"""Upper bound of the probability that the truly best contender is dropped (alpha)."""
KEPT_BACK = 0.2
"""The share of alpha that is reserved for a later extension of the study."""

Ends = Literal["", "images"]
"""Why a look ends the race with several left: it would need more images, not more seeds."""


@dataclass(frozen=True)
class Look:
    """A moment at which the contenders are compared with each other."""

    number: int
    """Counted from 1."""
    rounds: int
    """Seeds 1 to this one are compared."""
    racing: tuple[int, ...]
    """The contenders that are still in the race, the best under seed 0 first."""
    field: int
    """How many contenders there have been in total."""
    looks: int
    """How many looks there can be in total, by the current study file."""
    room: int
    """How many trials there are for further seeds, by the current study file."""
    error: float
    """Upper bound of the probability that this look drops the truly best one (alpha spent)."""

    @property
    def level(self) -> float:
        """Return the significance level of one comparison at this look (Bonferroni)."""
        return self.error / max(1, self.field - 1)


@dataclass(frozen=True)
class Decided:
    """The decision of a look; stored once, never revised."""

    look: Look
    dropped: tuple[int, ...]
    ends: Ends = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """The data on which the decision is based, as JSON."""


def schedule() -> Iterator[int]:
    """Yield the rounds after which there is a look: 2, 3, 4, 6, 8, 11, 16, 23, …"""
    return (round(2 ** (1 + place / 2)) for place in count())


def looks(contenders: int, room: int) -> list[int]:
    """Return the rounds of all looks that a race with this much room can reach.

    The longest race drops all but two at its first look, and after its last
    look there is room for another round of these two.
    """
    first = next(schedule())
    farthest = first + (room - first * contenders - 2) // 2
    return list(takewhile(lambda rounds: rounds <= farthest, schedule()))


@dataclass(frozen=True)
class Race:
    """The state of a race."""

    contenders: tuple[int, ...]
    """All contenders so far, the best under seed 0 first."""
    seeds: Mapping[int, Collection[int]]
    """The further seeds that each contender has been given."""
    room: int
    """How many trials there are for further seeds."""
    decided: Sequence[Decided] = ()

    @cached_property
    def racing(self) -> tuple[int, ...]:
        """The contenders that have not been dropped."""
        dropped = {contender for past in self.decided for contender in past.dropped}
        return tuple(contender for contender in self.contenders if contender not in dropped)

    @property
    def over(self) -> bool:
        """Whether the race is decided, so that no contender gets a further seed."""
        return self.won or self.stuck

    @property
    def won(self) -> bool:
        """Whether one of several contenders is left."""
        return len(self.racing) < 2 <= len(self.contenders)

    @property
    def stuck(self) -> bool:
        """Whether a look ended the race undecided, and nothing has reopened it since.

        More room reopens it, and so does a contender that no look has compared yet, found by a
        longer exploration or a retried trial.
        """
        if not self.decided:
            return False
        last = self.decided[-1]
        same_field = set(self.racing) <= set(last.look.racing)
        return bool(last.ends) and same_field and last.look.room >= self.room

    @cached_property
    def affordable(self) -> int:
        """How many rounds there is room for, with all remaining contenders in each.

        A round that cannot include all of them is not started: it would decide nothing.
        """
        spent, rounds = self.spent, 0
        while self.racing:
            spent += sum(rounds + 1 not in self.seeds.get(racer, ()) for racer in self.racing)
            if spent > self.room:
                break
            rounds += 1
        return rounds

    @property
    def spent(self) -> int:
        """How many trials further seeds have used."""
        return sum(len(seeds) for seeds in self.seeds.values())

    @property
    def saved(self) -> int:
        """How many trials are saved when the race is over."""
        return max(0, self.room - self.spent)

    def look(self) -> Look | None:
        """Return the next look; None if there is none or it could not decide anything."""
        past = self.decided[-1].look.rounds if self.decided else 0
        rounds = next(scheduled for scheduled in schedule() if scheduled > past)
        if len(self.racing) < 2 or rounds > self.affordable:
            return None
        missing = sum(len(set(range(1, rounds + 1)) - set(self._given(c))) for c in self.racing)
        if self.spent + missing + 2 > self.room:
            return None
        all_rounds = looks(len(self.contenders), self.room)
        return Look(
            number=len(self.decided) + 1,
            rounds=rounds,
            racing=self.racing,
            field=len(self.contenders),
            looks=len(all_rounds),
            room=self.room,
            error=self._error(all_rounds),
        )

    def _given(self, contender: int) -> Collection[int]:
        return self.seeds.get(contender, ())

    def _error(self, rounds_of_looks: Sequence[int]) -> float:
        """Return the alpha that the next look may spend.

        All looks that one size of the study allows share the alpha equally that was left when the
        study got that size, minus the reserve for the next extension. Weights that grow with the
        look were tried: they find no more, and save less.
        """
        before = [past.look for past in self.decided if past.look.room != self.room]
        left = ERROR - sum(look.error for look in before)
        since = before[-1].rounds if before else 0
        return (1 - KEPT_BACK) * left / max(1, sum(rounds > since for rounds in rounds_of_looks))
