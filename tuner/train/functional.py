"""Packs of any networks, trained as one program by torch.func.

    weights, buffers: (members, ...) ──┐
    images:   (members, images, ...) ──┼─> vmap of the first member's forward ──> outputs of all
    dropout's masks, member by member ─┘        backward by autograd, once for all members

`torch.func.vmap` turns a forward pass written for one network into one for many. Each
member keeps its own state: weights, buffers and gradients are rows of stacked tensors,
dropout is drawn from each member's generator (the same draws as alone), and losses are
computed member by member, because they may differ.

Batched kernels sum in another order, so a member agrees with the same network alone
up to rounding, and its last digits depend on the number of members. Checkpoint keys
keep such trainings apart (`Run.together`).
"""

import copy
import enum
import inspect
import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tuner.train.losses import Loss
from tuner.train.optimizers import Piece
from tuner.train.stack import HOOKS

if TYPE_CHECKING:
    from tuner.train.precision import Arithmetic

TRIED = frozenset({"cpu", "cuda"})
"""Kinds of devices on which packs by torch.func were compared with single networks."""
ROUNDING = {"fp32": 1e-3, "bf16": 0.1}
"""How much a gradient may differ from that of the same network alone, relative to the largest.

It distinguishes rounding from a different computation, such as another dropout mask.
"""
REASONS = (
    (".item()", "its computation depends on values of the data"),
    ("data-dependent", "its computation depends on values of the data"),
    ("random", "it draws random numbers by other means than dropout"),
    ("autograd.Function", "it has a custom autograd function without a rule for vmap"),
    ("inplace arithmetic", "it writes into a tensor that all trials would share"),
    ("doesn't match the broadcast shape", "it writes into a tensor that all trials would share"),
)
"""Fragments of torch's messages, and what they mean for the user."""
PLAIN = frozenset(vars(nn.Module()))
"""Attributes of every module; any other is the network's own."""


class ObstacleError(Exception):
    """A network cannot be trained in a pack; the message says why."""


class PackLearner(Protocol):
    """What a pack needs of its members; implemented by `learners.Autograd`."""

    model: nn.Module
    loss: Loss
    arithmetic: "Arithmetic"
    pack: "FunctionalPack | None"


@dataclass(frozen=True)
class DropoutCall:
    """A call of dropout in a forward pass: the shape drawn there, and its memory layout."""

    shape: torch.Size
    order: tuple[int, ...]
    """Dimensions from the outermost in memory to the innermost."""
    dtype: torch.dtype
    rate: float
    """0 if nothing is drawn."""


class FunctionalPack:
    """Networks of one signature that take their steps together, each with its own loss."""

    def __init__(self, learners: Sequence[PackLearner]) -> None:
        # No reference to the learners: a cycle would keep the memory of a pack that has ended.
        self._models = [one.model for one in learners]
        self._losses = [one.loss for one in learners]
        self._arithmetic = learners[0].arithmetic
        self._weights: dict[str, Tensor] = {}
        self._fixed: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        self._members: list[Sequence[nn.Parameter]] = []
        """The networks' own weights, in the order of `_weights`."""
        self._without: frozenset[int] = frozenset()
        """Indices of weights that had no gradient in the last step."""
        self._sites: dict[torch.Size, Sequence[Sequence[DropoutCall]]] = {}
        self._shares: dict[Hashable, list[Tensor]] = {}
        self.generators: Sequence[torch.Generator] = ()
        """Each member's generator for dropout; the same objects throughout the pack's life."""
        self._program = _program(self._models[0])
        self._move_weights()
        device = next(iter(self._weights.values())).device
        self.generators = [torch.Generator(device) for _ in learners]
        for one in learners:
            one.pack = self

    def begin(self, steps: int, seeds: Sequence[int]) -> AbstractContextManager[object]:  # noqa: ARG002
        """Start an epoch in which each member draws from its own seed."""
        for model in self._models:
            # Validation left them in evaluation mode, and a recording holds for one mode only.
            model.train()
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.manual_seed(seed)
        return nullcontext()

    def learn(self, images: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of every member's batch, and leave the gradients.

        Images are (members, images, channels, height, width).
        """
        masks = self.masks(images)
        with self._computing(images.device):
            computed = self._program(self._weights, self._fixed, masks, images)
        outputs = computed.float()
        leaf = outputs.detach().requires_grad_()
        values = self._values(leaf, targets)
        values.backward(torch.ones_like(values))  # type: ignore[no-untyped-call]
        gradients = torch.autograd.grad(
            outputs, list(self._weights.values()), leaf.grad, allow_unused=True
        )
        self._keep(gradients)
        return leaf.detach(), values.detach()

    def _values(self, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Return every member's loss."""
        value = self._losses[0].value
        if outputs.is_cuda and all(loss.value is value for loss in self._losses):
            # On a GPU, one member's few numbers take as long as those of all members.
            together: Tensor = vmap(value)(outputs, torch.stack(list(targets)))
            return together
        # One by one: losses may differ, and cost next to nothing compared with the network.
        pairs = zip(self._losses, outputs.unbind(), targets, strict=True)
        return torch.stack([loss.value(one, true) for loss, one, true in pairs])

    def pieces(self, member: int) -> Sequence[Piece]:  # noqa: ARG002
        """Return nothing: all gradients are stored in the weights."""
        return ()

    def _move_weights(self) -> None:
        """Move weights and buffers of all members into rows, of which the networks get views."""
        for name, own in _named(nn.Module.named_parameters, self._models):
            rows = _rows([one.data for one in own])
            for one, row in zip(own, rows, strict=True):
                one.data = row
            if own[0].requires_grad:
                gradients = _rows([torch.zeros_like(one.data) for one in own])
                for one, gradient in zip(own, gradients, strict=True):
                    one.grad = gradient
                self._weights[name] = rows.requires_grad_()
                self._gradients.append(gradients)
                self._members.append(own)
            else:
                self._fixed[name] = rows
        for name, own in _named(nn.Module.named_buffers, self._models):
            self._fixed[name] = rows = _rows(own)
            for one, row in zip(own, rows, strict=True):
                one.data = row

    def _keep(self, gradients: Sequence[Tensor | None]) -> None:
        """Copy gradients to where the optimizers expect them; some weights have none."""
        without = frozenset(at for at, gradient in enumerate(gradients) if gradient is None)
        for at in without ^ self._without:
            for one, gradient in zip(self._members[at], self._gradients[at], strict=True):
                one.grad = None if at in without else gradient
        self._without = without
        places = [place for at, place in enumerate(self._gradients) if at not in without]
        torch._foreach_copy_(places, [gradient for gradient in gradients if gradient is not None])

    def _computing(self, device: torch.device) -> AbstractContextManager[object]:
        if self._arithmetic.precision == "fp32":
            return nullcontext()
        # Do not cache casts: vmap computes with wrappers that are invalid after the call.
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)

    def masks(self, images: Tensor) -> list[Tensor]:
        """Draw dropout masks for a batch, in the order in which each member draws alone."""
        if images.shape not in self._sites:
            self._sites[images.shape] = self._look(images)
        sites = self._sites[images.shape]
        if images.is_cuda and sites:
            return self._masks_at_once(sites, images.device)
        masks = []
        for site in sites:
            shape = [site[0].shape[place] for place in site[0].order]
            drawn = torch.ones(len(site), *shape, dtype=site[0].dtype, device=images.device)
            mask = drawn.permute(0, *_inverse(site[0].order))
            for member, generator, own in zip(site, self.generators, mask, strict=True):
                if member.rate:
                    kept = 1 - member.rate
                    own.bernoulli_(kept, generator=generator).div_(kept)
            masks.append(mask)
        return masks

    def _masks_at_once(
        self, sites: Sequence[Sequence[DropoutCall]], device: torch.device
    ) -> list[Tensor]:
        """Draw a member's masks for all layers in one call: on a GPU every call costs the same."""
        kept = self._kept_shares(sites, device)
        sizes = [site[0].shape.numel() for site in sites]
        drawn = torch.empty(len(self.generators), sum(sizes), device=device)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.uniform_(generator=generator)
        masks = []
        parts = torch.split(drawn, sizes, dim=1)
        for site, part, share in zip(sites, parts, kept, strict=True):
            mask = ((part < share) / share).to(site[0].dtype)
            shape = [site[0].shape[place] for place in site[0].order]
            masks.append(mask.view(-1, *shape).permute(0, *_inverse(site[0].order)))
        return masks

    def _kept_shares(
        self, sites: Sequence[Sequence[DropoutCall]], device: torch.device
    ) -> list[Tensor]:
        """Return each member's share of kept units at each site, (members, 1); made once.

        Python numbers cannot be sent to a GPU while a step is being recorded.
        """
        shares = tuple(tuple(1 - member.rate for member in site) for site in sites)
        if shares not in self._shares:
            self._shares[shares] = [torch.tensor(row, device=device)[:, None] for row in shares]
        return self._shares[shares]

    def _look(self, images: Tensor) -> Sequence[Sequence[DropoutCall]]:
        """Find where each member draws for a batch of this size, using a copy of its network."""
        first = _sites(self._models[0], images[0], self._arithmetic)
        if not first:
            return ()
        others = [
            _sites(model, some, self._arithmetic)
            for model, some in zip(self._models[1:], images[1:], strict=True)
        ]
        return list(zip(first, *others, strict=True))


def part(model: nn.Module) -> None:
    """Take a network out of its pack: its weights and buffers get their own memory."""
    for weight in model.parameters():
        weight.data = weight.data.clone()
        weight.grad = None
    for buffer in model.buffers():
        buffer.data = buffer.data.clone()


def signature(model: nn.Module) -> Hashable:
    """Return what networks must have in common to form a pack; dropout rates may differ.

    Raises ObstacleError if that cannot be determined.
    """
    found: list[Hashable] = []
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module).__name__
        if any(getattr(module, hooks) for hooks in HOOKS):
            raise ObstacleError(f"its layer {kind} has a hook")
        for key, value in sorted(vars(module).items()):
            if key not in PLAIN and not (type(module) is nn.Dropout and key == "p"):
                found.append((name, key, _comparable(value, f"{kind}.{key}")))
        found.append((name, type(module)))
    tensors = chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    for name, one in tensors:
        found.append((name, one.shape, one.stride(), one.dtype, one.requires_grad))
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ObstacleError("it has no weights to train")
    return tuple(found)


def obstacle(learner: PackLearner, images: Tensor, targets: Tensor) -> str:
    """Return why a network cannot join a pack, or an empty text; tries a pack of copies.

    Images are two batches, (2, images, ...), targets are (2, images).
    """
    try:
        signature(learner.model)
        with torch.random.fork_rng(devices=[]):
            _compare(learner, images, targets)
    except ObstacleError as reason:
        return str(reason)
    # The network is other people's code, and torch raises errors of many types.
    except Exception as error:  # noqa: BLE001
        text = str(error).strip()
        for sign, reason_in_words in REASONS:
            if sign in text:
                return reason_in_words
        return f"torch.func fails on it: {type(error).__name__}: {text.partition(chr(10))[0]}"
    return ""


def kept_bytes(learner: PackLearner, images: Tensor, targets: Tensor) -> int:
    """Return how many bytes a batch leaves for the way back, on a copy of the network."""
    kept: dict[int, int] = {}

    def note(one: Tensor) -> Tensor:
        kept[one.data_ptr()] = one.numel() * one.element_size()
        return one

    model = copy.deepcopy(learner.model).train()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(note, lambda one: one),
        learner.arithmetic.training(images.device),
    ):
        learner.loss.value(model(learner.arithmetic.arranged(images)).float(), targets)
    return sum(kept.values())


def _program(model: nn.Module) -> Callable[..., Tensor]:
    """Return a network's forward pass for all members at once, over stacked tensors by name."""
    frame = copy.deepcopy(model).to("meta").train()

    def forward(
        weights: Mapping[str, Tensor],
        fixed: Mapping[str, Tensor],
        masks: Sequence[Tensor],
        images: Tensor,
    ) -> Tensor:
        with _Masked(masks) if masks or images.is_cuda else nullcontext():
            computed: Tensor = functional_call(frame, (dict(weights), dict(fixed)), (images,))
        return computed

    # No random numbers may be drawn inside: members would share them, or ignore their seeds.
    program: Callable[..., Tensor] = vmap(forward, randomness="error")
    return program


class _Masked(TorchFunctionMode):
    """Applies prepared masks in place of dropout; works around vmap's batch norm on a GPU."""

    def __init__(self, masks: Sequence[Tensor]) -> None:
        super().__init__()
        self._masks = iter(masks)

    def __torch_function__(
        self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.dropout:
            given = args[0] if args else kwargs["input"]
            return given * next(self._masks)
        if func is functional.batch_norm and args and args[0].is_cuda:
            # Statistics stay in 32 bits under bf16, but vmap's rule requires one type for all.
            return func(args[0].float(), *args[1:], **(kwargs or {})).to(args[0].dtype)
        return func(*args, **(kwargs or {}))


class _Watched(TorchFunctionMode):
    """Records where dropout draws."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[DropoutCall] = []

    def __torch_function__(
        self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.dropout:
            called = inspect.signature(functional.dropout).bind(*args, **(kwargs or {}))
            called.apply_defaults()
            given = called.arguments
            self._note(given["input"], given["p"] if given["training"] else 0.0)
        return func(*args, **(kwargs or {}))

    def _note(self, given: Tensor, rate: float) -> None:
        if rate == 1:
            raise ObstacleError("dropout = 1 drops every unit")
        self.sites.append(DropoutCall(given.shape, _order(given), given.dtype, rate))


def _sites(model: nn.Module, images: Tensor, arithmetic: "Arithmetic") -> list[DropoutCall]:
    watched = _Watched()
    alone = copy.deepcopy(model).train()
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        arithmetic.training(images.device),
        watched,
    ):
        alone(arithmetic.arranged(images))
    return watched.sites


def _compare(learner: PackLearner, images: Tensor, targets: Tensor) -> None:
    """Take a step with a pack of two copies, and with each of two others alone."""
    ours, theirs = (
        [Copied(copy.deepcopy(learner.model), learner.loss, learner.arithmetic) for _ in range(2)]
        for _ in range(2)
    )
    for one in (ours[1], theirs[1]):
        # Identical members would hide a mix-up.
        for weight in one.model.parameters():
            weight.data.mul_(1.25)
    pack = FunctionalPack(ours)
    pack.begin(1, [0, 1])
    # On a GPU, dropout alone draws in another order; runs that may be packed always train as a
    # pack there.
    masks = pack.masks(images) if images.is_cuda else []
    pack.begin(1, [0, 1])
    outputs, _ = pack.learn(images, list(targets))
    for seed, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        torch.manual_seed(seed)
        other.model.train()
        drawn = _Masked([mask[seed] for mask in masks]) if masks else nullcontext()
        with learner.arithmetic.training(images.device), drawn:
            computed = other.model(learner.arithmetic.arranged(images[seed])).float()
        learner.loss.value(computed, targets[seed]).backward()  # type: ignore[no-untyped-call]
        share = ROUNDING[learner.arithmetic.precision]
        _agree(_gradients(one.model), _gradients(other.model), share)
        buffers = [dict(model.named_buffers()) for model in (one.model, other.model)]
        found, wanted = {"outputs": outputs[seed]}, {"outputs": computed.detach()}
        _agree(found | buffers[0], wanted | buffers[1], share)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def _agree(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], share: float) -> None:
    """Raise if tensors differ by more than a share of the largest number in any of them."""
    if set(found) != set(wanted):
        raise ObstacleError("other weights would be trained in a pack than alone")
    pairs = [(found[name].double(), one.double()) for name, one in wanted.items() if one.numel()]
    most = max((float(one.abs().max()) for _, one in pairs), default=0.0)
    apart = max((float((mine - one).abs().max()) for mine, one in pairs), default=0.0)
    # Not `apart > …`, which would be false for a NaN.
    if not apart <= share * most:
        raise ObstacleError("in a pack its results differ from those alone by more than rounding")


@dataclass
class Copied:
    """A copy of a learner's network for trying a pack."""

    model: nn.Module
    loss: Loss
    arithmetic: "Arithmetic"
    pack: FunctionalPack | None = None


def _named(
    each: Callable[[nn.Module], Any], models: Sequence[nn.Module]
) -> list[tuple[str, list[Any]]]:
    """Return the members' tensors by name; tied weights appear once, under their first name."""
    every = [dict(each(model)) for model in models]
    return [(name, [own[name] for own in every]) for name in every[0]]


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """Stack copies of tensors, keeping their memory layout."""
    one = parts[0]
    if not one.permute(_order(one)).is_contiguous():
        raise ObstacleError("a weight or buffer does not lie in one piece")
    # Contiguous rows: otherwise vmap's rule for batch norm would update a copy of its buffers.
    room = one.new_zeros(len(parts) * one.numel())
    rows = room.as_strided((len(parts), *one.shape), (one.numel(), *one.stride()))
    for row, own in zip(rows, parts, strict=True):
        row.copy_(own)
    return rows


def _order(one: Tensor) -> tuple[int, ...]:
    return tuple(sorted(range(one.ndim), key=one.stride, reverse=True))


def _inverse(order: Sequence[int]) -> list[int]:
    """Return the permutation of stacked tensors that undoes a permutation of one tensor."""
    return [1 + order.index(place) for place in range(len(order))]


def _comparable(value: object, where: str) -> Hashable:
    """Return an attribute as a value that is equal if networks compute the same."""
    if value is None or isinstance(value, bool | int | float | str | bytes | enum.Enum):
        return type(value), value
    if isinstance(value, torch.dtype | torch.device | type):
        return value
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.ModuleType):
        return value
    if isinstance(value, tuple | list):
        return type(value), tuple(_comparable(one, where) for one in value)
    if isinstance(value, dict):
        return tuple((repr(key), _comparable(one, where)) for key, one in value.items())
    raise ObstacleError(
        f"{where} is a {type(value).__name__}, whose effect on the network is not known"
    )
