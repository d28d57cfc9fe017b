"""The sheets that can be exported: trials, settings, epochs, predictions, comparisons."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np

from tuner.answers.compare import Comparison, Row
from tuner.answers.settings import Setting
from tuner.answers.settings import settings as ranked_settings
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import most_probable
from tuner.results import (
    FURTHER,
    Condition,
    Measure,
    Results,
    TrialRow,
    by_number,
    chosen,
    epoch_columns,
    ranked,
    shown,
    trial_columns,
    trial_rows,
)
from tuner.statistics import Interval

__all__ = [
    "PREDICTION_COLUMNS",
    "BestOf",
    "Sheet",
    "chosen_trials",
    "comparisons",
    "epochs",
    "predictions",
    "readable_comparisons",
    "readable_settings",
    "readable_trials",
    "settings",
    "trials",
]

PREDICTION_COLUMNS = (
    "trial",
    "split",
    "at",
    "epoch",
    "id",
    "patient",
    "label",
    "predicted",
    "right",
)
BATCH = 500
"""Trials per batch when PostgreSQL selects them."""
COMPARISON_COLUMNS = (
    "factor",
    "metric",
    "level",
    "trials",
    "complete",
    "pruned",
    "diverged",
    "failed",
    "n",
    "images",
    "patients",
    "mean",
    "mean_low",
    "mean_high",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "verdict",
)


@dataclass(frozen=True)
class Sheet:
    """Rows under columns; the rows can be iterated once."""

    columns: tuple[str, ...]
    rows: Iterable[Sequence[Any]]

    def only(self, columns: Sequence[str]) -> "Sheet":
        """Return the sheet with only these columns, in this order."""
        places = [self.place(name) for name in columns]
        return Sheet(tuple(columns), [[row[place] for place in places] for row in self.rows])

    def place(self, column: str) -> int:
        """Return the position of a column."""
        if column not in self.columns:
            raise UserError(
                f"There is no column {column!r} in this sheet.{meant(column, self.columns)} "
                f"It has {', '.join(self.columns)}; docs/columns.md explains each."
            )
        return self.columns.index(column)

    def first(self, count: int | None, of: Sequence[str] = ()) -> "Sheet":
        """Return only the first rows or, with `of`, all rows of the first groups.

        A group is the rows with the same values in these columns.
        """
        if count is None:
            return self
        if not of:
            return Sheet(self.columns, list(self.rows)[:count])
        places = [self.place(name) for name in of]
        groups: dict[tuple[Any, ...], list[Sequence[Any]]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[place] for place in places), []).append(row)
        return Sheet(self.columns, [row for rows in list(groups.values())[:count] for row in rows])

    def where(self, conditions: Sequence[Condition]) -> "Sheet":
        """Return only the rows for which all conditions hold."""
        if not conditions:
            return self
        places = [(self.place(condition.column), condition) for condition in conditions]
        rows = (row for row in self.rows if all(one.holds(row[at]) for at, one in places))
        return Sheet(self.columns, list(rows) if isinstance(self.rows, list) else rows)

    def sorted(self, by: str | None) -> "Sheet":
        """Return the rows sorted by a column, from the largest if `by` begins with a hyphen.

        Numbers come before texts; rows without a value come last in both directions.
        """
        if by is None:
            return self
        at = self.place(by.removeprefix("-"))
        rows = list(self.rows)
        filled = [row for row in rows if not _is_empty(row[at])]
        empty = [row for row in rows if _is_empty(row[at])]
        # Stable in both directions: rows with equal values keep their order.
        filled.sort(key=lambda row: _order(row[at]), reverse=by.startswith("-"))
        return Sheet(self.columns, [*filled, *empty])


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _order(cell: Any) -> tuple[int, float, str]:
    if isinstance(cell, datetime):
        return 0, cell.timestamp(), ""
    return (0, float(cell), "") if isinstance(cell, int | float) else (1, 0.0, str(cell))


@dataclass(frozen=True)
class MeanCell:
    """A mean with half the width of its 95% interval, shown as 0.912 ± 0.013."""

    value: float
    half: float | None
    """None with a single seed."""


BestOf = Literal["trials", "settings"]
"""What is ranked: single trials, or settings, whose trials are then listed by seed."""


def trials(results: Results, *, best_first: BestOf | None = None, wide: bool = False) -> Sheet:
    """Return one row per trial, or per complete trial with the best first."""
    rows = results.wide_rows if wide else results.rows
    if best_first == "trials":
        rows = ranked(rows, results.spec)
    elif best_first == "settings":
        by_number = {row["trial"]: row for row in rows}
        best = best_trials(results, len(results.ranked_settings), "settings")
        rows = [by_number[number] for number in best]
    columns = (*trial_columns(results.spec), *(FURTHER if wide else ()))
    return Sheet(columns, [[row[column] for column in columns] for row in rows])


def chosen_trials(
    results: Results,
    conditions: Sequence[Condition] = (),
    *,
    sort: str = "trial",
    columns: Sequence[str] = (),
) -> Sheet:
    """Return the trials for which all conditions hold, sorted, with all or only these columns.

    They are selected now, and read in batches while the sheet is iterated, so that a study of
    100,000 trials is never in memory at once.
    """
    every = Sheet((*trial_columns(results.spec), *FURTHER), ())
    names = every.only(columns).columns if columns else every.columns
    numbers = chosen(results.connection, results.study, conditions, sort=sort)
    return Sheet(names, _read(results, numbers, names))


def _read(results: Results, numbers: Sequence[int], columns: Sequence[str]) -> Iterator[list[Any]]:
    further = not set(columns).isdisjoint(FURTHER)
    for begin in range(0, len(numbers), BATCH):
        batch = numbers[begin : begin + BATCH]
        found = trial_rows(results.connection, results.study, batch, further=further)
        rows = by_number(found)
        for number in batch:
            yield [rows[number][column] for column in columns]


def best_trials(results: Results, count: int, of: BestOf) -> list[int]:
    """Return the numbers of the best complete trials, or of the best settings' trials by seed."""
    if of == "trials":
        return [row["trial"] for row in results.ranked[:count]]
    members: dict[int, list[TrialRow]] = defaultdict(list)
    for row in results.ranked:
        members[row.configuration].append(row)
    return [
        row["trial"]
        for setting in results.ranked_settings[:count]
        for row in sorted(members[setting.configuration], key=lambda row: row["seed"])
    ]


def settings(results: Results) -> Sheet:
    """Return one row per setting over its seeds, best first."""
    figures = _setting_figures(results)
    columns = (
        *("rank", *results.spec.varied),
        *(f"{name}{end}" for name in figures for end in ("", "_low", "_high")),
        *("n", "trials", "complete", "pruned", "diverged", "failed", "median_trial"),
    )
    return Sheet(columns, [_setting(setting, figures) for setting in ranked_settings(results)])


def _setting_figures(results: Results) -> tuple[str, ...]:
    return tuple(dict.fromkeys((results.metric, *shown(results.spec))))


def _setting(setting: Setting, figures: Sequence[str]) -> list[Any]:
    means = [setting.means[name] for name in figures]
    return [
        *(setting.rank, *setting.values.values()),
        *(
            end
            for mean in means
            for end in ((None,) * 3 if mean is None else (mean.value, mean.low, mean.high))
        ),
        *(len(setting.seeds), setting.trials, setting.complete),
        *(setting.pruned, setting.diverged, setting.failed),
        None if setting.median is None else setting.median["trial"],
    ]


def readable_settings(results: Results, sheet: Sheet) -> Sheet:
    """Return a sheet of settings as `tuner table` shows it: means ± half their interval."""
    figures = _setting_figures(results)
    rows = []
    for row in sheet.rows:
        cells = dict(zip(sheet.columns, row, strict=True))
        for name in figures:
            if (mean := cells[name]) is not None:
                high = cells[f"{name}_high"]
                cells[name] = MeanCell(mean, None if high is None else high - mean)
        rows.append(cells)
    varied = results.spec.varied
    return _filled([*varied, *figures, "n"], varied, rows)


def readable_trials(results: Results, sheet: Sheet) -> Sheet:
    """Return a sheet of trials as `tuner table` shows it: a few columns, without empty ones."""
    figures = [results.prefix + name for name in _setting_figures(results)]
    columns = ["trial", *results.spec.varied, "seed", *figures, "seconds"]
    rows = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
    return _filled(columns, ("trial", *results.spec.varied), rows)


def readable_comparisons(sheet: Sheet, measure: Measure) -> Sheet:
    """Return a sheet of comparisons as `tuner compare` shows it: without the counts, and with the
    verdict better or worse for different.
    """
    difference, verdict = map(sheet.columns.index, ("difference", "verdict"))
    rows = []
    for row in sheet.rows:
        cells = list(row)
        if cells[verdict] == "different":
            cells[verdict] = "better" if (cells[difference] > 0) == measure.larger else "worse"
        rows.append(cells)
    counts = ("trials", "complete", "pruned", "diverged", "failed", "images", "patients")
    kept = [name for name in sheet.columns if name not in counts]
    return Sheet(sheet.columns, rows).only(kept)


def _filled(
    columns: Sequence[str], always: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Sheet:
    kept = [
        name for name in columns if name in always or any(row[name] is not None for row in rows)
    ]
    return Sheet(tuple(kept), [[row[name] for name in kept] for row in rows])


def epochs(results: Results, *, best: int | None = None, of: BestOf = "trials") -> Sheet:
    """Return one row per epoch, of all trials or of the best."""
    numbers = None if best is None else best_trials(results, best, of)
    return Sheet(epoch_columns(results.spec), results.epochs(numbers))


def predictions(results: Results, *, best: int | None = None, of: BestOf = "trials") -> Sheet:
    """Return one row per image predicted by a trial, with every class's probability."""
    assert results.best is not None, "raises a UserError if no trial is complete"
    numbers = [row["trial"] for row in results.ranked]
    kept = results.kept_predictions(numbers if best is None else best_trials(results, best, of))
    classes = results.predicted(*kept[0]).classes
    columns = (*PREDICTION_COLUMNS, *(f"p_{name}" for name in classes))
    return Sheet(columns, _predicted(results, kept, classes))


def _predicted(
    results: Results, kept: Sequence[tuple[int, Any, Any]], classes: tuple[str, ...]
) -> Iterator[list[Any]]:
    for number, split, at in kept:
        found = results.predicted(number, split, at)
        if found.classes != classes:
            raise UserError(
                f"Trial {number} of {results.title} has other classes ({', '.join(found.classes)}) "
                f"than the first ({', '.join(classes)}); their predictions fit in no one table."
            )
        logs = found.log_probabilities
        taken = most_probable(logs)
        shares = np.exp(logs.astype(np.float64))
        patients = found.patients or (None,) * len(found.ids)
        of_image = zip(found.ids, patients, found.labels, taken, shares, strict=True)
        for name, patient, label, top, row in of_image:
            truth, guess = classes[label], classes[top]
            known = not np.isnan(row).any()
            yield [
                *(number, split, at, found.epoch, name, patient, truth),
                *(guess if known else None, known and bool(truth == guess)),
                *(float(share) for share in row),
            ]


def comparisons(compared: Sequence[Comparison]) -> Sheet:
    """Return one row per level of every compared factor."""
    return Sheet(
        COMPARISON_COLUMNS,
        [_compared(comparison, row) for comparison in compared for row in comparison.rows],
    )


def _compared(comparison: Comparison, row: Row) -> list[Any]:
    standing, mean, against = row.standing, row.mean, row.against
    apart = against.difference if against is not None else None
    return [
        *(comparison.factor, comparison.measure.name, standing.level),
        *(standing.trials, standing.complete),
        *(standing.pruned, standing.diverged, standing.failed),
        *(row.n, comparison.images, comparison.patients),
        *_with_limits(mean),
        comparison.reference,
        *_with_limits(apart),
        against.p_value
        if against is not None and comparison.seeds > 1 and not comparison.too_few
        else None,
        _verdict(comparison, row),
    ]


def _with_limits(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    if interval is None:
        return None, None, None
    if not interval.bounded:
        return interval.value, None, None
    return interval.value, interval.low, interval.high


def _verdict(comparison: Comparison, row: Row) -> str:
    if row.mean is None:
        return "not compared"
    if row.against is None:
        return "reference" if comparison.named else "best"
    if comparison.seeds < 2:
        return "one seed"
    if comparison.too_few:
        return "too few patients"
    return "different" if row.against.differs else "tied"
