"""How often the statistics are wrong: studies drawn by chance, judged as `tuner compare` judges.

    python -m benchmarks.calibration            # some minutes; `make calibration`

Every study has 3 to 6 settings, 3 to 10 seeds and 200 to 1,000 test images. An image is right or
wrong by a logit with crossed effects: images differ in difficulty, seeds in luck, settings answer
to seeds and to images in their own way. The truth is known, so every verdict can be marked.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtr

from tuner.answers.statistics.crossed import Panel
from tuner.answers.statistics.levels import against, against_best
from tuner.answers.statistics.planning import Seen, power
from tuner.answers.statistics.proportions import wilson

Array = NDArray[np.float64]
EASE, DIFFICULTY, LUCK = 1.3, 1.5, 0.3
"""An image's logit: what is common, how images differ, how seeds differ."""


@dataclass(frozen=True)
class World:
    """How strongly settings answer to seeds and to images, on the logit."""

    name: str
    to_seeds: float
    to_images: float
    to_both: float
    wild: float = 1.0
    """How many times as strongly the first setting answers to seeds."""


WORLDS = (
    World("seeds matter most", 0.4, 0.0, 0.3),
    World("settings prefer different images", 0.05, 1.0, 0.3),
    World("both", 0.25, 0.7, 0.5),
    World("neither: noise by image and seed", 0.0, 0.0, 1.0),
)
WILD = tuple(
    World(f"one setting scatters {times} times as much", 0.15, 0.3, 0.3, times) for times in (2, 4)
)
SIZES = ((3, 3), (3, 5), (3, 10), (4, 3), (4, 5), (5, 4), (6, 3), (6, 5), (6, 10))
"""Settings and seeds."""
IMAGES = (200, 300, 400, 600, 1000)
PLANTED = (0.02, 0.05, 0.10)


@dataclass(frozen=True)
class Shape:
    """One study's size, and by how much its last setting is worse."""

    world: World
    settings: int
    seeds: int
    images: int
    planted: float = 0.0


def draw(shape: Shape, chance: np.random.Generator) -> Panel:
    """Draw one study's hits and misses."""
    world, settings = shape.world, shape.settings
    seeds, images = shape.seeds, shape.images
    logits = EASE + DIFFICULTY * chance.standard_normal((1, 1, images))
    logits = logits + LUCK * chance.standard_normal((1, seeds, 1))
    scale = np.full((settings, 1, 1), world.to_seeds)
    scale[0] *= world.wild
    logits = logits + scale * chance.standard_normal((settings, seeds, 1))
    logits = logits + world.to_images * chance.standard_normal((settings, 1, images))
    logits = logits + world.to_both * chance.standard_normal((settings, seeds, images))
    if shape.planted:
        logits[-1] += _shift(_spread(world), shape.planted)
    hits = chance.random(logits.shape) < expit(logits)
    return Panel((hits.astype(np.float64),))


def _spread(world: World, setting: int = 1) -> float:
    """Return the standard deviation of a setting's logits over images and seeds."""
    to_seeds = world.to_seeds * (world.wild if setting == 0 else 1.0)
    return float(
        np.sqrt(DIFFICULTY**2 + LUCK**2 + to_seeds**2 + world.to_images**2 + world.to_both**2)
    )


def accuracy(spread: float, shift: float = 0.0) -> float:
    """Return the true accuracy of logits of this spread (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return float((weights * expit(EASE + shift + spread * nodes)).sum() / weights.sum())


def _shift(spread: float, worse: float) -> float:
    """Return the logit that makes a setting worse by so much."""
    low, high = -8.0, 0.0
    wanted = accuracy(spread) - worse
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if accuracy(spread, middle) < wanted else (low, middle)
    return low


Marks = dict[str, list[float]]


def mark_null(shape: Shape, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Judge a study without effects; yield what was right and what was wrong."""
    panel = draw(shape, chance)
    verdict = against_best(panel, larger=True)
    yield "any different", float(any(one.differs for one in verdict.others))
    named = against(panel, 0, larger=True)
    yield "any different, reference named", float(any(one.differs for one in named.others))
    yield "t over seeds", float(_naive(panel.by_seed) < 0.05)
    truth = accuracy(_spread(shape.world))
    # The wild setting's accuracy is another; here every difference of the others is 0.
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
    """Judge a study whose last setting is worse; yield whether it was told, and the promise."""
    panel = draw(shape, chance)
    verdict = against_best(panel, larger=True)
    last = shape.settings - 1
    told = [one.level for one in verdict.others if one.differs]
    yield "found", float(last in told)
    yield "false", float(any(level != last for level in told))
    seen = Seen(
        panel.parts(range(shape.settings)),
        shape.seeds,
        shape.images,
        shape.settings,
        panel.grain,
    )
    yield "promised", power(seen, shape.planted)


Marker = Callable[[Shape, np.random.Generator], Iterator[tuple[str, float]]]


def batch(marker: Marker, base: Shape, studies: int, seed: int) -> Marks:
    """Draw and mark so many studies of all sizes."""
    chance = np.random.default_rng(seed)
    marks: Marks = defaultdict(list)
    for _ in range(studies):
        settings, seeds = SIZES[chance.integers(len(SIZES))]
        images = int(IMAGES[chance.integers(len(IMAGES))])
        shape = replace(base, settings=settings, seeds=seeds, images=images)
        for name, mark in marker(shape, chance):
            marks[name].append(mark)
    return dict(marks)


def gathered(marker: Marker, base: Shape, studies: int, seed: int, jobs: int) -> Marks:
    """Mark studies on several cores."""
    pieces = 2 * jobs
    work = partial(batch, marker, base, studies // pieces)
    marks: Marks = defaultdict(list)
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(work, range(seed, seed + pieces)):
            for name, values in found.items():
                marks[name] += values
    return marks


def percent(marks: Sequence[float]) -> str:
    """Return a share with its 95 % interval."""
    found = wilson(sum(marks), len(marks))
    return f"{found.value * 100:.1f} ({found.low * 100:.1f} to {found.high * 100:.1f})"


NULL = (
    "any different",
    "any different, reference named",
    "t over seeds",
    "mean covered",
    "difference covered",
    "all from the best covered",
)


def report_null(studies: int, jobs: int) -> None:
    """Print how often verdicts are wrong where nothing differs, world by world and in all."""
    print(f"| {studies:,} studies a line, nothing differs; % | {' | '.join(NULL)} |")
    print("|---" * (len(NULL) + 1) + "|")
    together: Marks = defaultdict(list)
    for place, world in enumerate((*WORLDS, *WILD)):
        found = gathered(mark_null, Shape(world, 3, 3, 200), studies, 1000 * place, jobs)
        cells = [percent(found[name]) if name in found else "–" for name in NULL]
        print(f"| {world.name} | {' | '.join(cells)} |", flush=True)
        if world in WORLDS:
            for name, values in found.items():
                together[name] += values
    print(f"| the first four together | {' | '.join(percent(together[n]) for n in NULL)} |\n")


def report_planted(studies: int, jobs: int) -> None:
    """Print how often planted differences are found, and how often the planner says so."""
    print("| one setting is worse by | found | promised | something false said |")
    print("|---|---|---|---|")
    for place, worse in enumerate(PLANTED):
        for at, world in enumerate(WORLDS):
            base = Shape(world, 3, 3, 200, worse)
            found = gathered(mark_planted, base, studies, 50_000 + 1000 * (4 * place + at), jobs)
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
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    begun = time.monotonic()
    report_null(asked.studies, asked.jobs)
    report_planted(asked.studies // 4, asked.jobs)
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
