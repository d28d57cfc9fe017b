"""The rule of a race: who is separated from the best contender, and leaves.

Nothing here is random and nothing depends on the order of rows, so that two
workers who come to the same look decide the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tuner.results.contenders import Evidence
from tuner.results.measures import MEASURES
from tuner.statistics.anova import Panel
from tuner.statistics.clusters import too_few
from tuner.statistics.sequential import Held, hold
from tuner.store.ledger.race import Decided, Ends, Look
from tuner.store.studies import Study

PAIRS_LEAST = 2
"""Pairs of trials under the same seed without which nobody is judged."""

Done = Mapping[int, Collection[int]]
"""By contender the seeds under which it has a figure; the look's seeds only."""
PanelOf = Callable[[Sequence[int], Sequence[int]], Panel | None]
"""The values of contenders under seeds that all of them have."""


def judge(connection: sa.Connection, study: Study, look: Look) -> Decided:
    """Decide a look from what is stored: predictions where there are some, else the figures."""
    measure = MEASURES[study.spec.search.metric]
    evidence = Evidence(connection, study, measure)
    done = evidence.done(look.rounds)
    decided = decide(look, done, evidence.panel, larger=measure.larger)
    about = {"metric": measure.name, "at": study.spec.search.at}
    return Decided(look, decided.dropped, decided.ends, {**about, **decided.seen})


def decide(look: Look, done: Done, panel_of: PanelOf, *, larger: bool) -> Decided:
    """Hold every contender of a look against the best, and drop those that are separated."""
    field = _Field(look, done, panel_of, larger)
    best = field.best()
    if best is None:
        return Decided(look, (), "", {"level": look.level, "best": None, "images": 0, "held": []})
    held = [field.held(one, best) for one in look.racing if one != best]
    dropped = tuple(one.contender for one in held if one.found and one.found.separated)
    left = [one for one in held if one.contender not in dropped]
    stuck = bool(left) and all(one.found and one.found.beyond_seeds for one in left)
    ends: Ends = "images" if stuck else ""
    seen = {
        "level": look.level,
        "best": best,
        "images": max((one.images for one in held), default=0),
        "patients": max((one.patients for one in held), default=0),
        "held": [one.described() for one in held],
    }
    return Decided(look, dropped, ends, seen)


@dataclass(frozen=True)
class _Judged:
    """One contender at a look."""

    contender: int
    pairs: int
    left_out: int
    """Seeds under which it or the best has no figure: failed, diverged, pruned."""
    images: int = 0
    patients: int = 0
    """How many patients the images are of; 0 where they are not named."""
    found: Held | None = None
    """None where there are too few pairs, or patients, to judge it."""

    def described(self) -> dict[str, Any]:
        """Return it as JSON, to be stored with what was decided."""
        about = {"configuration": self.contender, "pairs": self.pairs, "left_out": self.left_out}
        if self.found is None:
            return {**about, "difference": None}
        apart = self.found.difference
        return {
            **about,
            "difference": {"value": apart.value, "low": apart.low, "high": apart.high},
            "chance": self.found.p_value,
            "separated": self.found.separated,
            "beyond_seeds": self.found.beyond_seeds,
        }


@dataclass(frozen=True)
class _Field:
    look: Look
    done: Done
    panel_of: PanelOf
    larger: bool

    def best(self) -> int | None:
        """Return the contender with the best mean; of equal ones the one better under seed 0.

        Which one the others are compared with is free: the guarantee counts every pair.
        """
        able = self._able()
        common = sorted(set.intersection(*(set(self.done[one]) for one in able))) if able else []
        if len(common) < PAIRS_LEAST:
            means = {one: self._mean([one], sorted(self.done[one]))[0] for one in able}
        else:
            means = dict(zip(able, self._mean(able, common), strict=True))
        known = [one for one in able if means[one] is not None]
        sign = -1.0 if self.larger else 1.0
        return min(known, key=lambda one: sign * (means[one] or 0.0), default=None)

    def held(self, contender: int, best: int) -> _Judged:
        """Hold one against the best, over the seeds that both have."""
        seeds = sorted(set(self.done.get(contender, ())) & set(self.done[best]))
        judged = _Judged(contender, len(seeds), self.look.rounds - len(seeds))
        if len(seeds) < PAIRS_LEAST:
            return judged
        # Whoever has the same seeds too lends these two certainty about the spread.
        levels = [one for one in self._able() if set(seeds) <= set(self.done[one])]
        panel = self.panel_of(levels, seeds)
        if panel is None:
            return judged
        judged = replace(judged, images=panel.images, patients=panel.patients)
        if too_few(panel.clusters):
            return judged
        places = levels.index(contender), levels.index(best)
        found = hold(panel, *places, self.look.level, larger=self.larger)
        return replace(judged, found=found)

    def _able(self) -> list[int]:
        return [one for one in self.look.racing if len(self.done.get(one, ())) >= PAIRS_LEAST]

    def _mean(self, levels: Sequence[int], seeds: Sequence[int]) -> list[float | None]:
        panel = self.panel_of(levels, seeds)
        return [None] * len(levels) if panel is None else [float(mean) for mean in panel.means]
