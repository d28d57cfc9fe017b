"""Runs that train abreast: an epoch of each at a time, those of one shape as a pack.

    runs ── planned ──> turns of one shape ──> one batch of each, one step of each ──> figures
                        any other run      ──> its epoch alone

Each run keeps its seed, its order of images, its rates, curve and end. What an
epoch takes is counted to the members in equal parts.
"""

import copy
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from tuner.records import Epoch
from tuner.train.data import Feed
from tuner.train.optimizers import build_optimizer
from tuner.train.passes import Alive, TrainFigures, Turn
from tuner.train.recipe import read_recipe
from tuner.train.run import Plan, Run
from tuner.train.stack import DRAWN_ROWS, Pack, Stack, layers_of

SIZES = (4, 16)
"""Members of the packs that are tried; each has to be faster for the next to be tried."""
GAIN = 1.2
"""How much faster a member's step must be in a pack."""
STEPS = 6
"""Of a pack that is tried; the fastest counts, since whatever else the machine does slows some."""


@dataclass(frozen=True)
class Ready:
    """A pack of some runs, and the feed of their batches."""

    runs: Sequence[Run]
    pack: Pack
    feed: Feed


class Abreast:
    """The runs that a process trains at a time, and the packs that are ready for them."""

    def __init__(self, memory: int | None = None) -> None:
        """With a limit, packs that would take the process beyond it are not tried."""
        self._memory = memory
        self._ready: dict[Hashable, Ready] = {}
        self._measured: dict[Hashable, int] = {}

    def epochs(self, runs: Sequence[Run], alive: Alive) -> Iterator[tuple[Run, Epoch]]:
        """Train one epoch of each run; each is validated when it is asked for."""
        groups: dict[Hashable, list[Run]] = {}
        for run in runs:
            groups.setdefault(shape(run) or id(run), []).append(run)
        # A pack whose runs have gone holds the memory of all of them.
        self._ready = {kind: one for kind, one in self._ready.items() if kind in groups}
        for kind, group in groups.items():
            begun = time.perf_counter()
            plans = [run.plan() for run in group]
            if len(group) == 1:
                self._ready.pop(kind, None)
                run, plan = group[0], plans[0]
                figures = [run.training.train(plan.order, plan.rates, plan.seed, alive)]
            else:
                self._ready[kind] = ready = self._readied(kind, group)
                figures = _together(ready, plans, alive)
            share = (time.perf_counter() - begun) / len(group)
            for run, plan, train in zip(group, plans, figures, strict=True):
                yield run, run.end_epoch(plan, train, share, alive)

    def most(self, run: Run, asked: int | str) -> int:
        """Return how many runs like this one are best trained at a time; `asked` may say it."""
        kind = shape(run)
        if kind is None:
            return 1
        if not isinstance(asked, str):
            return asked
        if kind not in self._measured:
            self._measured[kind] = _fastest(run, self._memory)
        return self._measured[kind]

    def _readied(self, kind: Hashable, runs: Sequence[Run]) -> Ready:
        found = self._ready.get(kind)
        # A run may have trained alone since, and left the pack.
        if (
            found is not None
            and list(found.runs) == list(runs)
            and all(_stack(run).pack is found.pack for run in runs)
        ):
            return found
        size = max(stop - start for start, stop in runs[0].training.bounds)
        feed = runs[0].training.feed.wider(len(runs) * size)
        return Ready(runs, Pack([_stack(run) for run in runs]), feed)


def _together(ready: Ready, plans: Sequence[Plan], alive: Alive) -> list[TrainFigures]:
    runs, pack = ready.runs, ready.pack
    turns = [Turn(run.training, one.order, one.rates) for run, one in zip(runs, plans, strict=True)]
    bounds = runs[0].training.bounds
    orders = torch.stack([turn.order for turn in turns])
    with pack.begin(len(bounds), [plan.seed for plan in plans]):
        for place, (start, stop) in enumerate(bounds):
            images = ready.feed.gather(orders[:, start:stop].flatten())
            images = images.view(len(runs), stop - start, *images.shape[1:])
            for one, turn in zip(images, turns, strict=True):
                changed = turn.changed(one)
                if changed is not one:
                    one.copy_(changed)
            outputs, losses = pack.learn(images, [turn.targets[start:stop] for turn in turns])
            for one, output, loss in zip(turns, outputs, losses, strict=True):
                one.take(place, output, loss)
            alive()
        return [turn.figures() for turn in turns]


def shape(run: Run) -> Hashable | None:
    """Return what runs must have in common to be packed; None for one that trains alone."""
    learner = run.training.learner
    if not isinstance(learner, Stack):
        return None
    return learner.shape, run.training.bounds, id(run.training.split)


def _stack(run: Run) -> Stack:
    learner = run.training.learner
    assert isinstance(learner, Stack)
    return learner


def _fastest(run: Run, memory: int | None) -> int:
    """Try packs of copies of a run's network, and return the size that trains fastest."""
    stack = _stack(run)
    if stack.large and not run.training.split.labels.is_cuda:
        return 1  # members take turns there
    best, least = 1, _seconds(run, 1)
    for size in SIZES:
        if memory is not None and psutil.Process().memory_info().rss + _bytes(run, size) > memory:
            break
        seconds = _seconds(run, size)
        if seconds * GAIN > least:
            break
        best, least = size, seconds
    return best


def _bytes(run: Run, members: int) -> int:
    """Return about how much memory a pack takes, generously."""
    stack = _stack(run)
    weights = sum(weight.numel() for weight in stack.model.parameters())
    units = sum(module.out_features for module in stack.layers if isinstance(module, nn.Linear))
    batch = max(stop - start for start, stop in run.training.bounds)
    images = batch * run.training.split.images[0].numel()
    # Weights, gradients, two moments, the best and the stored weights; masks and what is kept
    # of a batch; the batch itself, as it is gathered and as it is shown.
    return 4 * members * (8 * weights + units * (DRAWN_ROWS + 8 * batch) + 3 * images)


def _seconds(run: Run, members: int) -> float:
    """Return how long one member's step takes in a pack of so many copies."""
    training = run.training
    copies = [_copy(_stack(run)) for _ in range(members)]
    optimizers = [build_optimizer(read_recipe({}), one.weights) for one in copies]
    pack = Pack(copies)
    start, stop = training.bounds[0]
    feed = training.feed.wider(members * (stop - start))
    places = torch.arange(stop - start, device=feed.place).repeat(members)
    targets = [training.loss.targets(training.split.labels[: stop - start])] * members
    fastest = math.inf
    with pack.begin(STEPS, range(members)):
        for _ in range(STEPS):
            begun = time.perf_counter()
            images = feed.gather(places)
            if members > 1:
                images = images.view(members, -1, *images.shape[1:])
            pack.learn(images, targets)
            for place, optimizer in enumerate(optimizers):
                optimizer.step(pack.pieces(place))
            _await(training.split.labels)
            fastest = min(fastest, time.perf_counter() - begun)
    return fastest / members


def _copy(stack: Stack) -> Stack:
    model = copy.deepcopy(stack.model)
    layers = layers_of(model)
    assert layers is not None
    return Stack(model, layers, stack.loss)


def _await(on: torch.Tensor) -> None:
    """Wait until a GPU has done what it was told."""
    if on.is_cuda:
        torch.cuda.synchronize(on.device)
