"""A study as it is read for a picture or a report: each answer asked for once, and kept."""

from functools import cached_property

import sqlalchemy as sa

from tuner.answers.compare import Comparison, compare, default_metric
from tuner.answers.contenders import compare_contenders
from tuner.answers.gap import Gap, gap
from tuner.answers.influence import Influence, influence
from tuner.answers.race import Story, tell_race
from tuner.errors import UserError
from tuner.records import SplitName
from tuner.results.designs import comparable
from tuner.results.predictions import Predicted, kept_splits, predicted
from tuner.results.rows import TrialRow, ranked, trial_rows
from tuner.store.studies import Study


class Reading:
    """One study, read from one snapshot, so that all that is said of it fits together."""

    def __init__(self, connection: sa.Connection, study: Study) -> None:
        self.connection, self.study = connection, study
        self._compared: dict[tuple[str, ...], list[Comparison]] = {}

    @cached_property
    def rows(self) -> list[TrialRow]:
        """One row a trial."""
        return trial_rows(self.connection, self.study)

    @cached_property
    def complete(self) -> list[TrialRow]:
        """The trials that ran to their end; never empty."""
        rows = [row for row in self.rows if row.complete]
        if not rows:
            title = self.study.title
            raise UserError(
                f"No trial of {title} is complete yet; `tuner status {title}` says how far it is."
            )
        return rows

    @cached_property
    def leaders(self) -> list[TrialRow]:
        """The complete trials, the best by the study's metric first."""
        return ranked(self.rows, self.study.spec)

    @cached_property
    def factors(self) -> list[str]:
        """What varies in few enough levels to be compared one by one."""
        return comparable(self.rows, self.study.spec)

    @cached_property
    def metric(self) -> str:
        """The figure that settings are compared by where none is named."""
        return default_metric(self.rows)

    @cached_property
    def gap(self) -> Gap:
        """The gap between validation and test accuracy."""
        return gap(self.connection, self.study, self.rows)

    @cached_property
    def influence(self) -> list[Influence]:
        """How much each parameter matters."""
        return influence(self.connection, self.study, rows=self.rows)

    @cached_property
    def race(self) -> Story | None:
        """How the race between contenders went; None where there is none."""
        return tell_race(self.connection, self.study)

    @cached_property
    def contenders(self) -> Comparison | None:
        """The contenders compared with each other, where they have further seeds."""
        if self.race is None or not self.race.spent:
            return None
        return compare_contenders(self.connection, self.study)

    @property
    def tested(self) -> bool:
        """Whether there is a test set that trials were measured on."""
        return any(row["test_acc"] is not None for row in self.rows if row.complete)

    def compared(self, metric: str | None = None, *by: str) -> list[Comparison]:
        """Hold the levels of the named factors, or of all with few levels, against each other."""
        key = (metric or self.metric, *by)
        if key not in self._compared:
            self._compared[key] = compare(
                self.connection, self.study, by=by, metric=key[0], rows=self.rows
            )
        return self._compared[key]

    def factor(self, by: str | None) -> str | None:
        """Return the named factor, or the first that can be compared; None where there is none."""
        if by is None:
            return self.factors[0] if self.factors else None
        if by not in self.study.spec.varied:
            varied = ", ".join(self.study.spec.varied) or "nothing"
            raise UserError(f"{self.study.title} does not vary {by!r}; it varies {varied}.")
        return by

    def predicted(self, trial: int | None, split: SplitName | None) -> Predicted:
        """Return what a trial, or the best one, predicted for a split, test where there is one."""
        number = trial
        if number is None:
            number = self.complete[0]["trial"] if not self.leaders else self.leaders[0]["trial"]
        if split is None:
            kept = kept_splits(self.connection, self.study, number)
            split = "val" if kept == ("val",) else "test"
        at = self.study.spec.search.at
        return predicted(self.connection, self.study, number, split, at)
