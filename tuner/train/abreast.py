"""Training several runs side by side: an epoch of each at a time, runs of one shape as a pack.

    runs ── planned ──> turns of one shape ──> one batch of each, one step of each ──> figures
                        any other run      ──> its epoch alone

Each run keeps its seed, its order of images, its rates, its curve and its end. The
time of an epoch is divided equally among the members.

There are two kinds of packs. Stacks of plain layers (`stack`) give each member exactly
the bits that it has alone, so `"auto"` may choose them. Packs by torch.func
(`functional`) are for networks that learn by autograd. Their rounding differs, so they
are used only if `[search] pack` is a number, and each run is marked (`Run.together`).
"""

import copy
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import psutil
import torch
from torch import Tensor, nn

from tuner.records import Epoch
from tuner.train.data import Feed, free_bytes
from tuner.train.functional import (
    TRIED,
    FunctionalPack,
    ObstacleError,
    kept_bytes,
    obstacle,
    signature,
)
from tuner.train.graphs import RecordedSteps
from tuner.train.learners import Autograd
from tuner.train.optimizers import build_optimizer
from tuner.train.passes import Alive, TrainFigures, Turn
from tuner.train.recipe import read_recipe
from tuner.train.run import PlannedEpoch, Run
from tuner.train.stack import DRAWN_ROWS, Pack, Stack, layers_of

SIZES = (4, 16)
"""Pack sizes to try; the next is tried only if the one before it is faster."""
GAIN = 1.2
"""How many times faster a member's step must be in a pack."""
STEPS = 6
"""Steps timed per pack size; the fastest counts, because other load on the machine slows some."""
LONG_STEP = 0.02
"""Seconds. On a CPU a longer step is dominated by arithmetic, which vmap does not speed up."""
FEW = 4
"""Batch size for testing whether torch.func can handle a network."""


@dataclass(frozen=True)
class Ready:
    """A pack of some runs, and the feed of their batches."""

    runs: Sequence[Run]
    pack: Pack | FunctionalPack
    feed: Feed

    def step(self, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step of every member on the images at its places, (members, images)."""
        images = self.feed.gather(places.flatten())
        images = images.view(*places.shape, *images.shape[1:])
        for some, run in zip(images, self.runs, strict=True):
            changed = run.training.changed(some)
            if changed is not some:
                some.copy_(changed)
        outputs, losses = self.pack.learn(images, targets.unbind())
        for run in self.runs:
            run.training.optimizer.step(run.training.learner.pieces())
        return outputs, losses

    @cached_property
    def recorded(self) -> RecordedSteps | None:
        """Steps as CUDA graphs, if the images are on the GPU as well."""
        if self.feed.place.type != "cuda" or not isinstance(self.pack, FunctionalPack):
            return None
        own = [generator for run in self.runs for generator in run.training.generators]
        models = [run.training.learner.model for run in self.runs]
        optimizers = [run.training.optimizer for run in self.runs]
        return RecordedSteps(optimizers, models, [*self.pack.generators, *own])


class Abreast:
    """The runs that a process trains side by side, and their packs."""

    def __init__(self, memory: int | None = None) -> None:
        """With a memory limit in bytes, packs that would exceed it are not tried."""
        self._memory = memory
        self._ready: dict[Hashable, Ready] = {}
        self._measured: dict[Hashable, int] = {}
        self._obstacles: dict[Hashable, str] = {}
        self._steps: dict[tuple[Hashable, int], float] = {}
        """Seconds of a member's step by torch.func, by shape and pack size."""

    def mark(self, run: Run, asked: int | str) -> None:
        """Mark a run, before its first epoch, as one that may train in a pack by torch.func.

        This depends on the study's setting and the network, never on measurements or on the
        other runs: a worker that resumes the trial must find its checkpoints under the same keys.
        """
        run.together = asked not in ("auto", 1) and not self.obstacle(run)
        if run.together:
            notes = {**run.setup.notes, "packs": "by torch.func: last digits depend on their sizes"}
            run.setup = replace(run.setup, notes=notes)

    def epochs(self, runs: Sequence[Run], alive: Alive) -> Iterator[tuple[Run, Epoch]]:
        """Train one epoch of each run; each is validated when it is asked for."""
        groups: dict[Hashable, list[Run]] = {}
        for run in runs:
            groups.setdefault(shape(run) or id(run), []).append(run)
        for kind, group in list(groups.items()):
            if len(group) > 1 and group[0].together and not self._pays(group[0], len(group)):
                groups |= {id(run): [run] for run in groups.pop(kind)}
        # Drop packs whose runs have ended: they keep the memory of all of them.
        self._ready = {kind: one for kind, one in self._ready.items() if kind in groups}
        for kind, group in groups.items():
            begun = time.perf_counter()
            plans = [run.plan() for run in group]
            if len(group) == 1 and not _packed_always(group[0]):
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
        """Return how many runs like this one to train at a time; `asked` may be a number."""
        kind = shape(run)
        if kind is None or asked == 1:
            return 1
        if run.together:
            assert not isinstance(asked, str)
            return asked if self._pays(run, asked) else 1
        if not isinstance(asked, str):
            return asked
        if kind not in self._measured:
            self._measured[kind] = _fastest(run, self._memory)
        return self._measured[kind]

    def obstacle(self, run: Run) -> str:
        """Return why a run cannot join packs by torch.func; empty if it can."""
        learner = run.training.learner
        if not isinstance(learner, Autograd):
            return "it learns as a stack"
        on = run.training.split.labels.device.type
        if on not in TRIED:
            return f"packs by torch.func are untested on {on}"
        try:
            kind = signature(learner.model), learner.arithmetic
        except ObstacleError as reason:
            return str(reason)
        if kind not in self._obstacles:
            self._obstacles[kind] = obstacle(learner, *_two_batches(run))
        return self._obstacles[kind]

    def alone(self, run: Run, asked: int | str) -> str:
        """Return why a run like this one is trained alone."""
        if isinstance(run.training.learner, Stack):
            return "training alone is fastest here"
        why = self.obstacle(run)
        if why:
            return f"torch.func cannot pack the network: {why}"
        if isinstance(asked, str) or asked == 1:
            return (
                "torch.func could pack the network, but would change the last digits of its "
                "results; set [search] pack to a number to allow it"
            )
        by_itself, in_pack = (self._steps.get((shape(run), size)) for size in (1, asked))
        took = f"a trial's step takes {1000 * (by_itself or 0):.2g} ms alone"
        if in_pack is not None:
            return f"{took}, {1000 * in_pack:.2g} ms in a pack of {asked} by torch.func"
        if by_itself is not None and by_itself > LONG_STEP:
            limit = f"{1000 * LONG_STEP:g} ms"
            return f"{took}; on a CPU packs by torch.func speed up only steps of less than {limit}"
        return f"a pack of {asked} does not fit into the memory that [limits] allows"

    def _pays(self, run: Run, size: int) -> bool:
        """Return whether a member's step by torch.func is faster in a pack of this size."""
        kind = shape(run)
        if (kind, 1) not in self._steps:
            self._steps[kind, 1] = _seconds(run, 1)
        least = self._steps[kind, 1]
        if (kind, size) not in self._steps:
            on_cpu = not run.training.split.labels.is_cuda
            if (on_cpu and least > LONG_STEP) or not self._has_room(run, size):
                return False
            self._steps[kind, size] = _seconds(run, size)
        return self._steps[kind, size] * GAIN <= least

    def _has_room(self, run: Run, size: int) -> bool:
        return _has_room(run, size, self._memory)

    def _readied(self, kind: Hashable, runs: Sequence[Run]) -> Ready:
        ready = self._ready.get(kind)
        # Rebuild the pack if a run has left it by training alone since.
        if (
            ready is not None
            and list(ready.runs) == list(runs)
            and all(_learner(run).pack is ready.pack for run in runs)
        ):
            return ready
        size = max(stop - start for start, stop in runs[0].training.bounds)
        feed = runs[0].training.feed.wider(len(runs) * size)
        return Ready(runs, _pack([_learner(run) for run in runs]), feed)


def _together(ready: Ready, plans: Sequence[PlannedEpoch], alive: Alive) -> list[TrainFigures]:
    runs = ready.runs
    turns = [Turn(run.training, one.order, one.rates) for run, one in zip(runs, plans, strict=True)]
    bounds = runs[0].training.bounds
    orders = torch.stack([turn.order for turn in turns])
    targets = torch.stack([turn.targets for turn in turns])
    with ready.pack.begin(len(bounds), [plan.seed for plan in plans]):
        if ready.recorded is not None:
            rates = [turn.rates for turn in turns]
            epoch = ready.recorded.epoch(
                ready.step, bounds, orders, targets, rates=rates, alive=alive
            )
            for several, losses in epoch:
                members = several.unbind(1), losses.unbind(1)
                for turn, output, loss in zip(turns, *members, strict=True):
                    turn.keep(output.flatten(0, 1), loss)
            return [turn.figures() for turn in turns]
        for place, (start, stop) in enumerate(bounds):
            for turn in turns:
                turn.set_rate(place)
            outputs, losses = ready.step(orders[:, start:stop], targets[:, start:stop])
            for turn, output, loss in zip(turns, outputs, losses, strict=True):
                turn.keep(output, loss)
            alive()
        return [turn.figures() for turn in turns]


def _packed_always(run: Run) -> bool:
    """Return whether a run trains as a pack of one when it is alone.

    On a GPU, dropout draws differently alone than in a pack, so a run that leaves a pack
    would continue with different draws.
    """
    return run.together and run.training.split.labels.is_cuda


def shape(run: Run) -> Hashable | None:
    """Return what runs must have in common to be packed; None if the run trains alone."""
    learner = run.training.learner
    rest = run.training.bounds, id(run.training.split), run.training.loss.target_type
    if isinstance(learner, Stack):
        return learner.shape, *rest
    if run.together and isinstance(learner, Autograd):
        return signature(learner.model), learner.arithmetic, *rest
    return None


def _learner(run: Run) -> Stack | Autograd:
    learner = run.training.learner
    assert isinstance(learner, Stack | Autograd)
    return learner


def _pack(learners: Sequence[Stack | Autograd]) -> Pack | FunctionalPack:
    stacks = [learner for learner in learners if isinstance(learner, Stack)]
    others = [learner for learner in learners if isinstance(learner, Autograd)]
    return Pack(stacks) if stacks else FunctionalPack(others)


def _fastest(run: Run, memory: int | None) -> int:
    """Time packs of copies of a run's stack, and return the fastest size."""
    stack = _learner(run)
    assert isinstance(stack, Stack)
    if stack.large and not run.training.split.labels.is_cuda:
        return 1  # their members take turns, so a pack gains nothing
    best, least = 1, _seconds(run, 1)
    for size in SIZES:
        if not _has_room(run, size, memory):
            break
        seconds = _seconds(run, size)
        if seconds * GAIN > least:
            break
        best, least = size, seconds
    return best


def _has_room(run: Run, size: int, memory: int | None) -> bool:
    free = free_bytes(run.training.split.labels.device)
    if free is not None:
        return _bytes(run, size) <= free
    return memory is None or psutil.Process().memory_info().rss + _bytes(run, size) <= memory


def _bytes(run: Run, members: int) -> int:
    """Return a generous estimate of a pack's memory in bytes."""
    learner = _learner(run)
    weights = sum(weight.numel() for weight in learner.model.parameters())
    batch = max(stop - start for start, stop in run.training.bounds)
    images = batch * run.training.split.images[0].numel()
    if isinstance(learner, Autograd):
        # What the forward pass saves, a copy as vmap rearranges it, and its gradients.
        pair, targets = _two_batches(run)
        saved = 3 * batch * kept_bytes(learner, pair[0], targets[0]) // FEW
    else:
        # Masks, and what is saved of a batch.
        units = sum(layer.out_features for layer in learner.layers if isinstance(layer, nn.Linear))
        saved = 4 * units * (DRAWN_ROWS + 8 * batch)
    # Weights, gradients, two moments, the best and the stored weights; the batch itself, as
    # gathered and as changed by augmentation.
    return members * (4 * (8 * weights + 3 * images) + saved)


def _two_batches(run: Run) -> tuple[Tensor, Tensor]:
    """Return two small batches of training images and their targets, as if of two members."""
    training = run.training
    few = min(FEW, len(training.split), training.feed.size)
    places = torch.arange(few, device=training.feed.place)
    first = training.feed.gather(places).clone()
    images = torch.stack((first, training.feed.gather(places.flip(0)).clone()))
    targets = training.loss.targets(training.split.labels[:few])
    return images, torch.stack((targets, targets.flip(0)))


def _seconds(run: Run, members: int) -> float:
    """Return the seconds of one member's step in a pack of this many copies."""
    training = run.training
    copies = [_copy(_learner(run)) for _ in range(members)]
    optimizers = [build_optimizer(read_recipe({}), one.weights) for one in copies]
    pack = _pack(copies) if members > 1 or isinstance(copies[0], Stack) else None
    start, stop = training.bounds[0]
    feed = training.feed.wider(members * (stop - start))
    places = torch.arange(stop - start, device=feed.place).repeat(members)
    targets = [training.loss.targets(training.split.labels[: stop - start])] * members
    fastest = math.inf
    # Networks by autograd draw from torch's own generator, whose state is restored.
    with (
        torch.random.fork_rng(devices=[]),
        pack.begin(STEPS, range(members)) if pack else copies[0].begin(STEPS, 0),
    ):
        for _ in range(STEPS):
            begun = time.perf_counter()
            images = feed.gather(places)
            if pack is None:
                copies[0].learn(images, targets[0])
            elif members == 1:
                pack.learn(images, targets)
            else:
                pack.learn(images.view(members, -1, *images.shape[1:]), targets)
            for one, optimizer in zip(copies, optimizers, strict=True):
                optimizer.step(one.pieces())
            _await(training.split.labels)
            fastest = min(fastest, time.perf_counter() - begun)
    return fastest / members


def _copy(learner: Stack | Autograd) -> Stack | Autograd:
    model = copy.deepcopy(learner.model)
    if isinstance(learner, Autograd):
        return Autograd(model, learner.loss, learner.arithmetic)
    layers = layers_of(model)
    assert layers is not None
    return Stack(model, layers, learner.loss)


def _await(on: torch.Tensor) -> None:
    """Wait until the GPU has finished its work."""
    if on.is_cuda:
        torch.cuda.synchronize(on.device)
