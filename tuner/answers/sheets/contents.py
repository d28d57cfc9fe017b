"""The four sheets that can be exported: trials, epochs, predictions, comparisons."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from tuner.answers.compare import Comparison, Row
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import most_probable
from tuner.results import further
from tuner.results.predictions import kept_predictions, predicted
from tuner.results.rows import EPOCH_COLUMNS, epoch_rows, ranked, trial_columns, trial_rows
from tuner.store.studies import Study

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


def trials(
    connection: sa.Connection, study: Study, *, best: int | None = None, wide: bool = False
) -> Sheet:
    """Return one row a trial, all of them or the best."""
    rows = trial_rows(connection, study, further=wide)
    if best is not None:
        rows = ranked(rows, study.spec)[:best]
    columns = (*trial_columns(study.spec), *(further.COLUMNS if wide else ()))
    return Sheet(columns, [[row[column] for column in columns] for row in rows])


def epochs(connection: sa.Connection, study: Study, *, best: int | None = None) -> Sheet:
    """Return one row an epoch, of all trials or of the best."""
    numbers = None if best is None else best_numbers(connection, study, best)
    return Sheet(EPOCH_COLUMNS, epoch_rows(connection, study, numbers))


def best_numbers(connection: sa.Connection, study: Study, best: int | None) -> list[int]:
    """Return the numbers of the best complete trials, or of all that are complete."""
    return [row["trial"] for row in ranked(trial_rows(connection, study), study.spec)[:best]]


def predictions(connection: sa.Connection, study: Study, *, best: int | None = None) -> Sheet:
    """Return one row for each image that a trial predicted, with every class's probability."""
    numbers = best_numbers(connection, study, best)
    if not numbers:
        raise UserError(
            f"No trial of {study.title} is complete yet, and predictions are kept when a trial "
            f"completes; `tuner status {study.title}` says how far it is."
        )
    kept = kept_predictions(connection, study, numbers)
    classes = predicted(connection, study, *kept[0]).classes
    columns = (*PREDICTION_COLUMNS, *(f"p_{name}" for name in classes))
    return Sheet(columns, _predicted(connection, study, kept, classes))


def _predicted(
    connection: sa.Connection,
    study: Study,
    kept: Sequence[tuple[int, Any, Any]],
    classes: tuple[str, ...],
) -> Iterator[list[Any]]:
    for number, split, at in kept:
        found = predicted(connection, study, number, split, at)
        if found.classes != classes:
            raise UserError(
                f"Trial {number} of {study.title} has other classes ({', '.join(found.classes)}) "
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
