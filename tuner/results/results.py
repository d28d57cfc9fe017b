"""A stored study, read from one snapshot, each item at most once."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.records import METRICS, Moment, SplitName
from tuner.results.conditions import Condition
from tuner.results.designs import comparable
from tuner.results.measures import MEASURES, Measure, measures_of
from tuner.results.predictions import Predicted, kept_predictions, kept_splits, predicted
from tuner.results.rows import FURTHER, TrialRow, check_columns, epoch_rows, ranked, trial_rows
from tuner.spec.study import Spec
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.ranking import Ranked, Seed, rank_settings
from tuner.store.studies import Study

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class Results:
    """One study with its trials and predictions, each read from the database at most once.

    The connection must be in a snapshot, so that all answers describe the same moment.
    """

    def __init__(self, connection: sa.Connection, study: Study) -> None:
        self.connection, self.study = connection, study
        self.answers: dict[object, Any] = {}
        """Answers computed from these results; see `once`."""

    @classmethod
    def of(cls, connection: sa.Connection, ref: StudyRef) -> "Results":
        """Return the results of the study that `ref` refers to."""
        return cls(connection, studies.find(connection, ref))

    @property
    def title(self) -> str:
        """The study's name in messages."""
        return self.study.title

    @property
    def spec(self) -> Spec:
        """The study's specification, from its file."""
        return self.study.spec

    @property
    def at(self) -> Moment:
        """The epoch at which trials are judged: "best" or "last"."""
        return self.spec.search.at

    @property
    def prefix(self) -> str:
        """The prefix of the columns with the figures at the epoch at which trials are judged."""
        return "" if self.at == "best" else "last_"

    @cached_property
    def rows(self) -> list[TrialRow]:
        """One row for each trial, in the order of their numbers."""
        return (
            self.wide_rows if "wide_rows" in vars(self) else trial_rows(self.connection, self.study)
        )

    @cached_property
    def wide_rows(self) -> list[TrialRow]:
        """The same rows with the further columns, such as AUC, times and late slopes."""
        return trial_rows(self.connection, self.study, further=True)

    def rows_with(self, *columns: str) -> list[TrialRow]:
        """Return one row per trial, with the further columns only if one of these needs them."""
        return self.rows if set(columns).isdisjoint(FURTHER) else self.wide_rows

    def where(self, conditions: Sequence[Condition]) -> list[TrialRow]:
        """Return the rows for which all conditions hold."""
        check_columns(self.study, conditions)
        rows = self.rows_with(*(condition.column for condition in conditions))
        return [
            row
            for row in rows
            if all(condition.holds(row[condition.column]) for condition in conditions)
        ]

    @cached_property
    def complete(self) -> list[TrialRow]:
        """The rows of the complete trials; a UserError if there is none."""
        rows = [row for row in self.rows if row.complete]
        if not rows:
            raise UserError(
                f"No trial of {self.title} is complete yet; `tuner status {self.title}` shows "
                "the progress."
            )
        return rows

    @cached_property
    def ranked(self) -> list[TrialRow]:
        """The rows of the complete trials, best by the study's metric first."""
        return ranked(self.rows, self.spec)

    @cached_property
    def ranked_settings(self) -> list[Ranked]:
        """The settings with a complete seed, best by their mean over seeds first."""
        seeds = [
            Seed(
                row.configuration,
                row["seed"],
                row["trial"],
                row.ended,
                row.value if row.complete else None,
            )
            for row in self.rows
        ]
        return rank_settings(self.spec, seeds)

    @property
    def best(self) -> int:
        """The number of the trial that the study selects.

        It is the best trial by the study's metric or, if settings have several seeds, the
        median seed of the best setting.
        """
        if not self.ranked_settings:
            raise UserError(
                f"No trial of {self.title} is complete yet, and predictions are stored only for "
                f"complete trials; `tuner status {self.title}` shows the progress."
            )
        return self.ranked_settings[0].median.number

    @property
    def tested(self) -> bool:
        """Whether a complete trial was measured on a test set."""
        return any(row.complete and row["test_acc"] is not None for row in self.rows)

    @property
    def metric(self) -> str:
        """The default figure for comparisons: the study's metric, measured on validation images.

        Test images only check the result; they select nothing.
        """
        return self.spec.search.metric

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Every measure by which its settings can be compared, by name."""
        return measures_of(self.spec.metrics) if self.spec.metrics else MEASURES

    @property
    def own(self) -> bool:
        """Whether the study's metric is not a built-in figure."""
        return self.metric not in METRICS

    @property
    def check(self) -> str:
        """The figure on test images shown with the study's metric: accuracy, or the study's own
        metric."""
        return f"test_{self.metric.removeprefix('val_')}" if self.own else "test_acc"

    @cached_property
    def comparable(self) -> list[str]:
        """The factors with few enough levels to be compared one by one."""
        return comparable(self.rows, self.spec)

    def factor(self, by: str | None) -> str | None:
        """Return the named factor, or the first comparable one; None if there is none."""
        if by is None:
            return self.comparable[0] if self.comparable else None
        if by not in self.spec.varied:
            varied = ", ".join(self.spec.varied) or "nothing"
            raise UserError(f"{self.title} does not vary {by!r}; it varies {varied}.")
        return by

    def epochs(self, numbers: Sequence[int] | None = None) -> list[tuple[Any, ...]]:
        """Return one row per recorded epoch, of all trials or of these numbers."""
        return epoch_rows(self.connection, self.study, numbers)

    def kept_splits(self, number: int) -> tuple[str, ...]:
        """Return the splits for which a trial's predictions are stored."""
        return kept_splits(self.connection, self.study, number)

    def usual_split(self, number: int) -> SplitName:
        """Return "test", or "val" for a trial without predictions for a test set."""
        return "val" if self.kept_splits(number) == ("val",) else "test"

    def kept_predictions(self, numbers: Sequence[int]) -> list[tuple[int, SplitName, Moment]]:
        """Return which predictions of these trials are stored, in this order."""
        return kept_predictions(self.connection, self.study, numbers)

    def predicted(
        self, number: int | None = None, split: SplitName | None = None, at: Moment | None = None
    ) -> Predicted:
        """Return a trial's predictions, by default the best trial's for its usual split."""
        if number is None:
            number = self.best if self.ranked_settings else self.complete[0]["trial"]
        split = split or self.usual_split(number)
        return predicted(self.connection, self.study, number, split, at or self.at)


def by_number(rows: Sequence[TrialRow]) -> Mapping[int, TrialRow]:
    """Return rows by trial number."""
    return {row["trial"]: row for row in rows}


def once(
    ask: Callable[Concatenate[Results, Arguments], Returned],
) -> Callable[Concatenate[Results, Arguments], Returned]:
    """Make a function of results compute each answer once, and cache it with the results.

    A report needs the same comparison for its text, its table and its picture.
    """

    @wraps(ask)
    def answer(
        results: Results, /, *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Returned:
        key = (ask, arguments, tuple(sorted(named.items())))
        if key not in results.answers:
            results.answers[key] = ask(results, *arguments, **named)
        value: Returned = results.answers[key]
        return value

    return answer
