"""The contenders of a race against each other, as the settings of a factor are compared."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from tuner.answers.compare import (
    Asked,
    Comparison,
    judge,
    measure_named,
)
from tuner.answers.race import left_at, tell_race
from tuner.errors import UserError
from tuner.results import designs
from tuner.results.designs import Design, Level
from tuner.results.race import Evidence, names, read_race
from tuner.results.results import Results, once
from tuner.results.rows import TrialRow
from tuner.results.samples import has_figure, sample
from tuner.store.ledger.race import Race

USUAL = Asked()
STOPPED_BY_LOOKING = (
    "The race looked at validation figures as they came and went by them; "
    "the intervals do not allow for that."
)


@once
def compare_contenders(
    results: Results, *, metric: str | None = None, asked: Asked = USUAL
) -> Comparison:
    """Compare those who are left in the race, over the seeds from 1 on.

    Where one is left, those who were in it at its last look are compared, over
    the seeds until then.
    """
    race = read_race(results)
    if race is None or not race.spent:
        raise UserError(_no_contenders(results))
    measure = measure_named(metric or results.metric)
    design = _design(results, Evidence(results, measure), race)
    return judge(results.spec, design, measure, sample(results, design, measure), asked)


def contenders(results: Results) -> Comparison | None:
    """Compare the contenders by the usual metric, where a race has given them further seeds."""
    story = tell_race(results)
    return None if story is None or not story.spent else compare_contenders(results)


def _design(results: Results, evidence: Evidence, race: Race) -> Design:
    called = names(results, race.contenders)
    mine: dict[int, list[TrialRow]] = defaultdict(list)
    for row in evidence.rows:
        mine[row.configuration].append(row)
    usable = {
        row["trial"] for row in evidence.rows if has_figure(row, evidence.measure, results.at)
    }
    standings = tuple(designs.standing(called[one], mine[one], usable) for one in race.contenders)
    done = evidence.done(max(row["seed"] for row in evidence.rows))
    compared, seeds = _compared(race, done)
    used = len(compared) * len(seeds)
    asides: dict[Level, str] = {
        called[one]: text for one, text in left_at(race, called, results.spec).items()
    }
    return Design(
        factor="contender",
        standings=standings,
        levels=tuple(called[one] for one in compared),
        paired=True,
        units=evidence.units(compared, seeds),
        left_out=sum(len(done[one]) for one in compared) - used,
        asides=asides,
        notes=(STOPPED_BY_LOOKING,) if race.decided else (),
    )


def _compared(race: Race, done: Mapping[int, frozenset[int]]) -> tuple[list[int], list[int]]:
    """Return who is compared, and over which seeds."""
    field: Sequence[int] = race.racing
    if len(field) < 2 and race.decided:
        field = race.decided[-1].look.racing
    able = [one for one in field if done.get(one)]
    every = sorted({seed for one in able for seed in done[one]})
    places = [{one: [seed] for one in able if seed in done[one]} for seed in every]
    kept = [one for one in able if one in designs.kept(able, places)]
    return kept, [seed for seed in every if all(seed in done[one] for one in kept)]


def _no_contenders(results: Results) -> str:
    if results.spec.replicates.of != "top":
        return (
            f'{results.title} has no contenders: its [replicates] has no of = "top". '
            f"`tuner compare {results.title}` compares by what varies."
        )
    return (
        f"The contenders of {results.title} have no further seeds yet; "
        f"`tuner status {results.title}` says how far it is."
    )
