"""Training steps on a GPU, recorded once as a CUDA graph and replayed.

    step 1, 2      taken as they come: libraries load, memory finds its place
    step 3         taken and watched: does it do anything that a replay would not?
    step 4         recorded, and from then on each step of this size is one call

A small network's step is a hundred kernels of a few microseconds each, and Python
takes longer to launch one than the GPU to run it. A replay launches all of them at
once, on the same memory: batches and targets are copied to where the recording
reads them, outputs and the loss are copied from where it writes them.

A replay repeats kernels, not Python. So a step is recorded only if it was seen to
change nothing on the Python side: no attribute of a module (a counter of steps), no
random state of `random`, NumPy or torch on the CPU, and to wait for no value of the
GPU (`.item()`, control flow by data). Any other network trains step by step, with
the reason in `obstacle`. Draws on the GPU go on correctly: a replay takes the state
of its generators as it is then, and moves it on.
"""

import random
import warnings
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tuner.train.functional import ObstacleError, signature

Take = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes a step on the training images at some places, with their targets.

Returns outputs and loss, of one network or, with a first dimension, of several.
"""

WARM = 2
"""Steps before the watched one. Each kernel must have run before it is recorded."""


class Recorded:
    """Takes steps of the first one's size by replaying a recording, all others as they come."""

    obstacle: str
    """Why no step is recorded; empty while nothing speaks against it."""

    def __init__(
        self,
        take: Take,
        models: Sequence[nn.Module],
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """Generators are those that a step draws from, beside torch's own for the GPU."""
        self._take = take
        self._models = models
        self._generators = generators
        self.obstacle = ""
        self._taken = 0
        self._shape: torch.Size | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._addresses: list[int] = []
        self._inputs: tuple[Tensor, Tensor]
        self._results: tuple[Tensor, Tensor]

    def begin(self) -> None:
        """Begin an epoch: a recording of weights that have moved since is of no use."""
        addresses = [weight.data_ptr() for model in self._models for weight in model.parameters()]
        if addresses != self._addresses:
            self._graph, self._addresses = None, addresses

    def __call__(self, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step; the results are the caller's to keep."""
        self._shape = self._shape or places.shape
        if self.obstacle or places.shape != self._shape:
            return self._take(places, targets)
        self._taken += 1
        if self._taken <= WARM:
            return self._take(places, targets)
        if self._taken == WARM + 1:
            return self._watched(places, targets)
        if self._graph is None:
            self._record(places, targets)
            if self._graph is None:
                return self._take(places, targets)
        for place, given in zip(self._inputs, (places, targets), strict=True):
            place.copy_(given)
        self._graph.replay()
        outputs, loss = self._results
        return outputs.clone(), loss.clone()

    def _watched(self, places: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step, and see whether a replay would be the same."""
        try:
            before = _python_side(self._models)
        except ObstacleError as reason:
            self.obstacle = str(reason)
            return self._take(places, targets)
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                results = self._take(places, targets)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        if any("synchronizing" in str(warning.message) for warning in caught):
            self.obstacle = "a step waits for a value that the GPU computes"
        elif _python_side(self._models) != before:
            self.obstacle = "a step changes an attribute, or draws random numbers on the CPU"
        return results

    def _record(self, places: Tensor, targets: Tensor) -> None:
        inputs = places.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            # Only this thread's calls are part of it: checkpoints are copied by another thread.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                results = self._take(*inputs)
        # A network is other people's code; what cannot be recorded says so by errors of many kinds.
        except Exception as error:  # noqa: BLE001
            text = str(error).strip().partition("\n")[0]
            self.obstacle = f"CUDA could not record a step: {type(error).__name__}: {text}"
            return
        self._graph, self._inputs, self._results = graph, inputs, results


def _python_side(models: Sequence[nn.Module]) -> Hashable:
    """Return what a step may change beside tensors on the GPU.

    Raises ObstacleError where a network has attributes that cannot be compared.
    """
    name, keys, place, *rest = np.random.get_state()
    return (
        tuple(signature(model) for model in models),
        random.getstate(),
        (name, np.asarray(keys).tobytes(), place, *rest),
        torch.get_rng_state().numpy().tobytes(),
    )
