"""A stack of plain layers that learns without autograd: each layer's way back is written out.

Half of a small network's step by autograd is bookkeeping: a graph is built for
every batch and walked back, gradients are allocated and let go, and an optimizer
visits each weight. A stack of layers that are known needs none of that: their
derivatives are called one after the other, gradients go where they stay, and
weights and gradients lie in one piece each, so that the optimizer has one to
update.

The sums are autograd's but for rounding. Only dropout draws otherwise: for many
batches at once, from the generator that the epoch has seeded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tuner.train.losses import Loss
from tuner.train.optimizers import Piece

DRAWN_ROWS = 2048
"""Images that dropout is drawn for at a time; fewer, longer draws gain nothing more."""
LARGE = 1 << 20
"""Weights of a layer from which on they are passed over once a step: 4 MB."""
PIECE = 1 << 18
"""Weights of a piece: 1 MB."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Layer(Protocol):
    """One layer's way forward and back; what the way back needs is kept in between."""

    def begin(self, steps: int) -> None:
        """Begin an epoch of so many steps."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the layer makes of a batch; the inputs may be written over."""

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:
        """Leave the weights' gradients and return the inputs', which the first layer does not."""


class _Flatten:
    def __init__(self, _module: nn.Module) -> None:
        self._shape: torch.Size

    def begin(self, steps: int) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        self._shape = inputs.shape
        return inputs.flatten(1)

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:
        return slope if first else slope.view(self._shape)


class _Linear:
    def __init__(self, module: nn.Linear) -> None:
        self._hold(module)
        self._slope = _gradient(module.weight)

    def _hold(self, module: nn.Linear) -> None:
        weight, *bias = module.parameters()
        self._weight, self._across = weight.data, weight.data.t()
        self._bias = bias[0].data if bias else None
        self._bias_slope = _gradient(bias[0]) if bias else None
        self._inputs: Tensor

    def begin(self, steps: int) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        self._inputs = inputs
        if self._bias is None:
            return torch.mm(inputs, self._across)
        return torch.addmm(self._bias, inputs, self._across)

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:
        torch.mm(slope.t(), self._inputs, out=self._slope)
        return self._back(slope, first=first)

    def _back(self, slope: Tensor, *, first: bool) -> Tensor:
        if self._bias_slope is not None:
            torch.sum(slope, 0, out=self._bias_slope)
        return slope if first else torch.mm(slope, self._weight)


class _LargeLinear(_Linear):
    """A linear layer whose weights do not fit a cache: each step should pass over them once.

    They lie by inputs, as all three products of a step want them, and their
    gradient is taken in pieces of some inputs, each used while it is in the cache.
    """

    def __init__(self, module: nn.Linear, name: str) -> None:
        weight = module.weight
        self.name = name
        self.whole = nn.Parameter(weight.data.t().contiguous())
        weight.data = self.whole.data.t()
        self._hold(module)
        self._rows = max(1, PIECE // len(weight))
        self._piece = weight.data.new_empty(self._rows, len(weight))

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:
        self._outputs_slope = slope
        return self._back(slope, first=first)

    def pieces(self) -> Iterator[Piece]:
        for start in range(0, len(self._across), self._rows):
            some = self._inputs[:, start : start + self._rows].t()
            gradient = torch.mm(some, self._outputs_slope, out=self._piece[: len(some)])
            yield Piece(self.name, start, gradient)


class _BatchNorm:
    def __init__(self, module: nn.BatchNorm1d) -> None:
        self._weight, self._bias = module.weight.data, module.bias.data
        self._slopes = _gradient(module.weight), _gradient(module.bias)
        assert module.running_mean is not None
        assert module.running_var is not None
        assert module.num_batches_tracked is not None
        self._running = module.running_mean, module.running_var
        self._seen = module.num_batches_tracked
        assert module.momentum is not None
        self._momentum, self._epsilon = module.momentum, module.eps
        self._inputs: Tensor
        self._mean: Tensor
        self._inverse: Tensor

    def begin(self, steps: int) -> None:
        self._seen += steps

    def forward(self, inputs: Tensor) -> Tensor:
        self._inputs = inputs
        out, self._mean, self._inverse = torch.native_batch_norm(
            inputs,
            self._weight,
            self._bias,
            *self._running,
            training=True,
            momentum=self._momentum,
            eps=self._epsilon,
        )
        return out

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        found, *weights = torch.ops.aten.native_batch_norm_backward(
            slope,
            self._inputs,
            self._weight,
            *self._running,
            self._mean,
            self._inverse,
            True,
            self._epsilon,
            [True, True, True],
        )
        for place, value in zip(self._slopes, weights, strict=True):
            place.copy_(value)
        slopes: Tensor = found
        return slopes


class _ReLU:
    def __init__(self, _module: nn.Module) -> None:
        self._outputs: Tensor

    def begin(self, steps: int) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        # Dropout may write over it afterwards: what it sets to 0 has no slope either way.
        self._outputs = inputs.relu_()
        return self._outputs

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        found: Tensor = torch.ops.aten.threshold_backward(slope, self._outputs, 0)
        return found


class _Dropout:
    def __init__(self, module: nn.Dropout) -> None:
        self._kept = 1 - module.p
        self._drawn: Tensor | None = None
        self._used = 0
        self._mask: Tensor

    def begin(self, steps: int) -> None:  # noqa: ARG002
        # What is drawn belongs to the epoch's own seed.
        self._drawn = None

    def forward(self, inputs: Tensor) -> Tensor:
        count = len(inputs)
        if self._drawn is None or self._used + count > len(self._drawn):
            shape = (max(DRAWN_ROWS, count), *inputs.shape[1:])
            drawn = torch.empty(shape, dtype=inputs.dtype, device=inputs.device)
            self._drawn, self._used = drawn.bernoulli_(self._kept).mul_(1 / self._kept), 0
        self._mask = self._drawn[self._used : self._used + count]
        self._used += count
        return inputs.mul_(self._mask)

    def backward(self, slope: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        return slope * self._mask


KINDS: Mapping[type[nn.Module], Callable[[Any], Layer]] = {
    nn.Flatten: _Flatten,
    nn.Linear: _Linear,
    nn.BatchNorm1d: _BatchNorm,
    nn.ReLU: _ReLU,
    nn.Dropout: _Dropout,
}


def layers_of(model: nn.Module) -> Sequence[nn.Module] | None:
    """Return the layers of a network that may learn as a stack; None for any other network."""
    if type(model) is not nn.Sequential:
        return None
    layers = list(model)
    modules = [model, *layers]
    plain = (
        all(_is_plain(layer) for layer in layers)
        and any(type(layer) is nn.Linear for layer in layers)
        and not any(getattr(one, hooks) for one in modules for hooks in HOOKS)
        and len(set(map(id, layers))) == len(layers)
    )
    weights = [weight for layer in layers for weight in layer.parameters()]
    # A weight in two layers would be updated by the gradient of the second alone.
    alone = len(set(map(id, weights))) == len(weights)
    trained = all(weight.requires_grad and weight.dtype == torch.float32 for weight in weights)
    return layers if plain and alone and trained else None


def _is_plain(layer: nn.Module) -> bool:
    # A subclass may compute anything; so may a parametrised layer, whose class is changed.
    if isinstance(layer, nn.BatchNorm1d):
        kept = layer.affine and layer.track_running_stats and layer.momentum is not None
        return type(layer) is nn.BatchNorm1d and kept
    if isinstance(layer, nn.Dropout):
        return type(layer) is nn.Dropout and layer.p < 1
    if isinstance(layer, nn.Flatten):
        return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in KINDS


class Stack:
    """A network of such layers under one loss; its weights are moved into one piece."""

    note = "by derivatives that are written out: a stack of plain layers"

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], loss: Loss) -> None:
        self._model = model
        self._loss = loss
        large = [m for m in layers if isinstance(m, nn.Linear) and m.weight.numel() >= LARGE]
        apart = {m.weight for m in large}
        small = [one for m in layers for one in m.parameters() if one not in apart]
        self.weights = {"all": _in_one_piece(small)} if small else {}
        self._large = [_LargeLinear(m, f"large.{k}") for k, m in enumerate(large)]
        self.weights |= {one.name: one.whole for one in self._large}
        made: dict[nn.Module, Layer] = dict(zip(large, self._large, strict=True))
        # Dropout of nothing is nothing to do.
        used = [m for m in layers if not (isinstance(m, nn.Dropout) and m.p == 0)]
        self._layers: list[Layer] = [made.get(m) or KINDS[type(m)](m) for m in used]
        # No layer before the first with weights needs to know its inputs' slope.
        first = next(place for place, m in enumerate(used) if list(m.parameters()))
        self._way_back = [
            (self._layers[k], k == first) for k in range(len(used) - 1, first - 1, -1)
        ]

    def begin(self, steps: int) -> AbstractContextManager[object]:
        """Begin an epoch."""
        self._model.train()
        for layer in self._layers:
            layer.begin(steps)
        return torch.inference_mode()

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""
        outputs = images
        for layer in self._layers:
            outputs = layer.forward(outputs)
        value, slope = self._loss.sloped(outputs, targets)
        for layer, first in self._way_back:
            slope = layer.backward(slope, first=first)
        return outputs, value

    def pieces(self) -> Iterator[Piece]:
        """Yield the gradients of large layers, piece by piece."""
        for layer in self._large:
            yield from layer.pieces()


def _in_one_piece(weights: Sequence[nn.Parameter]) -> nn.Parameter:
    """Move weights into one tensor, of which they become views, and so do their gradients."""
    whole = nn.Parameter(weights[0].new_empty(sum(weight.numel() for weight in weights)))
    whole.grad = torch.zeros_like(whole)
    start = 0
    for weight in weights:
        stop = start + weight.numel()
        place = whole.data[start:stop].view(weight.shape)
        weight.data = place.copy_(weight.data)
        weight.grad = whole.grad[start:stop].view(weight.shape)
        start = stop
    return whole


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad
