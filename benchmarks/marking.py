"""Simulating many studies on several cores, and counting how often something holds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.worlds import Shape
from tuner.statistics.proportions import wilson

Marks = dict[str, list[float]]
Sizes = Sequence[tuple[int, int]]
"""Settings and seeds of the studies that are drawn."""
IMAGES = (200, 300, 400, 600, 1000)

Marker = Callable[[Shape, np.random.Generator], Iterator[tuple[str, float]]]


@dataclass(frozen=True)
class Line:
    """One line of a table: what is drawn, and how it is marked."""

    marker: Marker
    base: Shape
    sizes: Sizes


def batch(line: Line, studies: int, seed: int) -> Marks:
    """Draw and mark this many studies of all sizes."""
    chance = np.random.default_rng(seed)
    marks: Marks = defaultdict(list)
    for _ in range(studies):
        settings, seeds = line.sizes[int(chance.integers(len(line.sizes)))]
        images = int(IMAGES[chance.integers(len(IMAGES))])
        shape = replace(line.base, settings=settings, seeds=seeds, images=images)
        for name, mark in line.marker(shape, chance):
            marks[name].append(mark)
    return dict(marks)


def gathered(line: Line, studies: int, seed: int, jobs: int) -> Marks:
    """Mark studies on several cores."""
    pieces = 2 * jobs
    work = partial(batch, line, studies // pieces)
    marks: Marks = defaultdict(list)
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(work, range(seed, seed + pieces)):
            for name, values in found.items():
                marks[name] += values
    return marks


def percent(marks: Sequence[float]) -> str:
    """Return a share with its 95% interval."""
    found = wilson(sum(marks), len(marks))
    return f"{found.value * 100:.1f} ({found.low * 100:.1f} to {found.high * 100:.1f})"
