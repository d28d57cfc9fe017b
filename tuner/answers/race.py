"""How a race went, in plain words: who left on what evidence, who is left, what was saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.answers import words
from tuner.results.measures import MEASURES, Measure
from tuner.results.race import names, read_race
from tuner.results.results import Results, once
from tuner.results.rows import TrialRow
from tuner.spec.study import Spec
from tuner.statistics.clusters import FEWEST
from tuner.statistics.variance import Interval
from tuner.store.ledger.race import Decided, Race

End = Literal["one left", "images", "budget"]


@dataclass(frozen=True)
class Runner:
    """One contender, and how far it came."""

    configuration: int
    name: str
    """The values in which it differs from the others."""
    seeds: int
    """Further seeds under which it completed."""
    missing: int
    """Further seeds under which it was pruned, diverged or failed."""
    dropped_after: int | None
    """The last seed that was looked at when it was dropped; None while it is in the race."""
    difference: Interval | None
    """How far it was from the best at the last look at it, with the interval decided by."""
    against: str | None
    """Who was the best then; None for the best itself."""


@dataclass(frozen=True)
class Story:
    """A race, for people and programs."""

    runners: tuple[Runner, ...]
    metric: str
    room: int
    """Trials that there were for further seeds."""
    spent: int
    looks: int
    """How often the contenders were compared with each other."""
    end: End | None
    """Why no further seed is given; None while the race runs."""
    sentences: tuple[str, ...]

    @property
    def saved(self) -> int:
        """How many trials were not needed."""
        return self.room - self.spent if self.end in ("one left", "images") else 0


@once
def tell_race(results: Results) -> Story | None:
    """Tell the state of a study's race; None where there is none."""
    spec = results.spec
    # Asked first, since it costs nothing: most studies have no contenders.
    if spec.replicates.of != "top":
        return None
    race = read_race(results)
    if race is None or len(race.contenders) < 2:
        return None
    rows, called = results.rows, names(results, race.contenders)
    runners = tuple(_runner(one, race, rows, called) for one in race.contenders)
    story = Story(
        runners=runners,
        metric=spec.search.metric,
        room=race.room,
        spent=race.spent,
        looks=len(race.decided),
        end=_end(race, rows),
        sentences=(),
    )
    said = _sentences(story, race, called, spec)
    return Story(**{**vars(story), "sentences": said})


def left_at(race: Race, called: Mapping[int, str], spec: Spec) -> dict[int, str]:
    """Say of each contender that was dropped when and on what evidence."""
    measure = MEASURES[spec.search.metric]
    return {one: _left(past, one, called, measure) for past in race.decided for one in past.dropped}


def _left(past: Decided, contender: int, called: Mapping[int, str], measure: Measure) -> str:
    best, apart = past.seen["best"], _difference(past, contender)
    assert apart is not None, "who was dropped was judged"
    # One side at the look's level: as an interval it leaves that much on either side.
    kind = f"{100 * (1 - 2 * past.look.level):.4g} % interval "
    return (
        f"{called[contender]} left the race after {past.look.rounds} further seeds: worse than "
        f"{called[best]} by {words.amount(measure, apart, kind)}."
    )


def _difference(past: Decided, contender: int) -> Interval | None:
    held = _held(past, contender)
    found = None if held is None else held["difference"]
    return None if found is None else Interval(found["value"], found["low"], found["high"])


def _held(past: Decided, contender: int) -> dict[str, Any] | None:
    return next((one for one in past.seen["held"] if one["configuration"] == contender), None)


def _runner(
    contender: int, race: Race, rows: Sequence[TrialRow], called: Mapping[int, str]
) -> Runner:
    mine = [row for row in rows if row.configuration == contender and row["seed"] > 0]
    decideds = [past for past in race.decided if contender in past.look.racing]
    last = decideds[-1] if decideds else None
    best = None if last is None else last.seen["best"]
    return Runner(
        configuration=contender,
        name=called[contender],
        seeds=sum(row.complete for row in mine),
        missing=sum(row.lost for row in mine),
        dropped_after=last.look.rounds if last is not None and contender in last.dropped else None,
        difference=None if last is None else _difference(last, contender),
        against=None if best is None or best == contender else called[best],
    )


def _end(race: Race, rows: Sequence[TrialRow]) -> End | None:
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


def _sentences(story: Story, race: Race, called: Mapping[int, str], spec: Spec) -> tuple[str, ...]:
    many = words.count(len(story.runners), "contender")
    looks = words.count(story.looks, "look") if story.looks else "no look yet"
    said = [f"Race of {many} over further seeds, by {story.metric}: {looks}."]
    said += left_at(race, called, spec).values()
    said += [
        f"{runner.name} has {words.count(runner.missing, 'trial')} that were pruned, diverged or "
        "failed; their pairs are left out."
        for runner in story.runners
        if runner.missing
    ]
    patients = race.decided[-1].seen.get("patients", 0) if race.decided else 0
    over = words.sampling_unit(patients)
    if race.decided and 0 < patients < FEWEST:
        few = f"{words.count(patients, 'patient')} of validation are too few to drop anybody by."
        said.append(few)
    return (*said, _ended(story, [called[one] for one in race.racing], over))


def _ended(story: Story, left: Sequence[str], over: str) -> str:
    saved = f"{story.saved} of {words.count(story.room, 'trial')} were saved"
    listed = words.listed(left)
    if story.end == "one left":
        return f"{listed} is left; {saved}."
    if story.end == "images":
        return (
            f"{listed} are left: more {over}, not more seeds, would tell them apart, "
            f"so the race ended; {saved}."
        )
    if story.end == "budget":
        spent = f"{story.spent} of {words.count(story.room, 'trial')} for further seeds are spent"
        return f"{listed} are left: not separated when the budget ended; {spent}."
    return f"{listed} are in the race; {story.spent} of {story.room} further trials are given out."
