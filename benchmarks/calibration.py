"""How often the statistics are wrong: simulated studies, judged as `tuner compare` judges.

    python -m benchmarks.calibration                  # 15 to 60 minutes; `make calibration`
    python -m benchmarks.calibration --only races     # some minutes: benchmarks/racing.py
    python -m benchmarks.calibration --only null --line patients --studies 400

Every study has 3 to 6 settings, 3 to 10 seeds and 200 to 1,000 test images. An image is right or
wrong by a logit with crossed effects: images differ in difficulty, seeds in luck, and settings
respond differently to seeds and to images. The truth is known, so every verdict can be marked.
Images may be of patients, 5 each on average; then settings respond to patients, to images, or both.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.special import stdtr

from benchmarks.marking import Line, Marks, gathered, percent
from benchmarks.pairs import report_pairs
from benchmarks.racing import report_races
from benchmarks.worlds import GIANT, PATIENTS, WILD, WORLDS, Array, Shape, accuracy, draw, spread
from tuner.statistics.multiple_comparisons import against, against_best
from tuner.statistics.power import Observed, power

SIZES = ((3, 3), (3, 5), (3, 10), (4, 3), (4, 5), (5, 4), (6, 3), (6, 5), (6, 10))
"""Settings and seeds."""
PLANTED = (0.02, 0.05, 0.10)
PARTS = ("null", "planted", "pairs", "races")


def mark_null(shape: Shape, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Judge a study without effects; yield which verdicts were right and which were wrong."""
    panel = draw(shape, chance)
    verdict = against_best(panel, larger=True)
    yield "any different", float(any(one.differs for one in verdict.others))
    named = against(panel, 0, larger=True)
    yield "any different, reference named", float(any(one.differs for one in named.others))
    yield "t over seeds", float(_naive(panel.by_seed) < 0.05)
    truth = accuracy(spread(shape.world))
    # The accuracy of the wild setting differs; all differences between the others are 0.
    usual = [one for one in range(shape.settings) if shape.world.wild == 1 or one]
    mean = panel.mean(usual[0])
    yield "mean covered", float(mean.low <= truth <= mean.high)
    apart = panel.difference(usual[0], usual[1]).interval()
    yield "difference covered", float(apart.low <= 0 <= apart.high)
    if shape.world.wild == 1:
        all_of = [one.difference for one in verdict.others]
        yield "all from the best covered", float(all(one.low <= 0 <= one.high for one in all_of))


def _naive(by_seed: Array) -> float:
    """Return the smallest p of paired t tests over seeds alone, without any correction."""
    order = np.argsort(by_seed.mean(axis=1))
    apart = by_seed[order[-1]] - by_seed[order[0]]
    if not apart.std():
        return 1.0
    t = apart.mean() / apart.std(ddof=1) * len(apart) ** 0.5
    return float(2 * stdtr(len(apart) - 1, -abs(t)))


def mark_planted(shape: Shape, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Judge a study whose last setting is worse; yield whether this was detected, and the power."""
    panel = draw(shape, chance)
    verdict = against_best(panel, larger=True)
    last = shape.settings - 1
    told = [one.level for one in verdict.others if one.differs]
    yield "found", float(last in told)
    yield "false", float(any(level != last for level in told))
    seen = Observed(
        panel.parts(range(shape.settings)),
        shape.seeds,
        shape.images,
        shape.settings,
        panel.grain,
        panel.patients,
    )
    yield "promised", power(seen, shape.planted)


NULL = (
    "any different",
    "any different, reference named",
    "t over seeds",
    "mean covered",
    "difference covered",
    "all from the best covered",
)


def report_null(studies: int, jobs: int, wanted: str = "") -> None:
    """Print how often verdicts are wrong if nothing differs, by world and overall."""
    print(f"| {studies:,} studies a line, nothing differs; % | {' | '.join(NULL)} |")
    print("|---" * (len(NULL) + 1) + "|")
    together: Marks = defaultdict(list)
    for place, world in enumerate((*WORLDS, *WILD, *PATIENTS, GIANT)):
        if wanted not in world.name:
            continue
        found = gathered(
            Line(mark_null, Shape(world, 3, 3, 200), SIZES), studies, 1000 * place, jobs
        )
        cells = [percent(found[name]) if name in found else "–" for name in NULL]
        print(f"| {world.name} | {' | '.join(cells)} |", flush=True)
        if world in WORLDS:
            for name, values in found.items():
                together[name] += values
    if together:
        cells = [percent(together[name]) for name in NULL]
        print(f"| the first four together | {' | '.join(cells)} |")
    print()


def report_planted(studies: int, jobs: int, wanted: str = "") -> None:
    """Print how often planted differences are found, and how often the planner predicts it."""
    print("| one setting is worse by | found | promised | something false said |")
    print("|---|---|---|---|")
    for place, worse in enumerate(PLANTED):
        for at, world in enumerate((*WORLDS, *PATIENTS)):
            if wanted not in world.name:
                continue
            base = Shape(world, 3, 3, 200, worse)
            # The first worlds keep the seeds that they have always had.
            seed = 50_000 + 1000 * (4 * place + at)
            seed += 200_000 if world in PATIENTS else 0
            found = gathered(Line(mark_planted, base, SIZES), studies, seed, jobs)
            promised = float(np.mean(found["promised"])) * 100
            print(
                f"| {worse * 100:g} points, {world.name} | {percent(found['found'])} | "
                f"{promised:.1f} | {percent(found['false'])} |",
                flush=True,
            )
    print()


def main() -> None:
    """Draw, judge, and print the tables of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=4000, help="studies a line of the tables")
    parser.add_argument("--races", type=int, default=2000, help="races a line of the tables")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of trials a line")
    parser.add_argument("--only", choices=[*PARTS, "studies"], help="one part alone")
    parser.add_argument("--line", default="", help="only worlds with this in their name")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    begun = time.monotonic()
    if asked.only in (None, "studies", "null"):
        report_null(asked.studies, asked.jobs, asked.line)
    if asked.only in (None, "studies", "planted"):
        report_planted(asked.studies // 4, asked.jobs, asked.line)
    if asked.only in (None, "pairs"):
        report_pairs(asked.pairs, asked.jobs, asked.line)
    if asked.only in (None, "races"):
        report_races(asked.races, asked.jobs, asked.line)
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
