"""Racing: which contenders get a further seed, and when they are compared with each other.

Pure functions over what exists and what was decided; whoever holds contenders
against each other lives above. When everyone is looked at is known beforehand,
and what was decided is never decided again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, takewhile
from typing import Any, Literal

ERROR = 0.05
"""How often, at most, the truly best of the contenders may be dropped."""
KEPT_BACK = 0.2
"""The share of it that is kept for a later extension of the study."""

Ends = Literal["", "images"]
"""Why a look ends the race with several left: more images would be needed, not more seeds."""


@dataclass(frozen=True)
class Look:
    """A moment at which the contenders are compared with each other."""

    number: int
    """From 1 on."""
    rounds: int
    """The seeds 1 to this one are looked at."""
    racing: tuple[int, ...]
    """The contenders that are still in the race, the best under seed 0 first."""
    field: int
    """How many contenders there have been in all."""
    looks: int
    """How many looks there can be in all, as the study's file has it now."""
    room: int
    """How many trials there are for further seeds, as the study's file has it now."""
    error: float
    """How often this look, at most, may drop the truly best."""

    @property
    def level(self) -> float:
        """Return how often one comparison of this look may be wrong."""
        return self.error / max(1, self.field - 1)


@dataclass(frozen=True)
class Decided:
    """What came of a look; stored once, never revised."""

    look: Look
    dropped: tuple[int, ...]
    ends: Ends = ""
    seen: Mapping[str, Any] = field(default_factory=dict)
    """What was decided upon, as JSON."""


def schedule() -> Iterator[int]:
    """Yield the rounds after which there is a look: 2, 3, 4, 6, 8, 11, 16, 23, …"""
    return (round(2 ** (1 + place / 2)) for place in count())


def looks(contenders: int, room: int) -> list[int]:
    """Return the rounds of all looks that a race with so much room can come to.

    The longest race drops all but two at its first look, and after its last
    look there is room for another round of these two.
    """
    first = next(schedule())
    farthest = first + (room - first * contenders - 2) // 2
    return list(takewhile(lambda rounds: rounds <= farthest, schedule()))


@dataclass(frozen=True)
class Race:
    """How a race stands."""

    contenders: tuple[int, ...]
    """All that ever were, the best under seed 0 first."""
    seeds: Mapping[int, Collection[int]]
    """The further seeds that each contender has been given."""
    room: int
    """How many trials there are for further seeds."""
    decided: Sequence[Decided] = ()

    @cached_property
    def racing(self) -> tuple[int, ...]:
        """The contenders that nothing was decided against."""
        dropped = {one for past in self.decided for one in past.dropped}
        return tuple(one for one in self.contenders if one not in dropped)

    @property
    def over(self) -> bool:
        """Whether no further seed is to be given, whatever room there is."""
        return self.won or self.stuck

    @property
    def won(self) -> bool:
        """Whether one is left of several."""
        return len(self.racing) < 2 <= len(self.contenders)

    @property
    def stuck(self) -> bool:
        """Whether a look ended the race, and nothing has given it more to tell since.

        More room does, and so does a contender that no look has seen: a longer
        exploration found it, or a retried trial.
        """
        if not self.decided:
            return False
        last = self.decided[-1]
        known = set(self.racing) <= set(last.look.racing)
        return bool(last.ends) and known and last.look.room >= self.room

    @cached_property
    def affordable(self) -> int:
        """How many rounds there is room for, all that race in each.

        A round that not all can be given is not begun: it would tell of none.
        """
        spent, rounds = self.spent, 0
        while self.racing:
            spent += sum(rounds + 1 not in self.seeds.get(one, ()) for one in self.racing)
            if spent > self.room:
                break
            rounds += 1
        return rounds

    @property
    def spent(self) -> int:
        """How many trials were given to further seeds."""
        return sum(len(given) for given in self.seeds.values())

    @property
    def saved(self) -> int:
        """How many trials are left over where the race is over."""
        return max(0, self.room - self.spent)

    def look(self) -> Look | None:
        """Return the next look; None where there is none, or nothing could come of it."""
        past = self.decided[-1].look.rounds if self.decided else 0
        rounds = next(one for one in schedule() if one > past)
        if len(self.racing) < 2 or rounds > self.affordable:
            return None
        missing = sum(len(set(range(1, rounds + 1)) - set(self._given(c))) for c in self.racing)
        if self.spent + missing + 2 > self.room:
            return None
        known = looks(len(self.contenders), self.room)
        return Look(
            number=len(self.decided) + 1,
            rounds=rounds,
            racing=self.racing,
            field=len(self.contenders),
            looks=len(known),
            room=self.room,
            error=self._error(known),
        )

    def _given(self, contender: int) -> Collection[int]:
        return self.seeds.get(contender, ())

    def _error(self, known: Sequence[int]) -> float:
        """Return what the next look may spend.

        The looks of one extent of the study share alike what was left when it
        got that extent, but for what is kept back for the next. Weights that
        grow with the look were tried: they find no more, and save less.
        """
        before = [past.look for past in self.decided if past.look.room != self.room]
        left = ERROR - sum(look.error for look in before)
        since = before[-1].rounds if before else 0
        return (1 - KEPT_BACK) * left / max(1, sum(rounds > since for rounds in known))
