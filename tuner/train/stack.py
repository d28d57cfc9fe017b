"""Stacks of plain layers that learn without autograd, alone or several as a pack.

Half of a small network's step by autograd is bookkeeping: a graph is built for
every batch and traversed backwards, gradients are allocated and freed, and an
optimizer visits each weight. A stack of known layers needs none of that: their
derivatives are called one after the other, gradients are written in place, and
weights and gradients are one tensor each, so that the optimizer has a single
tensor to update.

Stacks of equal shapes can take their steps together, as a `Pack`: one call of
each kernel for all of them, on tensors that have the members as their first
dimension. A stack alone is a pack of one, whose tensors lack that dimension. On a
CPU no bit of a member depends on the other members, or on how many there are.

The results are autograd's up to rounding. Only dropout draws differently: for many
batches at once, from a generator that each member seeds for each epoch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tuner.train import products
from tuner.train.losses import Loss
from tuner.train.optimizers import Piece
from tuner.train.products import product

DRAWN_ROWS = 2048
"""How many images dropout is drawn for at a time; larger draws gain nothing more."""
LARGE = 1 << 20
"""Layers with this many weights (4 MB) or more are traversed only once per step."""
PIECE = 1 << 18
"""Weights of a piece: 1 MB."""
FEWEST_ROWS = 64
"""Rows of a piece: products of fewer do not use the processor well."""
ALIGNED = 16
"""Alignment of weights, in numbers: 64 bytes, the largest vector register of any CPU."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Layer(Protocol):
    """One layer of all members, with its forward and backward pass.

    Tensors are (members, images, ...), or (images, ...) for one member alone; what the
    backward pass needs is saved in between.
    """

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None:
        """Start an epoch of this many steps, each member with its own generator."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's outputs for a batch; the inputs may be overwritten."""

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:
        """Store the weights' gradients and return the inputs', except in the first layer."""


class _Flatten:
    def __init__(self, pack: "Pack", _modules: Sequence[nn.Module]) -> None:
        self._start = 1 if pack.alone else 2
        self._shape: torch.Size

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        self._shape = inputs.shape
        return inputs.flatten(self._start)

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:
        return gradient if first else gradient.view(self._shape)


class _Linear:
    def __init__(self, pack: "Pack", modules: Sequence[nn.Linear]) -> None:
        weight, *bias = modules[0].parameters()
        self._weight, self._gradient = pack.values(weight), pack.gradients(weight)
        self._across = self._weight.mT
        self._bias = pack.values(bias[0]).unsqueeze(-2) if bias else None
        self._bias_gradient = pack.gradients(bias[0]) if bias else None
        self._inputs: Tensor

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        self._inputs = inputs
        return _product(inputs, self._across, self._bias)

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:
        _product(gradient.mT, self._inputs, out=self._gradient)
        if self._bias_gradient is not None:
            _sum(gradient, self._bias_gradient)
        return gradient if first else _product(gradient, self._weight)


def _product(
    left: Tensor, right: Tensor, offset: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Return each member's matrix product, with the same bits as alone."""
    if left.ndim == 2:
        return product(left, right, offset, out)
    if left.device.type == "cpu":
        # Batched products sum in another order, which depends on the sizes, and are no faster.
        offsets = [None] * len(left) if offset is None else offset
        trios = zip(map(_aligned, left), right, offsets, strict=True)
        return torch.stack([_product(*trio) for trio in trios], out=out)
    if offset is None:
        return torch.bmm(left, right, out=out)
    return torch.baddbmm(offset, left, right, out=out)


def _aligned(member: Tensor) -> Tensor:
    """Return a member's part in the layout that it has alone, which affects the rounding."""
    return member.clone() if member.data_ptr() % (4 * ALIGNED) else member


def _sum(gradient: Tensor, out: Tensor) -> None:
    """Sum over a batch's images."""
    if gradient.ndim == 3 and gradient.shape[2] == 1:
        # A sum over several rows at once rounds differently than over one.
        for one, place in zip(gradient, out, strict=True):
            torch.sum(one, 0, out=place)
    else:
        torch.sum(gradient, -2, out=out)


class _LargeLinear:
    """A linear layer whose weights do not fit in a cache: each step should traverse them once.

    Their gradient is computed in pieces of some rows, each used while it is in the cache.
    MKL's products are fastest if weights are stored by inputs, oneDNN's if by outputs.
    Members take turns: sharing calls saves nothing compared with the memory traffic.
    """

    def __init__(self, pack: "Pack", modules: Sequence[nn.Linear]) -> None:
        self._by_inputs = not products.uses_onednn()
        self._wholes = [module.weight.data.t() for module in modules]
        bias = modules[0].bias
        self._bias = None if bias is None else pack.values(bias).unsqueeze(-2)
        self._bias_gradient = None if bias is None else pack.gradients(bias)
        self._inputs: Tensor
        self._outputs_gradient: Tensor

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        self._inputs = inputs
        outputs = self._by_turns(inputs, self._wholes)
        return outputs if self._bias is None else outputs.add_(self._bias)

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:
        self._outputs_gradient = gradient
        if self._bias_gradient is not None:
            _sum(gradient, self._bias_gradient)
        return (
            gradient if first else self._by_turns(gradient, [whole.t() for whole in self._wholes])
        )

    def pieces(self, member: int, name: str) -> Iterator[Piece]:
        """Yield the gradient of one member's weights."""
        inputs, gradient = self._inputs, self._outputs_gradient
        if inputs.ndim == 3:
            inputs, gradient = _aligned(inputs[member]), _aligned(gradient[member])
        rows_of, columns_of = (inputs, gradient) if self._by_inputs else (gradient, inputs)
        rows = max(FEWEST_ROWS, PIECE // columns_of.shape[1])
        for start in range(0, rows_of.shape[1], rows):
            some = rows_of[:, start : start + rows].t()
            yield Piece(name, start, product(some, columns_of))

    def _by_turns(self, left: Tensor, right: Sequence[Tensor]) -> Tensor:
        if left.ndim == 2:
            return product(left, right[0])
        return torch.stack(
            [product(*pair) for pair in zip(map(_aligned, left), right, strict=True)]
        )


class _BatchNorm:
    """Batch norm of all members' units, as one wide layer if that does not change any bit.

    torch's kernels process units in vectors and the rest one by one, with different
    rounding; if a member's units fill whole vectors there is no rest.
    """

    def __init__(self, pack: "Pack", modules: Sequence[nn.BatchNorm1d]) -> None:
        one, self._modules = modules[0], modules
        assert one.momentum is not None
        self._momentum, self._epsilon = one.momentum, one.eps
        self._values = pack.values(one.weight), pack.values(one.bias)
        self._own_gradients = pack.gradients(one.weight), pack.gradients(one.bias)
        means, variances = torch.stack([_running(module) for module in modules], dim=1)
        for module, mean, variance in zip(modules, means, variances, strict=True):
            module.running_mean, module.running_var = mean, variance
        together = len(modules) if one.num_features % ALIGNED == 0 else 1
        self._parts = [
            _Norm(slice(at, at + together), means, variances)
            for at in range(0, len(modules), together)
        ]

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None:  # noqa: ARG002
        for module in self._modules:
            assert module.num_batches_tracked is not None
            module.num_batches_tracked += steps

    def forward(self, inputs: Tensor) -> Tensor:
        return self._by_parts(self._forward, inputs)

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        return self._by_parts(self._backward, gradient)

    def _by_parts(self, way: Callable[["_Norm", Tensor], Tensor], given: Tensor) -> Tensor:
        if len(self._parts) == 1:
            return way(self._parts[0], given)
        return torch.cat([way(part, given[part.members]) for part in self._parts])

    def _forward(self, part: "_Norm", inputs: Tensor) -> Tensor:
        part.inputs = _side_by_side(inputs)
        part.weight, bias = (_row(values, part.members) for values in self._values)
        out, part.mean, part.inverse = torch.native_batch_norm(
            part.inputs,
            part.weight,
            bias,
            part.running_mean,
            part.running_variance,
            training=True,
            momentum=self._momentum,
            eps=self._epsilon,
        )
        return _apart(out, inputs)

    def _backward(self, part: "_Norm", gradient: Tensor) -> Tensor:
        found, *weights = torch.ops.aten.native_batch_norm_backward(
            _side_by_side(gradient),
            part.inputs,
            part.weight,
            part.running_mean,
            part.running_variance,
            part.mean,
            part.inverse,
            True,
            self._epsilon,
            [True, True, True],
        )
        for place, value in zip(self._own_gradients, weights, strict=True):
            own = place if place.ndim == 1 else place[part.members]
            own.copy_(value.view(own.shape))
        return _apart(found, gradient)


class _Norm:
    """Some members' units as one layer, with what their backward pass needs."""

    def __init__(self, members: slice, means: Tensor, variances: Tensor) -> None:
        self.members = members
        self.running_mean = means[members].view(-1)
        self.running_variance = variances[members].view(-1)
        self.inputs: Tensor
        self.weight: Tensor
        self.mean: Tensor
        self.inverse: Tensor


def _running(module: nn.BatchNorm1d) -> Tensor:
    assert module.running_mean is not None
    assert module.running_var is not None
    return torch.stack((module.running_mean, module.running_var))


def _row(values: Tensor, members: slice) -> Tensor:
    """Return some members' values as one row."""
    return values if values.ndim == 1 else values[members].reshape(-1)


def _side_by_side(values: Tensor) -> Tensor:
    """Return (images, members x units) from (members, images, units)."""
    return values if values.ndim == 2 else values.transpose(0, 1).flatten(1)


def _apart(wide: Tensor, before: Tensor) -> Tensor:
    """Undo `_side_by_side` for a tensor of this shape."""
    if before.ndim == 2:
        return wide
    members, images, units = before.shape
    return wide.view(images, members, units).transpose(0, 1)


class _ReLU:
    def __init__(self, _pack: "Pack", _modules: Sequence[nn.Module]) -> None:
        self._outputs: Tensor

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None: ...

    def forward(self, inputs: Tensor) -> Tensor:
        # Dropout may overwrite it afterwards: what it sets to 0 has no gradient either way.
        self._outputs = inputs.relu_()
        return self._outputs

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        found: Tensor = torch.ops.aten.threshold_backward(gradient, self._outputs, 0)
        return found


class _Dropout:
    """Dropout; each member draws from its own generator for the epoch, layer by layer."""

    def __init__(self, _pack: "Pack", modules: Sequence[nn.Dropout]) -> None:
        self._kept = [1 - module.p for module in modules]
        self._chances: Sequence[torch.Generator] = ()
        self._drawn: Tensor | None = None
        self._used = 0
        self._mask: Tensor

    def begin(self, steps: int, chances: Sequence[torch.Generator]) -> None:  # noqa: ARG002
        self._chances, self._drawn = chances, None

    def forward(self, inputs: Tensor) -> Tensor:
        count = inputs.shape[-2]
        if self._drawn is None or self._used + count > self._drawn.shape[-2]:
            self._drawn, self._used = self._draw(inputs, max(DRAWN_ROWS, count)), 0
        self._mask = self._drawn[..., self._used : self._used + count, :]
        self._used += count
        return inputs.mul_(self._mask)

    def backward(self, gradient: Tensor, *, first: bool) -> Tensor:  # noqa: ARG002
        return gradient * self._mask

    def _draw(self, inputs: Tensor, rows: int) -> Tensor:
        drawn = inputs.new_empty(len(self._kept), rows, inputs.shape[-1])
        for mask, kept, chance in zip(drawn, self._kept, self._chances, strict=True):
            if kept == 1:
                mask.fill_(1)  # a rate of 0 draws nothing, as when alone
            else:
                mask.bernoulli_(kept, generator=chance).mul_(1 / kept)
        return drawn[0] if inputs.ndim == 2 else drawn


KINDS: Mapping[type[nn.Module], Callable[["Pack", Any], Layer]] = {
    nn.Flatten: _Flatten,
    nn.Linear: _Linear,
    nn.BatchNorm1d: _BatchNorm,
    nn.ReLU: _ReLU,
    nn.Dropout: _Dropout,
}


PLAIN = ", ".join(kind.__name__ for kind in KINDS)


def layers_of(model: nn.Module) -> Sequence[nn.Module] | None:
    """Return the layers of a network that can learn as a stack; None for any other network."""
    return None if obstacle(model) else list(model.children())


def obstacle(model: nn.Module) -> str:
    """Return why a network cannot learn as a stack; empty if it can."""
    if type(model) is not nn.Sequential:
        return f"{type(model).__name__} is not a plain nn.Sequential"
    layers = list(model)
    odd = [layer for layer in layers if not _is_plain(layer)]
    if odd:
        return f"{type(odd[0]).__name__} is none of {PLAIN}, or not with usual settings"
    flattens = [type(layer) is nn.Flatten for layer in layers]
    # The layers' passes are written for one row of numbers an image.
    if any(flattens) and not flattens[0]:
        return "it flattens its inputs after the first layer"
    if any(getattr(one, hooks) for one in (model, *layers) for hooks in HOOKS):
        return "a layer has a hook"
    weights = [weight for layer in layers for weight in layer.parameters()]
    # A weight shared by two layers would be updated by the second one's gradient only.
    if len(set(map(id, layers))) < len(layers) or len(set(map(id, weights))) < len(weights):
        return "a layer, or a weight, is used twice"
    if not all(weight.requires_grad and weight.dtype == torch.float32 for weight in weights):
        return "a weight is not trained, or not in 32 bits"
    if not any(type(layer) is nn.Linear for layer in layers):
        return "it has no linear layer"
    return ""


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
    """A network of such layers under one loss; its weights are moved into one tensor."""

    note = "by hand-written derivatives: a stack of plain layers"

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], loss: Loss) -> None:
        self.model, self.layers, self.loss = model, layers, loss
        self.large: dict[nn.Linear, str] = {}
        for module in layers:
            # On a GPU, more and smaller calls gain nothing.
            if not isinstance(module, nn.Linear) or module.weight.device.type != "cpu":
                continue
            if module.weight.numel() >= LARGE:
                self.large[module] = f"large.{len(self.large)}"
        apart = {module.weight for module in self.large}
        small = [one for m in layers for one in m.parameters() if one not in apart]
        self.places = _places(small)
        self.weights = {name: _by_rows(module) for module, name in self.large.items()}
        if small:
            self.weights["all"] = nn.Parameter(small[0].new_empty(_end(self.places)))
        self.pack: Pack | None = None
        """The pack of its last step. A pack has no reference to its stacks, so a stack that ends
        is freed at once, with its last pack."""
        self._place = 0

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for stacks that may be packed together."""
        return tuple(_shape(module) for module in self.layers)

    def begin(self, steps: int, seed: int) -> AbstractContextManager[object]:
        """Begin an epoch, alone."""
        if self.pack is None or not self.pack.alone:
            Pack([self])
        return self._mine.begin(steps, [seed])

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""
        return self._mine.learn(images, [targets])

    def pieces(self) -> Iterator[Piece]:
        """Yield the gradients of large layers, piece by piece."""
        return self._mine.pieces(self._place)

    def evaluate(self, images: Tensor) -> Tensor:
        """Return the outputs of the network, which is in evaluation mode."""
        outputs = images
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                outputs = product(outputs, layer.weight.mT, layer.bias)
            else:
                outputs = layer(outputs)
        return outputs

    @property
    def _mine(self) -> "Pack":
        assert self.pack is not None
        return self.pack

    def join(self, pack: "Pack", place: int) -> None:
        """Take all further steps as this member of a pack."""
        self.pack, self._place = pack, place

    def move_weights(self, values: Tensor, gradients: Tensor) -> None:
        """Move all weights except those of large layers into one tensor, gradients into another.

        The network's weights, and those of the optimizer, become views of it.
        """
        whole = self.weights["all"]
        for weight, start in self.places.items():
            part = slice(start, start + weight.numel())
            weight.data = values[part].view(weight.shape).copy_(weight.data)
            weight.grad = gradients[part].view(weight.shape)
        whole.data, whole.grad = values, gradients


class Pack:
    """Stacks of one shape that take their steps together, each with its own loss."""

    def __init__(self, stacks: Sequence[Stack]) -> None:
        first = stacks[0]
        self.alone = len(stacks) == 1
        self._places, self._names = first.places, list(first.large.values())
        self._models = [one.model for one in stacks]
        self._losses = [one.loss for one in stacks]
        if first.places:
            room = len(stacks), _end(first.places)
            # The padding between weights is 0 and never changes, because it has no gradient.
            self._values = first.weights["all"].data.new_zeros(room)
            self._gradients = torch.zeros_like(self._values)
            for stack, row, gradients in zip(stacks, self._values, self._gradients, strict=True):
                stack.move_weights(row, gradients)
        for place, stack in enumerate(stacks):
            stack.join(self, place)
        self._layers: list[Layer] = []
        self._large: list[_LargeLinear] = []
        self._way_back: list[tuple[Layer, bool]] = []
        for modules in zip(*(one.layers for one in stacks), strict=True):
            if all(isinstance(one, nn.Dropout) and one.p == 0 for one in modules):
                continue  # dropout with rate 0 does nothing
            layer: Layer
            if modules[0] in first.large:
                layer = large = _LargeLinear(self, modules)
                self._large.append(large)
            else:
                layer = KINDS[type(modules[0])](self, modules)
            # Layers before the first one with weights need no gradient of their inputs.
            is_first = not self._way_back
            if not is_first or list(modules[0].parameters()):
                self._way_back.insert(0, (layer, is_first))
            self._layers.append(layer)

    def begin(self, steps: int, seeds: Sequence[int]) -> AbstractContextManager[object]:
        """Start an epoch of this many steps; each member has its own seed for the epoch."""
        device = next(self._models[0].parameters()).device
        chances = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        for model in self._models:
            model.train()
        for layer in self._layers:
            layer.begin(steps, chances)
        return torch.inference_mode()

    def learn(self, images: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return outputs and losses of each member's batch; gradients are left in the weights."""
        outputs = images
        for layer in self._layers:
            outputs = layer.forward(outputs)
        values, gradient = self._values_and_gradients(outputs, targets)
        for layer, first in self._way_back:
            gradient = layer.backward(gradient, first=first)
        return outputs, values

    def pieces(self, member: int) -> Iterator[Piece]:
        """Yield the gradients of a member's large layers, piece by piece."""
        for layer, name in zip(self._large, self._names, strict=True):
            yield from layer.pieces(member, name)

    def values(self, weight: nn.Parameter) -> Tensor:
        """Return a weight of all members, identified by the first member's."""
        return self._of(self._values, weight)

    def gradients(self, weight: nn.Parameter) -> Tensor:
        """Return the gradients of a weight of all members."""
        return self._of(self._gradients, weight)

    def _of(self, rows: Tensor, weight: nn.Parameter) -> Tensor:
        start = self._places[weight]
        found = rows[:, start : start + weight.numel()].view(len(rows), *weight.shape)
        return found[0] if self.alone else found

    def _values_and_gradients(
        self, outputs: Tensor, targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if self.alone:
            return self._losses[0].value_and_gradient(outputs, targets[0])
        # One by one: exponentials of whole vectors and of the rest differ in their last bits.
        trios = zip(self._losses, outputs, targets, strict=True)
        found = [loss.value_and_gradient(one, true) for loss, one, true in trios]
        values, gradients = zip(*found, strict=True)
        return torch.stack(values), torch.stack(gradients)


def _places(weights: Sequence[nn.Parameter]) -> dict[nn.Parameter, int]:
    """Return the offset of each weight in the common tensor, aligned to vectors."""
    places, start = {}, 0
    for weight in weights:
        places[weight] = start
        start += -(-weight.numel() // ALIGNED) * ALIGNED
    return places


def _end(places: Mapping[nn.Parameter, int]) -> int:
    last, start = list(places.items())[-1]
    return start + -(-last.numel() // ALIGNED) * ALIGNED


def _by_rows(layer: nn.Linear) -> nn.Parameter:
    """Store a large layer's weights as its products need them, and return them by those rows."""
    if products.uses_onednn():
        return nn.Parameter(layer.weight.data)
    whole = nn.Parameter(layer.weight.data.t().contiguous())
    layer.weight.data = whole.data.t()
    return whole


def _shape(module: nn.Module) -> tuple[object, ...]:
    own = [tuple(one.shape) for one in module.parameters()]
    settings = (module.momentum, module.eps) if isinstance(module, nn.BatchNorm1d) else ()
    return type(module), *own, *settings
