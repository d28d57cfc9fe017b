"""How often two equal trials are called different, and how often intervals over patients miss.

Part of `make calibration`. Two networks score the images of patients; both are equally good, and
each does better on different patients. A score is right where its sign is that of the class.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import log_expit, ndtr

from benchmarks.marking import Line, gathered, percent
from benchmarks.worlds import PAIRS, Shape, people
from tuner.statistics.auc import delong, delong_difference
from tuner.statistics.bootstrap import mean_difference
from tuner.statistics.proportions import mcnemar, share_of

DISTANCE = 1.0
"""The distance of each class from the threshold, in standard deviations of a score."""
MIXED = 0.1
"""How often an image is not of its patient's class."""
MARKS = (
    "told apart",
    "difference covered",
    "accuracy covered",
    "sensitivity covered",
    "AUC covered",
    "AUC difference covered",
    "loss difference covered",
)


def marks(shape: Shape, chance: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Draw two networks on the same images; yield which verdicts were right and which wrong."""
    world = shape.world
    clusters = people(world.sizes, shape.images, chance)
    assert clusters is not None
    ill = chance.random(clusters.patients)[clusters.of_image] < 0.5
    truth = ill ^ (chance.random(shape.images) < MIXED)
    by = world.by_patient
    # Half of the difficulty is shared by both, half is each network's own; the same part of each is
    # by patient.
    drawn = chance.standard_normal((3, clusters.patients))[:, clusters.of_image] * by**0.5
    drawn = drawn + chance.standard_normal((3, shape.images)) * (1 - by) ** 0.5
    sign = np.where(truth, 1.0, -1.0)
    scores = sign * DISTANCE + (drawn[0] + drawn[1:]) / 2**0.5
    hits = scores * sign > 0
    found = mcnemar(hits[0], hits[1], clusters)
    yield "told apart", float(found.p_value < 0.05)
    yield "difference covered", float(found.difference.low <= 0 <= found.difference.high)
    right = float(ndtr(DISTANCE))
    for name, share in (
        ("accuracy", share_of(hits[0], clusters)),
        ("sensitivity", share_of(hits[0][truth], clusters.take(truth))),
    ):
        yield f"{name} covered", float(share.low <= right <= share.high)
    area = delong(scores[0], truth, clusters)
    apart = delong_difference(scores[0], scores[1], truth, clusters)
    if area is not None and apart is not None:
        yield "AUC covered", float(area.low <= ndtr(2**0.5 * DISTANCE) <= area.high)
        yield "AUC difference covered", float(apart[0].low <= 0 <= apart[0].high)
    losses = -log_expit(2 * scores * sign)
    loss = mean_difference(losses[0], losses[1], clusters)
    yield "loss difference covered", float(loss.low <= 0 <= loss.high)


def report_pairs(pairs: int, jobs: int, wanted: str = "") -> None:
    """Print how often two equal networks are distinguished, and how often intervals cover."""
    print(f"| {pairs:,} pairs of trials a line; % | {' | '.join(MARKS)} |")
    print("|---" * (1 + len(MARKS)) + "|")
    for place, world in enumerate(PAIRS):
        if wanted in world.name:
            line = Line(marks, Shape(world, 2, 1, 200), ((2, 1),))
            found = gathered(line, pairs, 150_000 + 1000 * place, jobs)
            cells = [percent(found[name]) for name in MARKS]
            print(f"| {world.name} | {' | '.join(cells)} |", flush=True)
    print()
