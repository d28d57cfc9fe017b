"""Training and validation on a GPU, recorded once as CUDA graphs and then replayed.

    an epoch's batches ── cut into stretches of equal batches ──> (25, 25), 1 that is shorter

    a stretch for the first time   taken step by step: libraries load, one step is watched
    for the second time            recorded
    from then on                   one call for all of its steps

A small network's step is a hundred kernels of a few microseconds each, and Python
takes longer to launch one than the GPU takes to run it. A replay launches all of them
at once, on the same memory: batches, targets and rates are copied to where the
recording reads them, outputs and losses from where it writes them.

A replay repeats kernels, not Python. So work is recorded only if a watched step changed
nothing on the Python side: no attribute of a module (a step counter), no address of a
buffer, no random state of `random`, NumPy or torch on the CPU; and if it did not wait for
a value of the GPU (`.item()`, data-dependent control flow). Any other network trains step
by step, with the reason in the trainer's log. State outside a network's modules (a counter
of its class) goes unnoticed. Random draws on the GPU continue correctly: a replay uses the
current state of its generators and advances it.
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
"""Takes a step on the training images at these indices, with their targets.

Returns outputs and loss, of one network or, with a first dimension, of several.
"""
Result = TypeVar("Result")
MemoryPool = Any
"""torch's handle for the memory that recordings share; None for separate memory."""

LONGEST = 32
"""Steps of a stretch: enough to make Python's share small, without delaying signs of life."""
WARM = 2
"""Warm-up steps before the watched one. Each kernel must have run before it is recorded."""


COMPARED = (bool, int, float, str, list, tuple, dict, set)
"""Types of attributes that a network may change between epochs, and that can be compared."""
AHEAD = 2
"""Stretches queued on the GPU; without a limit a whole epoch would be queued in a moment."""

_WATCHED: set[Hashable] = set()
"""Kinds of steps, with their batch size, that a replay was seen to repeat completely."""


class Graph:
    """Work on constant shapes, which is watched once, then recorded and replayed."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        generators: Sequence[torch.Generator],
        pool: MemoryPool,
    ) -> None:
        """`generators` are those that the work draws from, beside torch's own for the GPU.

        Recordings that share a pool share the memory of intermediate results. That is safe
        because they are replayed one after the other and their results are copied at once.
        """
        self._models, self._generators, self._pool = models, generators, pool
        self._device = next(iter(models[0].parameters())).device
        self.obstacle = ""
        """Why nothing is recorded; empty if recording is possible."""
        self._recordings: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensors, Tensors]] = {}
        self._state: Hashable = None

    def begin(self) -> None:
        """Drop recordings if the networks have changed since.

        Weights may have moved, or be frozen from some epoch on; a network may count epochs.
        """
        if self.obstacle:
            return
        state = _state(self._models)
        if state != self._state:
            self._recordings, self._state = {}, state

    def refuse(self, reason: str) -> None:
        """Stop recording, and log the reason."""
        self.obstacle, self._recordings = reason, {}
        logger.warning("This network is not recorded as a CUDA graph, and is slower: %s.", reason)

    def watched(self, work: Callable[[], Result]) -> Result:
        """Do the work once, and check whether a replay would do the same."""
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
        """Record the work if necessary and replay it; return None if it cannot be recorded."""
        # A recording captures the current device, whatever device the tensors are on.
        with torch.cuda.device(self._device):
            if kind not in self._recordings and not self._record(kind, work, inputs):
                return None
            graph, places, results = self._recordings[kind]
            for place, given in zip(places, inputs, strict=True):
                place.copy_(given)
            graph.replay()
            return tuple(result.clone() for result in results)

    def _record(self, kind: Hashable, work: Callable[..., Tensors], inputs: Tensors) -> bool:
        # Collect garbage now, so that the collector frees nothing during the recording:
        # destroying the graph of an ended trial would abort it.
        gc.collect()
        collecting = gc.isenabled()
        gc.disable()
        try:
            places = tuple(given.clone() for given in inputs)
            self._recordings[kind] = self._captured(work, places, self._pool)
        # A network is other people's code; failing to record it raises errors of many types.
        except Exception as error:  # noqa: BLE001
            text = str(error).strip().partition("\n")[0]
            self.refuse(f"CUDA could not record it: {type(error).__name__}: {text}")
        finally:
            if collecting:
                gc.enable()
        # Outside the handler, where the error would still hold the memory of what failed.
        if self.obstacle:
            self._recover()
        return not self.obstacle

    def _recover(self) -> None:
        """Release generators from a failed recording, which they expect to end.

        A tiny successful recording ends it. If even that fails, the next draw raises, and the
        trial continues from its checkpoint in another process.
        """
        with contextlib.suppress(RuntimeError):
            one = torch.zeros(1, device=self._device)
            self._captured(lambda place: (place.add(1),), (one,), None)

    def _captured(
        self, work: Callable[..., Tensors], places: Tensors, pool: MemoryPool
    ) -> tuple[torch.cuda.CUDAGraph, Tensors, Tensors]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # Capture only this thread's calls, because another thread copies checkpoints.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = work(*places)
        return graph, places, results


@contextmanager
def _waits() -> Iterator[list[str]]:
    """Yield a list that collects the places at which this thread waits for the GPU.

    The mode and the warnings handler are process-wide, so waits of other threads must be ignored:
    the thread that writes checkpoints waits for the GPU as it copies.
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
    """Takes an epoch's steps, of one network or a pack, by recordings where possible."""

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        models: Sequence[nn.Module],
        generators: Sequence[torch.Generator],
        kind: Hashable = None,
    ) -> None:
        """If this kind of step was watched in this process before, it is recorded at once."""
        self._optimizers = optimizers
        self._kind = kind
        self.graph = Graph(models, generators, torch.cuda.graph_pool_handle())
        self._seen: dict[Hashable, int] = {}
        """How many steps of each batch size were taken one by one."""

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
    """Computes a network's outputs for the same images repeatedly, as its weights change."""

    def __init__(self, model: nn.Module, pool: MemoryPool) -> None:
        self.graph = Graph([model], (), pool)
        self._seen = 0

    def outputs(self, forward: Callable[[], Tensor]) -> Tensor:
        """Return the result of `forward`, which must be the same work each time."""
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
    """Cut an epoch's batches into stretches of equal batches: (first, last + 1, batch size).

    Stretches of the same batch size are as equal as possible, so that few are recorded.
    """
    found = []
    first = 0
    for size, group in groupby(stop - start for start, stop in bounds):
        count = len(list(group))
        parts = -(-count // LONGEST)
        # The longer ones first: 49 steps become 25 and 24.
        for part in range(parts):
            steps = count // parts + (part < count % parts)
            found.append((first, first + steps, size))
            first += steps
    return found


def _python_side(models: Sequence[nn.Module]) -> Hashable:
    """Return all state that work on a GPU may change, except the content of tensors there.

    Raises ObstacleError if a network has attributes that cannot be compared.
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
    """Return addresses of weights and buffers, which are trained, and plain module attributes.

    This determines what a replay reads and writes, so it is checked before each epoch.
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
