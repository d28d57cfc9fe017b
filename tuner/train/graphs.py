"""Training and validation on a GPU, recorded once as CUDA graphs and replayed.

    an epoch's batches ── cut into stretches of equal batches ──> (25, 25), 1 that is shorter

    a stretch for the first time   taken step by step: libraries load, one step is watched
    for the second time            recorded
    from then on                   one call for all of its steps

A small network's step is a hundred kernels of a few microseconds each, and Python
takes longer to launch one than the GPU to run it. A replay launches all of them at
once, on the same memory: batches, targets and rates are copied to where the recording
reads them, outputs and losses from where it writes them.

A replay repeats kernels, not Python. So something is recorded only if it was seen to
change nothing on the Python side: no attribute of a module (a counter of steps), no
place of a buffer, no random state of `random`, NumPy or torch on the CPU, and to wait
for no value of the GPU (`.item()`, control flow by data). Any other network trains step
by step, with the reason in the trainer's log. What a network keeps outside of its
modules (a counter of its class) is not seen. Draws on the GPU go on correctly: a replay
takes the state
of its generators as it is then, and moves it on.
"""

import contextlib
import gc
import logging
import random
import threading
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tuner.train.functional import PLAIN, ObstacleError, signature
from tuner.train.optimizers import Optimizer

logger = logging.getLogger(__name__)

Tensors = tuple[Tensor, ...]
Take = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes a step on the training images at some places, with their targets.

Returns outputs and loss, of one network or, with a first dimension, of several.
"""
Result = TypeVar("Result")
Pool = Any
"""A handle of torch's for the memory that recordings share; None for memory of their own."""

LONGEST = 32
"""Steps of a stretch: enough that Python's share is small, and an epoch is not held up."""
WARM = 2
"""Steps of a kind before the watched one. Each kernel must have run before it is recorded."""


COMPARED = (bool, int, float, str, list, tuple, dict, set)
"""Kinds of attributes that a network may change from epoch to epoch, and that can be compared."""
AHEAD = 2
"""Stretches that may wait for the GPU: without a limit an epoch would be sent off in a moment."""

_WATCHED: set[Hashable] = set()
"""Kinds of steps, and images of a batch, that a replay repeats in full."""


class Graph:
    """Work on the same shapes each time, which is watched once, recorded, and replayed."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        generators: Sequence[torch.Generator],
        pool: Pool,
    ) -> None:
        """Generators are those that the work draws from, beside torch's own for the GPU.

        Recordings that share a pool share the memory of what they compute on the way. They may,
        as they are replayed one after the other and their results are copied at once.
        """
        self._models, self._generators, self._pool = models, generators, pool
        self._device = next(iter(models[0].parameters())).device
        self.obstacle = ""
        """Why nothing is recorded; empty while nothing speaks against it."""
        self._recordings: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensors, Tensors]] = {}
        self._state: Hashable = None

    def begin(self) -> None:
        """Forget what was recorded of networks that are not as they were then.

        Weights may lie elsewhere, or be frozen from some epoch on; a network may count epochs.
        """
        if self.obstacle:
            return
        state = _state(self._models)
        if state != self._state:
            self._recordings, self._state = {}, state

    def refuse(self, reason: str) -> None:
        """Record nothing from now on; the reason goes to the trainer's log."""
        self.obstacle, self._recordings = reason, {}
        logger.warning("This network is not recorded as a CUDA graph, and is slower: %s.", reason)

    def watched(self, work: Callable[[], Result]) -> Result:
        """Do the work once, and see whether a replay would do the same."""
        try:
            before = _python_side(self._models)
        except ObstacleError as reason:
            self.refuse(str(reason))
            return work()
        with _waits() as waits:
            result = work()
        try:
            same = _python_side(self._models) == before
        except ObstacleError:
            same = False
        if waits:
            self.refuse("it waits for a value that the GPU computes")
        elif not same:
            self.refuse("it changes an attribute or a buffer, or draws random numbers on the CPU")
        return result

    def replayed(
        self, kind: Hashable, work: Callable[..., Tensors], inputs: Tensors
    ) -> Tensors | None:
        """Record the work if it is not yet, and replay it; None where it cannot be recorded."""
        # What is recorded is what the current device does, whatever device the tensors are on.
        with torch.cuda.device(self._device):
            if kind not in self._recordings and not self._record(kind, work, inputs):
                return None
            graph, places, results = self._recordings[kind]
            for place, given in zip(places, inputs, strict=True):
                place.copy_(given)
            graph.replay()
            return tuple(result.clone() for result in results)

    def _record(self, kind: Hashable, work: Callable[..., Tensors], inputs: Tensors) -> bool:
        # Nothing may be freed by the garbage collector in the middle: to destroy a graph of
        # a trial that has ended would break off the one that is being recorded.
        gc.collect()
        collecting = gc.isenabled()
        gc.disable()
        try:
            places = tuple(given.clone() for given in inputs)
            self._recordings[kind] = self._captured(work, places, self._pool)
        # A network is other people's code; what cannot be recorded says so by errors of many kinds.
        except Exception as error:  # noqa: BLE001
            text = str(error).strip().partition("\n")[0]
            self.refuse(f"CUDA could not record it: {type(error).__name__}: {text}")
        finally:
            if collecting:
                gc.enable()
        # Not in the handler, where the error still holds the memory of what failed.
        if self.obstacle:
            self._mend()
        return not self.obstacle

    def _mend(self) -> None:
        """Take generators out of a recording that failed: they wait for its end.

        A recording that succeeds, of next to nothing, ends it. Where even that fails, the next
        draw raises, and the trial goes on from its checkpoint in a process of its own.
        """
        with contextlib.suppress(RuntimeError):
            one = torch.zeros(1, device=self._device)
            self._captured(lambda place: (place.add(1),), (one,), None)

    def _captured(
        self, work: Callable[..., Tensors], places: Tensors, pool: Pool
    ) -> tuple[torch.cuda.CUDAGraph, Tensors, Tensors]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # Only this thread's calls are part of it: checkpoints are copied by another thread.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = work(*places)
        return graph, places, results


@contextmanager
def _waits() -> Iterator[list[str]]:
    """Give the places at which this thread waits for the GPU.

    Both the mode and the handler of warnings are the whole process's, and the thread that writes
    checkpoints waits for the GPU as it copies.
    """
    waits: list[str] = []
    ours = threading.get_ident()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if threading.get_ident() == ours and "called a synchronizing" in str(message):
            waits.append(str(message))

    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)


class RecordedSteps:
    """Takes the steps of an epoch, of one network or of a pack, by recordings where it can."""

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        models: Sequence[nn.Module],
        generators: Sequence[torch.Generator],
        kind: Hashable = None,
    ) -> None:
        """Of a kind that was watched in this process before, steps are recorded at once."""
        self._optimizers = optimizers
        self._kind = kind
        self.graph = Graph(models, generators, torch.cuda.graph_pool_handle())
        self._seen: dict[Hashable, int] = {}
        """How many steps of each size were taken one by one."""

    def epoch(
        self,
        take: Take,
        bounds: Sequence[tuple[int, int]],
        order: Tensor,
        targets: Tensor,
        *,
        rates: Sequence[Tensor],
        alive: Callable[[], None],
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield outputs (steps, ..., images, classes) and losses (steps, ...) of each stretch.

        Order and targets are (..., images); each optimizer has a rate for every step.
        """
        self.graph.begin()
        ahead: deque[torch.cuda.Event] = deque()
        for first, last, size in stretches(bounds):
            steps = range(first, last)
            known = (self._kind, size) in _WATCHED
            done: Tensors | None = None
            if (known or self._seen.get(size, 0) > WARM) and not self.graph.obstacle:
                start, stop = bounds[first][0], bounds[last - 1][1]
                shape = (*order.shape[:-1], len(steps), size)
                inputs = (
                    order[..., start:stop].reshape(shape),
                    targets[..., start:stop].reshape(shape),
                    *(rate[first:last] for rate in rates),
                )
                stretch = partial(self._stretch, take)
                done = self.graph.replayed((len(steps), size), stretch, inputs)
                ahead.append(torch.cuda.Event(blocking=True))  # type: ignore[no-untyped-call]
                ahead[-1].record(torch.cuda.current_stream(order.device))
                if len(ahead) > AHEAD:
                    ahead.popleft().synchronize()
                alive()
            if done is not None:
                outputs, losses = done
                yield outputs, losses
                continue
            for step in steps:
                start, stop = bounds[step]
                self._set_rates([rate[step] for rate in rates])
                given = order[..., start:stop], targets[..., start:stop]
                seen = self._seen[size] = self._seen.get(size, 0) + 1
                if seen == WARM + 1 and not self.graph.obstacle:
                    outputs, loss = self.graph.watched(partial(take, *given))
                    if self._kind is not None and not self.graph.obstacle:
                        _WATCHED.add((self._kind, size))
                else:
                    outputs, loss = take(*given)
                yield outputs[None], loss[None]
                alive()

    def _stretch(self, take: Take, places: Tensor, targets: Tensor, *rates: Tensor) -> Tensors:
        """Take several steps, (..., steps, images) each."""
        results = []
        for step in range(places.shape[-2]):
            self._set_rates([rate[step] for rate in rates])
            results.append(take(places[..., step, :], targets[..., step, :]))
        outputs, losses = zip(*results, strict=True)
        return torch.stack(outputs), torch.stack(losses)

    def _set_rates(self, rates: Sequence[Tensor]) -> None:
        for optimizer, rate in zip(self._optimizers, rates, strict=True):
            optimizer.set_rate(rate)


class RecordedForward:
    """Computes a network's outputs for the same images again and again, as its weights change."""

    def __init__(self, model: nn.Module, pool: Pool) -> None:
        self.graph = Graph([model], (), pool)
        self._seen = 0

    def outputs(self, forward: Callable[[], Tensor]) -> Tensor:
        """Return what the same forward returns each time."""
        self.graph.begin()
        if not self.graph.obstacle and self._seen > WARM:
            done = self.graph.replayed("forward", lambda: (forward(),), ())
            if done is not None:
                return done[0]
        self._seen += 1
        if self._seen == WARM + 1 and not self.graph.obstacle:
            return self.graph.watched(forward)
        return forward()


def stretches(bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Cut an epoch's batches into stretches of equal batches: first, last + 1, images of each.

    Stretches of the same batches are as equal as can be, so that few are recorded.
    """
    found = []
    first = 0
    for size, group in groupby(stop - start for start, stop in bounds):
        count = len(list(group))
        parts = -(-count // LONGEST)
        # The longer ones first: 49 steps are 25 and 24.
        for part in range(parts):
            steps = count // parts + (part < count % parts)
            found.append((first, first + steps, size))
            first += steps
    return found


def _python_side(models: Sequence[nn.Module]) -> Hashable:
    """Return what work on a GPU may change beside the content of tensors there.

    Raises ObstacleError where a network has attributes that cannot be compared.
    """
    name, keys, place, *rest = np.random.get_state()
    return (
        tuple(signature(model) for model in models),
        _state(models),
        random.getstate(),
        (name, np.asarray(keys).tobytes(), place, *rest),
        torch.get_rng_state().numpy().tobytes(),
    )


def _state(models: Sequence[nn.Module]) -> Hashable:
    """Return where weights and buffers lie, which are trained, and plain attributes of all modules.

    Of a replay it decides what is read and written; it is looked at before each epoch.
    """
    tensors = [
        (tensor.data_ptr(), tensor.requires_grad)
        for model in models
        for tensor in (*model.parameters(), *model.buffers())
    ]
    attributes = [
        (name, value if isinstance(value, bool | int | float | str) else repr(value))
        for model in models
        for module in model.modules()
        for name, value in vars(module).items()
        if name == "training" or (name not in PLAIN and isinstance(value, COMPARED))
    ]
    return tuple(tensors), tuple(attributes)
