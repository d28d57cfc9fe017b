"""Packs by torch.func: every member trains as it does alone, to rounding, or is refused."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.records import Value
from tuner.train.functional import FunctionalPack, obstacle, signature
from tuner.train.learners import Autograd
from tuner.train.losses import choose_loss
from tuner.train.networks.declared import PARAMETERS
from tuner.train.networks.models import build
from tuner.train.optimizers import build_optimizer
from tuner.train.precision import Arithmetic
from tuner.train.recipe import read_recipe
from tuner.train.schedules import rates

SIDE, IMAGES, STEPS = 8, 9, 3
LAST = Arithmetic("fp32", channels_last=True, reason="")
BF16 = Arithmetic("bf16", channels_last=True, reason="")
SETTINGS: list[dict[str, Value]] = [
    {"loss": "ce", "optimizer": "sgd", "momentum": 0.9, "scheduler": "cosine"},
    {"loss": "focal", "focal_gamma": 2.0, "scheduler": "step", "step_size": 1, "decay": 0.5},
    {"loss": "ce", "label_smoothing": 0.1, "lr": 0.002, "scheduler": "exponential"},
    {"loss": "ce", "class_weights": "balanced", "weight_decay": 0.1, "warmup_epochs": 2},
    {"loss": "ce", "optimizer": "adamw", "weight_decay": 0.1, "scheduler": "plateau"},
]
BINARY: list[dict[str, Value]] = [{"loss": "bce"}, {"loss": "bce", "label_smoothing": 0.1}] * 2


@pytest.fixture(autouse=True)
def _thread() -> Iterator[None]:
    """Compute on one thread: two would wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Residual(nn.Module):
    """A network as an objective may define it: residual, batch norm, two kinds of dropout."""

    def __init__(self, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.again = nn.BatchNorm2d(5)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(5, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        found = self.norm(self.first(images)).relu()
        found = functional.relu(found + self.dropout(self.again(self.second(found))))
        found = functional.dropout(found.mean((2, 3)), 0.2, self.training)
        outputs: Tensor = self.last(found)
        return outputs


def cnn(outputs: int, dropout: float = 0.0) -> nn.Module:
    """Return the shipped CNN."""
    chosen = {one.name: one.default for one in PARAMETERS} | {"model": "cnn"}
    return build(chosen, (1, SIDE, SIDE), outputs)


class Member:
    """A network with its optimizer, seed and images, and its losses so far."""

    def __init__(
        self,
        make: Callable[..., nn.Module],
        seed: int,
        chosen: dict[str, Value],
        arithmetic: Arithmetic = LAST,
    ) -> None:
        self.recipe = read_recipe({"lr": 0.003, "epochs": 3, **chosen})
        loss = choose_loss(self.recipe, 2, np.array([0, 0, 1]), torch.device("cpu"))
        torch.manual_seed(seed)
        self.model = make(loss.outputs, dropout=[0.3, 0.0, 0.5][seed % 3])
        self.model.to(memory_format=torch.channels_last)
        self.seed = seed
        self.learner = Autograd(self.model, loss, arithmetic)
        self.optimizer = build_optimizer(self.recipe, self.learner.weights)
        self.losses: list[float] = []

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return its own images, fewer in the last step."""
        chance = torch.Generator().manual_seed(100 * self.seed + step)
        count = IMAGES if step < STEPS - 1 else IMAGES - 4
        images = torch.randn(count, 1, SIDE, SIDE, generator=chance)
        return images, self.learner.loss.targets(torch.arange(count) % 2)

    def take(self, epoch: int, step: int, loss: Tensor) -> None:
        """Take a step with its own rates."""
        every = rates(self.recipe, epoch + 1, STEPS, ())
        self.optimizer.set_rate(every[step if len(every) > 1 else 0])
        self.optimizer.step(self.learner.pieces())
        self.losses.append(float(loss))

    def alone(self, epochs: range) -> None:
        """Train for some epochs, alone."""
        for epoch in epochs:
            with self.learner.begin(STEPS, 10 * self.seed + epoch):
                for step in range(STEPS):
                    images, targets = self.batch(step)
                    self.take(epoch, step, self.learner.learn(images, targets)[1])


def together(members: list[Member], epochs: range) -> None:
    """Train for some epochs, as a pack."""
    pack = FunctionalPack([one.learner for one in members])
    for epoch in epochs:
        with pack.begin(STEPS, [10 * one.seed + epoch for one in members]):
            for step in range(STEPS):
                images, targets = zip(*(one.batch(step) for one in members), strict=True)
                _, losses = pack.learn(torch.stack(images), targets)
                for one, loss in zip(members, losses, strict=True):
                    one.take(epoch, step, loss)


def assert_close(ours: Member, theirs: Member, most: float = 1e-4) -> None:
    """Check that curves, weights, buffers and optimizer states agree to rounding."""
    assert ours.losses == pytest.approx(theirs.losses, abs=most)
    for name, one in ours.model.state_dict().items():
        other = theirs.model.state_dict()[name]
        assert float((one - other).abs().max()) <= 10 * most, name
        assert one.stride() == other.stride(), name
    for name, one in ours.optimizer.state().items():
        assert float((one - theirs.optimizer.state()[name]).abs().max()) <= 10 * most, name


def one_batch(member: Member) -> tuple[Tensor, Tensor]:
    """Return two small batches for `obstacle`."""
    batches = [member.batch(step) for step in range(2)]
    images, targets = zip(*batches, strict=True)
    return torch.stack(images), torch.stack(targets)


@pytest.mark.parametrize("make", [cnn, Residual])
@pytest.mark.parametrize("chosen", [SETTINGS, BINARY], ids=["usual", "binary"])
def test_a_member_trains_as_alone(
    make: Callable[..., nn.Module], chosen: list[dict[str, Value]]
) -> None:
    """Five members with different seeds, losses, optimizers, schedules and dropout."""
    packed = [Member(make, seed, one) for seed, one in enumerate(chosen)]
    together(packed, range(3))
    for seed, one in enumerate(chosen):
        single = Member(make, seed, one)
        single.alone(range(3))
        assert_close(packed[seed], single)


@pytest.mark.parametrize("make", [cnn, Residual])
def test_a_member_trains_as_alone_in_bfloat16(make: Callable[..., nn.Module]) -> None:
    """Products have eight bits in bfloat16, so three steps are compared."""
    packed = [Member(make, seed, one, BF16) for seed, one in enumerate(SETTINGS)]
    together(packed, range(1))
    for seed, one in enumerate(SETTINGS):
        single = Member(make, seed, one, BF16)
        single.alone(range(1))
        assert packed[seed].losses == pytest.approx(single.losses, abs=0.02)


def test_members_come_and_go() -> None:
    """Alone, with two others, with one other, alone again: the same training to rounding."""
    first, second, third = (Member(Residual, seed, {}) for seed in range(3))
    first.alone(range(1))
    together([second, first, third], range(1, 2))
    together([third, first], range(2, 3))
    first.alone(range(3, 4))
    single = Member(Residual, 0, {})
    single.alone(range(4))
    assert_close(first, single)


def test_a_member_that_diverges_disturbs_nobody() -> None:
    """Infinite weights do not spread to other members."""
    chosen: list[dict[str, Value]] = [{}, {"optimizer": "sgd", "lr": 100.0}, {}]
    packed = [Member(Residual, seed, one) for seed, one in enumerate(chosen)]
    with torch.no_grad():
        packed[1].model.get_parameter("first.weight").fill_(float("inf"))
    together(packed, range(2))
    assert np.isnan(packed[1].losses[-1])
    for seed in (0, 2):
        single = Member(Residual, seed, {})
        single.alone(range(2))
        assert_close(packed[seed], single)


class Frozen(Residual):
    """One layer is not trained, and one weight is unused."""

    def __init__(self, outputs: int, dropout: float = 0.0) -> None:
        super().__init__(outputs, dropout)
        self.first.weight.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))


class Tied(Residual):
    """One layer is used in two places."""

    def __init__(self, outputs: int, dropout: float = 0.0) -> None:
        super().__init__(outputs, dropout)
        self.third = self.second

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        return super().forward(self.third(self.norm(self.first(images)))[:, :1] + images)


@pytest.mark.parametrize("make", [Frozen, Tied])
def test_weights_without_gradients_and_with_two_places(make: Callable[..., nn.Module]) -> None:
    """Such members train as they do alone."""
    packed = [Member(make, seed, {"weight_decay": 0.1}) for seed in range(3)]
    assert obstacle(packed[0].learner, *one_batch(packed[0])) == ""
    together(packed, range(2))
    for seed in range(3):
        single = Member(make, seed, {"weight_decay": 0.1})
        single.alone(range(2))
        assert_close(packed[seed], single)


class Doubled(torch.autograd.Function):
    """Twice the input, without a rule for vmap."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:  # noqa: ARG004
        """Double."""
        return 2 * given

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # noqa: ARG004
        """Double."""
        return 2 * slope


class Odd(nn.Module):
    """A linear network that does something unusual on the way."""

    def __init__(self, what: Callable[["Odd", Tensor], Tensor]) -> None:
        super().__init__()
        self.what = what
        self.last = nn.Linear(SIDE * SIDE, 2)
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        outputs: Tensor = self.last(self.what(self, images.flatten(1)))
        return outputs


def _counted(model: Odd, flat: Tensor) -> Tensor:
    model.count = model.count + 1
    return flat


def _written(_model: Odd, flat: Tensor) -> Tensor:
    return torch.zeros(flat.shape).add_(flat)


ODD: dict[str, tuple[Callable[[Odd, Tensor], Tensor], str]] = {
    "value": (lambda _, x: x if float(x.sum()) > 0 else -x, "values of the data"),
    "branch": (lambda _, x: x if x.sum() > 0 else -x, "values of the data"),
    "noise": (lambda _, x: x + torch.randn_like(x), "random numbers"),
    "function": (lambda _, x: Doubled.apply(x), "custom autograd function"),
    "in place": (_written, "would share"),
    "buffer": (_counted, "by more than rounding"),
    "chance": (lambda _, x: x * np.random.default_rng().random(), "by more than rounding"),
    "broken": (lambda _, x: x.reshape(len(x) * int("0"), 1), "torch.func fails"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_packed_is_found_by_trying(name: str) -> None:
    """The reason is given in plain words; the network and the random state are unchanged."""
    what, words = ODD[name]
    member = Member(lambda *_, **__: Odd(what), 0, {})
    before = copy.deepcopy(member.model.state_dict())
    chance = torch.get_rng_state()
    assert words in obstacle(member.learner, *one_batch(member))
    assert torch.equal(chance, torch.get_rng_state())
    for key, value in member.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(weight.grad is None for weight in member.model.parameters())


def test_hooks_and_unknown_attributes_are_refused() -> None:
    """Their effect on a network is unknown."""
    hooked, strange = Member(Residual, 0, {}), Member(Residual, 0, {})
    hooked.model.get_submodule("norm").register_forward_hook(lambda *_: None)
    strange.model.table = np.ones(3)  # type: ignore[assignment]
    assert obstacle(hooked.learner, *one_batch(hooked)) == "its layer BatchNorm2d has a hook"
    assert "Residual.table is a ndarray" in obstacle(strange.learner, *one_batch(strange))


def test_signatures_are_of_what_changes_the_computation() -> None:
    """Settings of layers and own attributes count; dropout rates and weights do not."""
    usual = signature(Residual(2))
    assert signature(Residual(2, dropout=0.5)) == usual
    others = [Residual(3), Residual(2), Residual(2), Frozen(2)]
    others[1].norm.momentum = 0.2
    others[2].scale = 2.0  # type: ignore[assignment]
    assert all(signature(one) != usual for one in others)
