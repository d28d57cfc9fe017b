"""The four sheets that can be exported: trials, epochs, predictions, comparisons."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.answers.compare import Comparison, Row
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import most_probable
from tuner.results import further
from tuner.results.results import Results
from tuner.results.rows import EPOCH_COLUMNS, ranked, trial_columns

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
    """Rows under columns; the rows may be walked once."""

    columns: tuple[str, ...]
    rows: Iterable[Sequence[Any]]

    def only(self, columns: Sequence[str]) -> "Sheet":
        """Return the sheet with these columns alone, in their order."""
        for name in columns:
            if name not in self.columns:
                raise UserError(
                    f"There is no column {name!r} in this sheet.{meant(name, self.columns)} "
                    "docs/columns.md lists them all."
                )
        places = [self.columns.index(name) for name in columns]
        return Sheet(tuple(columns), [[row[place] for place in places] for row in self.rows])


def trials(results: Results, *, best: int | None = None, wide: bool = False) -> Sheet:
    """Return one row for each trial, all of them or the best."""
    rows = results.wide_rows if wide else results.rows
    if best is not None:
        rows = ranked(rows, results.spec)[:best]
    columns = (*trial_columns(results.spec), *(further.COLUMNS if wide else ()))
    return Sheet(columns, [[row[column] for column in columns] for row in rows])


def epochs(results: Results, *, best: int | None = None) -> Sheet:
    """Return one row for each epoch, of all trials or of the best."""
    numbers = None if best is None else [row["trial"] for row in results.ranked[:best]]
    return Sheet(EPOCH_COLUMNS, results.epochs(numbers))


def predictions(results: Results, *, best: int | None = None) -> Sheet:
    """Return one row for each image that a trial predicted, with every class's probability."""
    assert results.best is not None, "it says so where no trial is complete"
    kept = results.kept_predictions([row["trial"] for row in results.ranked[:best]])
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
    """Return one row a level of every factor that was compared."""
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
        *((mean.value, mean.low, mean.high) if mean is not None else (None,) * 3),
        comparison.reference,
        *((apart.value, apart.low, apart.high) if apart is not None else (None,) * 3),
        against.p_value
        if against is not None and comparison.seeds > 1 and not comparison.too_few
        else None,
        _verdict(comparison, row),
    ]


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
