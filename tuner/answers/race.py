"""The race between the best settings: its course in words, and the comparison of its contenders."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tuner.answers import words
from tuner.answers.compare import Comparison, Options, judge, measure_named
from tuner.errors import UserError
from tuner.results import (
    Design,
    Evidence,
    Level,
    Measure,
    Results,
    TrialRow,
    common_levels,
    contender_names,
    has_figure,
    once,
    read_race,
    sample,
    standing_of,
)
from tuner.statistics import FEWEST, Interval
from tuner.store.ledger.looks import Decided, Race

__all__ = ["compare_contenders", "contenders", "race_story"]

USUAL = Options()
STOPPED_BY_LOOKING = (
    "The race eliminated settings based on interim validation results; "
    "these intervals do not account for that."
)

NAMED_MOST = 3
"""More contenders than this are counted instead of named."""

RaceEnd = Literal["one left", "images", "budget"]


# The course of a race


@dataclass(frozen=True)
class RacedContender:
    """One contender and its course in the race."""

    configuration: int
    name: str
    """The values in which it differs from the other contenders."""
    seeds: int
    """Further seeds under which it completed."""
    missing: int
    """Further seeds under which it was pruned, diverged or failed."""
    dropped_after: int | None
    """The last seed of the look that eliminated it; None while it is in the race."""
    difference: Interval | None
    """Its difference from the best at its last look, with the interval that decided."""
    against: str | None
    """The best contender at that look; None if it was this one."""


@dataclass(frozen=True)
class Story:
    """The course of a race, for people and programs."""

    runners: tuple[RacedContender, ...]
    metric: str
    room: int
    """Trials available for further seeds."""
    spent: int
    looks: int
    """How often the contenders were compared with each other."""
    end: RaceEnd | None
    """Why the race ended; None while it runs."""
    sentences: tuple[str, ...]

    JSON: ClassVar = (
        "runners",
        "metric",
        "room",
        "spent",
        "looks",
        "end",
        "sentences",
        "saved",
    )

    @property
    def saved(self) -> int:
        """How many of these trials were not needed."""
        return self.room - self.spent if self.end in ("one left", "images") else 0


@once
def race_story(results: Results) -> Story | None:
    """Return the course of a study's race; None if there is none."""
    spec = results.spec
    # Checked first because it costs nothing: most studies have no contenders.
    if spec.replicates.of != "top":
        return None
    race = read_race(results)
    if race is None or len(race.contenders) < 2:
        return None
    rows, called = results.rows, contender_names(results, race.contenders)
    runners = tuple(_runner(contender, race, rows, called) for contender in race.contenders)
    story = Story(
        runners=runners,
        metric=spec.search.metric,
        room=race.room,
        spent=race.spent,
        looks=len(race.decided),
        end=_end(race, rows),
        sentences=(),
    )
    said = _sentences(results, story, race, called)
    return Story(**{**vars(story), "sentences": said})


def elimination_sentences(
    results: Results, race: Race, called: Mapping[int, str]
) -> dict[int, str]:
    """Say when and on which evidence each eliminated contender was eliminated."""
    measure = results.measures[results.metric]
    return {one: _left(past, one, called, measure) for past in race.decided for one in past.dropped}


def _left(past: Decided, contender: int, called: Mapping[int, str], measure: Measure) -> str:
    best, apart = past.seen["best"], _difference(past, contender)
    assert apart is not None, "an eliminated contender was compared"
    # The test is one-sided at the look's level; the two-sided interval has twice that error rate.
    kind = f"{100 * (1 - 2 * past.look.level):.4g}% interval "
    return (
        f"{called[contender]} was eliminated after {past.look.rounds} additional seeds: worse than "
        f"{called[best]} by {words.amount(measure.unit, apart, kind)}."
    )


def _difference(past: Decided, contender: int) -> Interval | None:
    held = next((one for one in past.seen["held"] if one["configuration"] == contender), None)
    found = None if held is None else held["difference"]
    return None if found is None else Interval(found["value"], found["low"], found["high"])


def _runner(
    contender: int, race: Race, rows: Sequence[TrialRow], called: Mapping[int, str]
) -> RacedContender:
    mine = [row for row in rows if row.configuration == contender and row["seed"] > 0]
    decideds = [past for past in race.decided if contender in past.look.racing]
    last = decideds[-1] if decideds else None
    best = None if last is None else last.seen["best"]
    return RacedContender(
        configuration=contender,
        name=called[contender],
        seeds=sum(row.complete for row in mine),
        missing=sum(row.lost for row in mine),
        dropped_after=last.look.rounds if last is not None and contender in last.dropped else None,
        difference=None if last is None else _difference(last, contender),
        against=None if best is None or best == contender else called[best],
    )


def _end(race: Race, rows: Sequence[TrialRow]) -> RaceEnd | None:
    if race.won:
        return "one left"
    if race.stuck:
        return "images"
    whole = all(
        seed in race.seeds.get(one, ())
        for one in race.racing
        for seed in range(1, race.affordable + 1)
    )
    running = not all(row.ended for row in rows)
    return "budget" if whole and not running and race.look() is None else None


def _sentences(
    results: Results, story: Story, race: Race, called: Mapping[int, str]
) -> tuple[str, ...]:
    many = words.count(len(story.runners), "contender")
    looks = f"{words.count(story.looks, 'comparison') if story.looks else 'no comparison'} made"
    sofar = "" if story.end else " so far" if story.looks else " yet"
    said = [f"Race of {many} over additional seeds, by {story.metric}: {looks}{sofar}."]
    said += elimination_sentences(results, race, called).values()
    said += [
        f"{runner.name} has {words.count(runner.missing, 'pruned, diverged or failed trial')}; "
        "their pairs are left out."
        for runner in story.runners
        if runner.missing
    ]
    patients = race.decided[-1].seen.get("patients", 0) if race.decided else 0
    over = words.sampling_unit(patients)
    if race.decided and 0 < patients < FEWEST:
        few = f"{words.count(patients, 'validation patient')} are too few to eliminate a contender."
        said.append(few)
    return (*said, _ended(story, [called[one] for one in race.racing], over))


def _ended(story: Story, left: Sequence[str], over: str) -> str:
    verb = "was" if story.saved == 1 else "were"
    saved = f"{story.saved} of {words.count(story.room, 'trial')} {verb} not needed"
    if story.end == "one left":
        return f"{words.listed(left)} won the race; {saved}."
    # Many long names would hide the sentence; `tuner compare --contenders` lists them.
    many = f"{len(left)} contenders"
    listed = words.listed(left) if len(left) <= NAMED_MOST else many
    if len(left) == len(story.runners):
        listed = f"No contender was eliminated: all {len(left)}"
    if story.end == "images":
        return (
            f"{listed} remain. Only more {over}, not more seeds, could separate them, "
            f"so the race ended; {saved}."
        )
    if story.end == "budget":
        spent = (
            f"{story.spent} of {words.count(story.room, 'trial')} for additional seeds were used"
        )
        return f"{listed} were still tied when the budget ran out; {spent}."
    spent = f"{story.spent} of {story.room} additional trials have been assigned"
    return f"{many} are in the race; {spent}."


# The contenders compared


@once
def compare_contenders(
    results: Results, *, metric: str | None = None, options: Options = USUAL
) -> Comparison:
    """Compare the remaining contenders over the seeds from 1 on.

    If only one is left, the contenders of its last look are compared over
    the seeds until then.
    """
    race = read_race(results)
    if race is None or not race.spent:
        raise UserError(_no_contenders(results))
    measure = measure_named(results, metric or results.metric)
    design = _design(results, Evidence(results, measure), race)
    return judge(results.spec, design, measure, sample(results, design, measure), options)


def contenders(results: Results) -> Comparison | None:
    """Compare the contenders by the default metric if a race has given them further seeds."""
    story = race_story(results)
    return None if story is None or not story.spent else compare_contenders(results)


def _design(results: Results, evidence: Evidence, race: Race) -> Design:
    called = contender_names(results, race.contenders)
    mine: dict[int, list[TrialRow]] = defaultdict(list)
    for row in evidence.rows:
        mine[row.configuration].append(row)
    usable = {
        row["trial"] for row in evidence.rows if has_figure(row, evidence.measure, results.at)
    }
    standings = tuple(
        standing_of(called[contender], mine[contender], usable) for contender in race.contenders
    )
    done = evidence.done(max(row["seed"] for row in evidence.rows))
    compared, seeds = _compared(race, done)
    used = len(compared) * len(seeds)
    reasons: dict[Level, str] = {
        called[one]: text for one, text in elimination_sentences(results, race, called).items()
    }
    return Design(
        factor="contender",
        standings=standings,
        levels=tuple(called[one] for one in compared),
        paired=True,
        units=evidence.units(compared, seeds),
        left_out=sum(len(done[one]) for one in compared) - used,
        reasons=reasons,
        notes=(STOPPED_BY_LOOKING,) if any(past.dropped for past in race.decided) else (),
    )


def _compared(race: Race, done: Mapping[int, frozenset[int]]) -> tuple[list[int], list[int]]:
    """Return the compared contenders and the seeds."""
    field: Sequence[int] = race.racing
    if len(field) < 2 and race.decided:
        field = race.decided[-1].look.racing
    able = [one for one in field if done.get(one)]
    every = sorted({seed for one in able for seed in done[one]})
    places = [{one: [seed] for one in able if seed in done[one]} for seed in every]
    chosen = common_levels(able, places)
    kept = [one for one in able if one in chosen]
    return kept, [seed for seed in every if all(seed in done[one] for one in kept)]


def _no_contenders(results: Results) -> str:
    if results.spec.replicates.of != "top":
        return (
            f'{results.title} has no contenders: its study file does not set of = "top" in '
            f"[replicates]. `tuner compare {results.title}` compares its settings and factors."
        )
    return (
        f"The contenders of {results.title} have no additional seeds yet;  "
        f"`tuner status {results.title}` shows the progress."
    )
