"""A race between a study's best settings: its contenders, and the rule that decides at a look.

A race is a group-sequential test (`statistics.sequential`): at each look every contender is
compared with the best one, and those that are significantly worse are eliminated. Nothing is random
and nothing depends on the order of rows, so two workers that judge the same look agree.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuner.records import Value
from tuner.results.designs import Design
from tuner.results.measures import Measure
from tuner.results.results import Results
from tuner.results.rows import TrialRow
from tuner.results.samples import by_trial, has_figure, sample
from tuner.spec.study import Spec
from tuner.statistics import ContenderTest, Panel, compare_with_best, too_few
from tuner.store.ledger.assignments import Existing, race
from tuner.store.ledger.looks import Decided, Ends, Look, Race
from tuner.store.races import read_decisions

PAIRS_LEAST = 2
"""The fewest pairs of trials under the same seed with which a contender is compared."""

Done = Mapping[int, Collection[int]]
"""For each contender the seeds of the look under which it has a value."""
PanelOf = Callable[[Sequence[int], Sequence[int]], Panel | None]
"""Returns the values of contenders under seeds that all of them have."""


# The contenders


def read_race(results: Results) -> Race | None:
    """Return the state of a study's race; None if there are no contenders yet."""
    spec = results.spec
    if spec.replicates.of != "top":
        return None
    existing = [_existing(row, spec) for row in results.rows]
    explored = [trial for trial in existing if trial.seed == 0]
    if len(explored) < spec.configurations or any(not trial.ended for trial in explored):
        return None
    state = race(spec, existing, read_decisions(results.connection, results.study.study_id))
    return state if state.contenders else None


def _existing(row: TrialRow, spec: Spec) -> Existing:
    sign = 1.0 if spec.direction == "minimize" else -1.0
    return Existing(
        row.configuration,
        row["seed"],
        ended=row.ended,
        complete=row.complete,
        value=sign * row.value if row.complete and row.value is not None else None,
    )


def contender_names(results: Results, contenders: Collection[int]) -> dict[int, str]:
    """Return the name of each contender: the values in which it differs from the others."""
    spec = results.spec
    chosen: dict[int, Mapping[str, Value | None]] = {
        row.configuration: {name: row[name] for name in spec.varied}
        for row in results.rows
        if row.configuration in contenders
    }
    telling = [
        name
        for name in spec.varied
        if len({repr(contender[name]) for contender in chosen.values()}) > 1
    ]
    # A parameter that is not active in a contender is not part of its name.
    names = {
        contender: " ".join(
            f"{name}={_short(value)}" for name in telling if (value := values[name]) is not None
        )
        for contender, values in chosen.items()
    }
    shared = Counter(names.values())
    return {
        contender: f"{name} #{contender}".strip() if not name or shared[name] > 1 else name
        for contender, name in names.items()
    }


def _short(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class Evidence:
    """The values of one measure for the trials of contenders, over the seeds from 1 on.

    Seed 0 chose the contenders, so their figures under it are biased by that selection.
    """

    def __init__(self, results: Results, measure: Measure) -> None:
        self._results, self.measure = results, measure
        self.rows = [row for row in results.rows if row["seed"] > 0]
        self._numbers = {(row.configuration, row["seed"]): row["trial"] for row in self.rows}

    def done(self, rounds: int) -> dict[int, frozenset[int]]:
        """Return, by contender, the seeds 1 to this many under which it has the figure."""
        found: dict[int, set[int]] = defaultdict(set)
        for row in self.rows:
            if row["seed"] <= rounds and has_figure(row, self.measure, self._results.at):
                found[row.configuration].add(row["seed"])
        return {one: frozenset(seeds) for one, seeds in found.items()}

    def panel(self, contenders: Sequence[int], seeds: Sequence[int]) -> Panel | None:
        """Return the values of contenders under seeds that all of them have."""
        design = Design(
            factor="contender",
            standings=(),
            levels=tuple(contenders),
            paired=True,
            units=self.units(contenders, seeds),
            left_out=0,
        )
        taken = sample(self._results, design, self.measure)
        if taken is None:
            # Without values by image, a trial may still have the figure as a whole.
            taken = by_trial(self._results, design, self.measure)
        return taken.panel if taken is not None and isinstance(taken.panel, Panel) else None

    def units(
        self, contenders: Sequence[int], seeds: Sequence[int]
    ) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Return the trial numbers by contender and seed, as in a design."""
        return tuple(
            tuple((self._numbers[contender, seed],) for seed in seeds) for contender in contenders
        )


# A look at the race


def judge_look(results: Results, look: Look) -> Decided:
    """Decide a look from stored predictions or, without any, from the stored figures."""
    measure = results.measures[results.metric]
    evidence = Evidence(results, measure)
    done = evidence.done(look.rounds)
    decided = decide(look, done, evidence.panel, larger=measure.larger)
    about = {"metric": measure.name, "at": results.at}
    return Decided(look, decided.dropped, decided.ends, {**about, **decided.seen})


def decide(look: Look, done: Done, panel_of: PanelOf, *, larger: bool) -> Decided:
    """Compare every contender of a look with the best, and eliminate those significantly worse."""
    field = _Field(look, done, panel_of, larger)
    best = field.best()
    if best is None:
        return Decided(look, (), "", {"level": look.level, "best": None, "images": 0, "held": []})
    compared = [field.compared(one, best) for one in look.racing if one != best]
    dropped = tuple(one.contender for one in compared if one.test and one.test.separated)
    left = [one for one in compared if one.contender not in dropped]
    stuck = bool(left) and all(one.test and one.test.beyond_seeds for one in left)
    ends: Ends = "images" if stuck else ""
    seen = {
        "level": look.level,
        "best": best,
        "images": max((one.images for one in compared), default=0),
        "patients": max((one.patients for one in compared), default=0),
        "held": [one.described() for one in compared],
    }
    return Decided(look, dropped, ends, seen)


@dataclass(frozen=True)
class _Compared:
    """One contender at a look."""

    contender: int
    pairs: int
    left_out: int
    """Seeds under which it or the best has no figure: failed, diverged, pruned."""
    images: int = 0
    patients: int = 0
    """The number of patients; 0 if the data name none."""
    test: ContenderTest | None = None
    """None with too few pairs, or patients, to compare it."""

    def described(self) -> dict[str, Any]:
        """Return it as JSON, to be stored with the decision."""
        about = {"configuration": self.contender, "pairs": self.pairs, "left_out": self.left_out}
        if self.test is None:
            return {**about, "difference": None}
        apart = self.test.difference
        return {
            **about,
            "difference": {"value": apart.value, "low": apart.low, "high": apart.high},
            "chance": self.test.p_value,
            "separated": self.test.separated,
            "beyond_seeds": self.test.beyond_seeds,
        }


@dataclass(frozen=True)
class _Field:
    look: Look
    done: Done
    panel_of: PanelOf
    larger: bool

    def best(self) -> int | None:
        """Return the contender with the best mean; among equal ones, the one better under seed 0.

        Any choice of the reference is valid, because the error rate covers every pair.
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

    def compared(self, contender: int, best: int) -> _Compared:
        """Compare a contender with the best, over the seeds that both have."""
        seeds = sorted(set(self.done.get(contender, ())) & set(self.done[best]))
        compared = _Compared(contender, len(seeds), self.look.rounds - len(seeds))
        if len(seeds) < PAIRS_LEAST:
            return compared
        # Other contenders with the same seeds improve the estimate of the spread.
        levels = [one for one in self._able() if set(seeds) <= set(self.done[one])]
        panel = self.panel_of(levels, seeds)
        if panel is None:
            return compared
        compared = replace(compared, images=panel.images, patients=panel.patients)
        if too_few(panel.clusters):
            return compared
        places = levels.index(contender), levels.index(best)
        test = compare_with_best(panel, *places, self.look.level, larger=self.larger)
        return replace(compared, test=test)

    def _able(self) -> list[int]:
        return [one for one in self.look.racing if len(self.done.get(one, ())) >= PAIRS_LEAST]

    def _mean(self, levels: Sequence[int], seeds: Sequence[int]) -> list[float | None]:
        panel = self.panel_of(levels, seeds)
        return [None] * len(levels) if panel is None else [float(mean) for mean in panel.means]
