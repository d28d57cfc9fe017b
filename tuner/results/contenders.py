"""The contenders of a race: who they are, and their figures over the further seeds."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from tuner.records import METRICS, Value
from tuner.results.designs import Design
from tuner.results.measures import Measure
from tuner.results.rows import FIGURES, TrialRow, trial_rows
from tuner.results.samples import by_trial, has_figure, sample
from tuner.spec.study import Spec
from tuner.statistics.anova import Panel
from tuner.store.ledger.assignments import Existing, race
from tuner.store.ledger.race import Race
from tuner.store.races import read_decisions
from tuner.store.studies import Study


class Evidence:
    """What the trials of contenders show by one measure, over the seeds from 1 on.

    Seed 0 chose the contenders: counting it would count its luck twice.
    """

    def __init__(self, connection: sa.Connection, study: Study, measure: Measure):
        self._connection, self._study, self.measure = connection, study, measure
        further = measure.name not in FIGURES
        self.rows = [
            row for row in trial_rows(connection, study, further=further) if row["seed"] > 0
        ]
        self._by_number = {row["trial"]: row for row in self.rows}
        self._numbers = {(row.configuration, row["seed"]): row["trial"] for row in self.rows}

    def done(self, rounds: int) -> dict[int, frozenset[int]]:
        """Return, by contender, the seeds 1 to this many under which it has the figure."""
        found: dict[int, set[int]] = defaultdict(set)
        for row in self.rows:
            if row["seed"] <= rounds and has_figure(row, self.measure, self._study.spec.search.at):
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
        taken = sample(self._connection, self._study, design, self.measure, self._by_number)
        if taken is None:
            # Predictions that give no figure by image may still have one as a whole.
            at = self._study.spec.search.at
            taken = by_trial(design, self.measure, self._by_number, at)
        return taken.panel if taken is not None and isinstance(taken.panel, Panel) else None

    def units(
        self, contenders: Sequence[int], seeds: Sequence[int]
    ) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Return the numbers of the trials of contenders under seeds, as a design has them."""
        return tuple(tuple((self._numbers[one, seed],) for seed in seeds) for one in contenders)


def read_race(connection: sa.Connection, study: Study, rows: Sequence[TrialRow]) -> Race | None:
    """Return how the race of a study stands; None where there are no contenders yet."""
    spec = study.spec
    if spec.replicates.of != "top":
        return None
    existing = [_existing(row, spec) for row in rows]
    explored = [one for one in existing if one.seed == 0]
    if len(explored) < spec.configurations or any(not one.ended for one in explored):
        return None
    found = race(spec, existing, read_decisions(connection, study.study_id))
    return found if found.contenders else None


def names(rows: Sequence[TrialRow], contenders: Collection[int], spec: Spec) -> dict[int, str]:
    """Return what contenders are called: the values in which they differ."""
    chosen: dict[int, Mapping[str, Value | None]] = {
        row.configuration: {name: row[name] for name in spec.varied}
        for row in rows
        if row.configuration in contenders
    }
    telling = [
        name for name in spec.varied if len({repr(one[name]) for one in chosen.values()}) > 1
    ]
    found = {one: _name(values, telling) for one, values in chosen.items()}
    shared = Counter(found.values())
    return {
        one: f"{name} #{one}".strip() if not name or shared[name] > 1 else name
        for one, name in found.items()
    }


def _name(values: Mapping[str, Value | None], telling: Sequence[str]) -> str:
    # A condition's parameter that is not active here says nothing of this contender.
    known = {name: value for name in telling if (value := values[name]) is not None}
    return " ".join(f"{name}={_short(value)}" for name, value in known.items())


def _short(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _existing(row: TrialRow, spec: Spec) -> Existing:
    sign = 1.0 if METRICS[spec.search.metric] == "minimize" else -1.0
    return Existing(
        row.configuration,
        row["seed"],
        ended=row.ended,
        complete=row.complete,
        value=sign * row.value if row.complete and row.value is not None else None,
    )
