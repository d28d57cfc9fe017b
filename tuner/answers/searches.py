"""Compares two searches by the best value so far, as a function of epochs trained.

    trials of a study ── by seed ──> courses: epochs trained so far -> best complete trial's value
    courses of a search ──> mean and 95% interval at common budgets ──> difference, epochs saved

A search is one study, or several that match a pattern such as 'tpe-*' and repeat it under other
`[search] seed`s. A study with replicates has one course for each seed. The value at a budget is
that of the best trial completed by then, which is the trial that the search would have returned.

An epoch counts once, when a trial of the search first has it, even if it was reused from another
study. Of two searches in one folder, the second finds epochs of the first one stored: if they
counted for nothing, it would seem to need almost none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.answers import words
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import Unit
from tuner.results import Measure, Results, TrialRow
from tuner.spec.study_ref import StudyRef
from tuner.statistics import Interval, Mean, mean_over_seeds, welch
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.studies import Study

__all__ = ["SearchRuns", "Searches", "compare_searches", "table"]

Array = NDArray[np.float64]

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""The fractions of the common budget at which the searches are compared."""
INCIDENTAL = frozenset(
    {"name", "question", "overrides", "folder", "limits", "checkpoints", "budget", "search"}
)
"""Keys of a study in which repeats of a search may differ; `search` is checked separately."""


@dataclass(frozen=True)
class Course:
    """One run of a search: its best value each time a better trial completed."""

    study: str
    seed: int | None
    """The seed that its trials share; None if all trials of the study are one course."""
    epochs: Array
    """The epochs needed whenever the best value improved, in rising order."""
    best: Array
    total: int
    """The total number of epochs needed."""
    tested: tuple[float | None, ...] = ()
    """The test accuracies of those trials."""

    def at(self, budget: float) -> float | None:
        """Return the best value after this many epochs; None before the first complete trial."""
        place = self._place(budget)
        return None if place < 0 else float(self.best[place])

    def tested_at(self, budget: float) -> float | None:
        """Return the test accuracy of the best trial after this many epochs."""
        place = self._place(budget)
        return self.tested[place] if 0 <= place < len(self.tested) else None

    def _place(self, budget: float) -> int:
        return int(np.searchsorted(self.epochs, budget, side="right")) - 1


@dataclass(frozen=True)
class SearchRuns:
    """One of the two searches, run once or several times."""

    name: str
    courses: tuple[Course, ...]

    JSON: ClassVar = ("name", "courses=runs", "epochs=total", "best")

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Each course with the points where its best value improved."""
        return [
            {
                "study": course.study,
                "seed": course.seed,
                "epochs": course.total,
                "improved": [
                    {"epochs": int(epochs), "best": float(best)}
                    for epochs, best in zip(course.epochs, course.best, strict=True)
                ],
            }
            for course in self.courses
        ]

    @property
    def total(self) -> int:
        """The epochs that all its courses have."""
        return min(course.total for course in self.courses)

    @property
    def best(self) -> Mean | None:
        """The mean of the courses' best values after these epochs."""
        return self.at(self.total)

    def at(self, budget: float) -> Mean | None:
        """Return the mean best value after this many epochs; None until every course has one."""
        return _mean([course.at(budget) for course in self.courses])

    def tested_at(self, budget: float) -> Mean | None:
        """Return the mean test accuracy of its courses' best trials after this many epochs."""
        return _mean([course.tested_at(budget) for course in self.courses])

    def first(self, value: float, *, smaller: bool) -> int | None:
        """Return the number of epochs after which its mean best value reaches this value."""
        moments = sorted({float(epoch) for course in self.courses for epoch in course.epochs})
        for moment in moments:
            mean = self.at(moment)
            # A mean of equal values may differ from them in the last bit.
            close = mean is not None and math.isclose(mean.value, value, rel_tol=1e-12)
            better = mean is not None and (mean.value < value if smaller else mean.value > value)
            if close or better:
                return int(moment)
        return None


@dataclass(frozen=True)
class AtBudget:
    """Both searches after the same number of epochs."""

    epochs: int
    one: Mean | None
    other: Mean | None
    difference: Interval | None
    """With Welch's interval; None unless both have several courses, not all equal."""
    test_acc: tuple[Mean | None, Mean | None] = (None, None)
    """The test accuracy of the trials that each search would return then."""


@dataclass(frozen=True)
class Searches:
    """Two searches, compared by the same figure."""

    measure: Measure
    one: SearchRuns
    other: SearchRuns
    budgets: tuple[AtBudget, ...]
    same_images: bool

    JSON: ClassVar = (
        "metric",
        "searches=both",
        "budgets",
        "same_images",
        "epochs_to_the_same=saved",
        "differs",
        "verdict",
    )

    @property
    def both(self) -> tuple[SearchRuns, SearchRuns]:
        """Both searches."""
        return self.one, self.other

    @property
    def metric(self) -> str:
        """The figure's name."""
        return self.measure.name

    @property
    def smaller(self) -> bool:
        """Whether a smaller value is better."""
        return not self.measure.larger

    @property
    def differs(self) -> bool:
        """Whether their best values at the common budget differ significantly."""
        difference = self.budgets[-1].difference
        return difference is not None and not difference.low <= 0 <= difference.high

    @property
    def ahead(self) -> tuple[SearchRuns, SearchRuns]:
        """The search with the better mean at the common budget, and the other one.

        Of two that reach the same, the one that reached it first.
        """
        last = self.budgets[-1]
        if last.one is None or last.other is None:
            return (self.one, self.other) if last.other is None else (self.other, self.one)
        value, other = last.one.value, last.other.value
        if math.isclose(value, other, rel_tol=1e-12):
            mine, theirs = (one.first(value, smaller=self.smaller) for one in self.both)
            better = mine is not None and (theirs is None or mine <= theirs)
        else:
            better = value < other if self.smaller else value > other
        return (self.one, self.other) if better else (self.other, self.one)

    @property
    def saved(self) -> dict[str, int] | None:
        """The epochs that each needed to reach the best value of the search that is behind."""
        ahead, behind = self.ahead
        final = behind.at(self.budgets[-1].epochs)
        if final is None:
            return None
        needed = {one.name: one.first(final.value, smaller=self.smaller) for one in (ahead, behind)}
        return {name: epochs for name, epochs in needed.items() if epochs is not None}

    @property
    def verdict(self) -> str:
        """The result of the comparison, in plain words."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> list[str]:
        """The result of the comparison, sentence by sentence."""
        last = self.budgets[-1]
        ahead, behind = self.ahead
        first, second = ahead.at(last.epochs), behind.at(last.epochs)
        if first is None or second is None:
            without = [one for one in self.both if one.at(last.epochs) is None]
            missing = words.listed([one.name for one in without])
            if any(len(one.courses) > 1 for one in without):
                missing = f"some runs of {missing}"
            nothing = (
                f"The comparison covers the first {words.count(last.epochs, 'epoch')}. Within "
                f"these, {missing} completed no trial, so there is nothing to compare."
            )
            return [nothing]
        unit = self.measure.unit
        reached = (
            f"After {words.count(last.epochs, 'epoch')} each, {ahead.name} has reached "
            f"{self.metric} {words.figure(unit, first.value)} and {behind.name} "
            f"{words.figure(unit, second.value)}"
        )
        said = [f"{reached}{self._certainty(last)}"]
        needed = self.saved or {}
        mine, theirs = needed.get(ahead.name), needed.get(behind.name)
        if mine is not None and theirs is not None and mine < theirs:
            said.append(
                f"{ahead.name} reached {words.figure(unit, second.value)} after {mine:,} epochs, "
                f"{behind.name} after {theirs:,} ({theirs / mine:.1f} times as many)."
            )
        tested = [(one.name, one.tested_at(last.epochs)) for one in (ahead, behind)]
        if all(mean is not None for _, mean in tested):
            figures = words.listed(
                [f"{words.percent(mean.value)} ({name})" for name, mean in tested if mean]
            )
            said.append(f"On test, the trials chosen this way reach {figures}.")
        if not self.same_images:
            said.append(
                "The two used different validation images, so their validation values are not "
                "directly comparable."
            )
        return said

    def _certainty(self, last: AtBudget) -> str:
        if last.difference is None:
            single = words.listed([one.name for one in self.both if len(one.courses) == 1])
            if not single:
                return (
                    ". The runs of each search agree exactly, so the role of chance cannot be "
                    "estimated."
                )
            return (
                f". There is only one run of {single}, so the difference may be due to chance: "
                "launch each search with several values of [search] seed and compare patterns, "
                "such as 'tpe-*' and 'random-*'."
            )
        apart = last.difference
        text = f"difference {words.difference(self.measure.unit, apart)}"
        counts = words.listed([f"{len(one.courses)}" for one in self.both])
        if self.differs:
            return f" ({text}; {counts} runs)."
        return f": no significant difference ({text}; {counts} runs)."


def compare_searches(
    connection: sa.Connection, one: str, other: str, metric: str | None = None
) -> Searches:
    """Compare two searches, each one study or a pattern of studies that repeat it."""
    sides = [_matching(connection, name) for name in (one, other)]
    shared = {results.title for results in sides[0]} & {results.title for results in sides[1]}
    if shared:
        raise UserError(f"{min(shared)} appears on both sides; specify two different searches.")
    every = [results for side in sides for results in side]
    metric = metric or _common_metric(every)
    choosable = _choosable(every)
    if metric not in choosable:
        raise UserError(
            f"Searches are compared by {words.listed(choosable)}, not by {metric!r}."
            f"{meant(metric, choosable)}"
        )
    if len({results.measures[metric] for results in every}) > 1:
        raise UserError(f"{metric} is defined differently in these searches; choose another.")
    found = [
        SearchRuns(name, tuple(course for results in side for course in _courses(results, metric)))
        for name, side in zip((one, other), sides, strict=True)
    ]
    courses = [course for search in found for course in search.courses]
    empty = [one.study for one in courses if one.total == 0 and len(one.best) == 0]
    if empty:
        raise UserError(
            f"No epoch of {empty[0]} has been trained yet; `tuner status {empty[0]}` shows the "
            "progress."
        )
    common = min(search.total for search in found)
    budgets = sorted({max(1, round(share * common)) for share in SHARES})
    return Searches(
        measure=every[0].measures[metric],
        one=found[0],
        other=found[1],
        budgets=tuple(_budget(found[0], found[1], epochs) for epochs in budgets),
        same_images=_same_images(every),
    )


def _matching(connection: sa.Connection, name: str) -> list[Results]:
    if not set(name) & set("*?["):
        return [Results.of(connection, StudyRef.parse(name))]
    # A name without a version means the newest version.
    newest = {study.name: study for study in studies.listing(connection)}
    matching = [study for study in newest.values() if fnmatchcase(study.name, name)]
    if not matching:
        raise UserError(f"No stored study matches {name!r}; `tuner studies` lists them.")
    _check_repeats(name, matching)
    return [Results(connection, study) for study in matching]


def _check_repeats(pattern: str, repeats: Sequence[Study]) -> None:
    """Refuse studies that are not one search under different seeds."""
    seeds: dict[int, str] = {}
    asked: dict[str, Any] = {}
    for study in repeats:
        whole = study.spec.to_json()
        mine = {key: value for key, value in whole.items() if key not in INCIDENTAL}
        mine["search"] = {key: one for key, one in whole["search"].items() if key != "seed"}
        different = [key for key, value in mine.items() if asked and asked[key] != value]
        if different:
            raise UserError(
                f"The studies that match {pattern!r} are not repeats of one search: "
                f"{repeats[0].title} and {study.title} differ in {words.listed(different)}. "
                "Choose a narrower pattern."
            )
        other = seeds.get(study.spec.search.seed)
        if other is not None:
            raise UserError(
                f"{other} and {study.title} have the same [search] seed, so they are not two "
                "independent runs. Choose a narrower pattern."
            )
        asked, seeds[study.spec.search.seed] = mine, study.title


def _choosable(every: Sequence[Results]) -> list[str]:
    """Return the validation figures that all of these studies have."""
    names = [name for name, one in every[0].measures.items() if one.splits == ("val",)]
    return [name for name in names if all(name in results.measures for results in every)]


def _common_metric(every: Sequence[Results]) -> str:
    metrics = {results.spec.search.metric: results.title for results in every}
    if len(metrics) > 1:
        judged = words.listed([f"{title} by {metric}" for metric, title in metrics.items()])
        raise UserError(
            f"These searches are judged by different metrics: {judged}. Name one with --metric: "
            f"{words.listed(_choosable(every))}."
        )
    return next(iter(metrics))


def _courses(results: Results, metric: str) -> list[Course]:
    """Return one course per seed, or one for all if seeds are not repeats of the search."""
    moments = _needed(results)
    rows = results.rows_with(metric)
    replicates = results.spec.replicates
    if replicates.seeds == 1 or replicates.of == "top" or not rows:
        every = sorted(moment for seed in moments.values() for moment in seed)
        return [_course(results, None, rows, every, metric)]
    seeds = sorted({row["seed"] for row in rows})
    by_seed = {seed: [row for row in rows if row["seed"] == seed] for seed in seeds}
    return [
        _course(results, seed, mine, moments.get(seed, []), metric)
        for seed, mine in by_seed.items()
    ]


def _needed(results: Results) -> dict[int, list[datetime]]:
    """Return when the search first had each of its epochs, by seed, in order.

    A reused epoch has the figures of the one that was trained, its seconds included, to the bit:
    it is the same epoch, which is counted where it was trained, or else where it came first.
    """
    alike = (t.epoch.c.epoch, t.epoch.c.train_loss, t.epoch.c.val_loss, t.epoch.c.seconds)
    order = (t.epoch.c.reused, t.epoch.c.recorded, t.epoch.c.trial_id)
    every = (
        sa.select(
            t.trial.c.seed,
            t.epoch.c.recorded,
            t.epoch.c.reused,
            sa.func.row_number().over(partition_by=alike, order_by=order).label("place"),
        )
        .select_from(t.epoch.join(t.trial))
        .where(t.trial.c.study_id == results.study.study_id)
        .subquery()
    )
    query = (
        sa.select(every.c.seed, every.c.recorded)
        .where(~every.c.reused | (every.c.place == 1))
        .order_by(every.c.recorded)
    )
    moments: dict[int, list[datetime]] = {}
    for seed, recorded in results.connection.execute(query):
        moments.setdefault(seed, []).append(recorded)
    return moments


def _course(
    results: Results,
    seed: int | None,
    rows: Sequence[TrialRow],
    needed: Sequence[datetime],
    metric: str,
) -> Course:
    smaller = not results.measures[metric].larger
    column = f"{results.prefix}{metric}"
    own = metric == results.spec.search.metric
    recorded = np.array([moment.timestamp() for moment in needed])
    complete = sorted((row for row in rows if row.complete), key=lambda row: row["ended"])
    epochs: list[float] = []
    values: list[float] = []
    tested: list[float | None] = []
    for row in complete:
        value = row.value if own else row[column]
        if value is None or not math.isfinite(value):
            continue
        if not values or (value < values[-1] if smaller else value > values[-1]):
            spent = np.searchsorted(recorded, row["ended"].timestamp(), side="right")
            epochs.append(float(spent))
            values.append(float(value))
            tested.append(row[f"{results.prefix}test_acc"])
    return Course(
        study=results.title,
        seed=seed,
        epochs=np.array(epochs),
        best=np.array(values),
        total=len(needed),
        tested=tuple(tested),
    )


def _budget(one: SearchRuns, other: SearchRuns, epochs: int) -> AtBudget:
    values = [[course.at(epochs) for course in search.courses] for search in (one, other)]
    known = [[value for value in side if value is not None] for side in values]
    whole = all(len(side) == len(all_of) for side, all_of in zip(known, values, strict=True))
    difference = welch(known[0], known[1]) if whole else None
    tested = one.tested_at(epochs), other.tested_at(epochs)
    return AtBudget(epochs, one.at(epochs), other.at(epochs), difference, tested)


def _mean(values: Sequence[float | None]) -> Mean | None:
    known = [value for value in values if value is not None]
    return mean_over_seeds(known) if len(known) == len(values) else None


def _same_images(every: Sequence[Results]) -> bool:
    """Return whether all trials predicted the same validation images, for each split seed."""
    images: dict[int, set[tuple[object, ...]]] = {}
    for results in every:
        splits = results.spec.replicates.splits
        # One complete trial per split seed: the others have the same images.
        complete = [row for row in results.rows if row.complete]
        for division, number in {row["seed"] % splits: row["trial"] for row in complete}.items():
            predicted = results.predicted(number, "val")
            found = (tuple(predicted.ids), tuple(predicted.labels.tolist()))
            images.setdefault(division, set()).add(found)
    return all(len(different) == 1 for different in images.values())


# Its table


def table(compared: Searches) -> Table:
    """Return the best values after the same numbers of epochs, and their differences."""
    unit = compared.measure.unit
    runs = [
        f"{search.name} ({words.count(len(search.courses), 'run')})" for search in compared.both
    ]
    return Table(
        ("epochs", *runs, "difference"),
        tuple(
            (
                f"{budget.epochs:,}",
                _mean_text(unit, budget.one),
                _mean_text(unit, budget.other),
                "–"
                if budget.difference is None
                else words.with_ends(unit.difference, budget.difference),
            )
            for budget in compared.budgets
        ),
        f"Best {compared.metric} after the same number of epochs, 95% intervals",
    )


def _mean_text(unit: Unit, mean: Mean | None) -> str:
    if mean is None:
        return "–"
    if mean.half_width is None:
        return words.figure(unit, mean.value)
    return words.with_half(unit, mean.value, mean.half_width)
