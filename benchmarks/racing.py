"""How often a race drops the truly best contender, and how much it saves, in simulated races.

Part of `make calibration`. A race is run as workers run it: rounds, looks, the room that the
study's file gives, and the same statistics over the same kind of panel as a comparison's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.marking import Line, gathered, percent
from benchmarks.worlds import PATIENTS, WILD, WORLDS, Shape, draw
from tuner.results import decide
from tuner.statistics.anova import Panel
from tuner.store.ledger.looks import Decided, Look, Race

SIZES = ((2, 10), (3, 10), (4, 6), (4, 10), (5, 10), (5, 20), (6, 10), (8, 10), (8, 20))
"""Contenders, and the seeds of the study's file."""
BEHIND = (0.0, 0.02, 0.05, 0.10)
"""By how much all contenders but the best are worse."""
LONGEST = 40
"""Rounds that are drawn; a longer race ends there, and has saved nothing."""
SHARES = ("best dropped", "any dropped", "one left", "ended by images")
MEANS = ("worse dropped", "trials saved")


@dataclass(frozen=True)
class Raced:
    """How a race ended."""

    race: Race
    rounds: int

    @property
    def dropped(self) -> set[int]:
        """All contenders that were dropped."""
        return set(self.race.contenders) - set(self.race.racing)

    @property
    def saved(self) -> float:
        """The share of the trials for further seeds that were saved."""
        return 1 - self.race.spent / self.race.room


def run(panel: Panel, seeds: int) -> Raced:
    """Run one race over drawn values; the panel's first seed stands for seed 1."""
    contenders = tuple(range(len(panel.means)))
    given: dict[int, set[int]] = {one: set() for one in contenders}
    race = Race(contenders, given, len(contenders) * (seeds - 1))
    rounds = 0
    while not race.over and race.affordable > rounds and rounds < panel.seeds:
        look = race.look()
        rounds = min(race.affordable if look is None else look.rounds, panel.seeds)
        for one in race.racing:
            given[one] |= set(range(1, rounds + 1))
        race = replace(race, seeds=dict(given))
        if look is not None and look.rounds == rounds:
            race = replace(race, decided=[*race.decided, judge(panel, look)])
    return Raced(race, rounds)


def judge(panel: Panel, look: Look) -> Decided:
    """Decide a look as a worker does."""

    def panel_of(contenders: Sequence[int], seeds: Sequence[int]) -> Panel:
        rows, columns = list(contenders), [seed - 1 for seed in seeds]
        return replace(panel, blocks=(panel.blocks[0][np.ix_(rows, columns)],))

    everything = {one: range(1, look.rounds + 1) for one in look.racing}
    return decide(look, everything, panel_of, larger=True)


def marks(shape: Shape, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Run one race; yield which decisions were right and which were wrong.

    Contender 0 is the best.
    """
    behind = shape.settings - 1
    drawn = replace(shape, seeds=LONGEST, behind=behind, evened=True)
    raced = run(draw(drawn, chance), shape.seeds)
    race = raced.race
    assert race.spent <= race.room, "a race never takes more than its room"
    yield "best dropped", float(0 in raced.dropped)
    yield "any dropped", float(bool(raced.dropped))
    yield "worse dropped", len(raced.dropped - {0}) / (shape.settings - 1)
    yield "one left", float(race.won)
    yield "ended by images", float(race.stuck and not race.won)
    # A race that ends in its last round saves nothing, even if budget is left for part of a round.
    yield "trials saved", raced.saved if race.over else 0.0


def report_races(races: int, jobs: int, wanted: str = "") -> None:
    """Print how often the best is dropped, by world, and what races find and save."""
    print(f"| {races:,} races a line; % | {' | '.join((*SHARES, *MEANS))} |")
    print("|---" * (1 + len(SHARES) + len(MEANS)) + "|")
    place = 0
    for worse in BEHIND:
        for world in (*WORLDS, *WILD) if not worse else WORLDS:
            if wanted in world.name:
                _print_line(world.name, Shape(world, 2, 2, 200, worse), races, place, jobs)
            place += 1
    for worse in (0.0, 0.05):
        for world in PATIENTS:
            if wanted in world.name:
                _print_line(world.name, Shape(world, 2, 2, 200, worse), races, place, jobs)
            place += 1
    print()


def _print_line(name: str, base: Shape, races: int, place: int, jobs: int) -> None:
    found = gathered(Line(marks, base, SIZES), races, 90_000 + 1000 * place, jobs)
    what = f"best by {base.planted * 100:g} points" if base.planted else "all equal"
    cells = [percent(found[one]) for one in SHARES]
    cells += [f"{float(np.mean(found[one])) * 100:.1f}" for one in MEANS]
    print(f"| {what}, {name} | {' | '.join(cells)} |", flush=True)
