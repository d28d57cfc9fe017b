"""Stacks in a pack take the same steps as alone, bit for bit, whoever else is there."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.train.test_stack import batches, loss_of
from tuner.records import Value
from tuner.train import products
from tuner.train import stack as stack_module
from tuner.train.optimizers import Optimizer, build_optimizer
from tuner.train.recipe import read_recipe
from tuner.train.stack import Pack, Stack, layers_of

PLAIN: list[dict[str, Value]] = [{"loss": "ce"}] * 5
MIXED: list[dict[str, Value]] = [
    {"loss": "ce", "optimizer": "sgd", "momentum": 0.9},
    {"loss": "focal", "focal_gamma": 2.0},
    {"loss": "ce", "label_smoothing": 0.1, "lr": 0.02},
    {"loss": "ce", "class_weights": "balanced", "weight_decay": 0.1},
    {"loss": "ce", "optimizer": "adamw"},
]
BINARY: list[dict[str, Value]] = [{"loss": "bce"}, {"loss": "bce", "label_smoothing": 0.1}] * 2


class Member:
    """A stack with its optimizer, outputs and losses so far."""

    def __init__(self, place: int, chosen: dict[str, Value], **shape: Any) -> None:
        loss = loss_of(chosen)
        torch.manual_seed(place)
        self.model = network(loss.outputs, **shape)
        layers = layers_of(self.model)
        assert layers is not None
        self.place = place
        self.stack = Stack(self.model, layers, loss)
        self.optimizer: Optimizer = build_optimizer(
            read_recipe({"lr": 0.01, **chosen}), self.stack.weights
        )
        self.seen: list[Tensor] = []

    def batch(self, place: int) -> tuple[Tensor, Tensor]:
        """Return its own images."""
        images, labels = batches(4)[place]
        return images + self.place, self.stack.loss.targets(labels)

    def alone(self, epochs: range) -> None:
        """Train for some epochs, alone."""
        for epoch in epochs:
            with self.stack.begin(4, 100 * self.place + epoch):
                for step in range(4):
                    self.seen += [one.clone() for one in self.stack.learn(*self.batch(step))]
                    self.optimizer.step(self.stack.pieces())


def network(
    outputs: int, width: int = 7, dropout: float = 0, *, norm: bool = True, bias: bool = True
) -> nn.Module:
    """Return a network of 4×3 images."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (12, width):
        layers += [nn.Linear(inputs, width, bias=bias)]
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def together(members: list[Member], epochs: range) -> None:
    """Train for some epochs, as a pack."""
    pack = Pack([one.stack for one in members])
    for epoch in epochs:
        with pack.begin(4, [100 * one.place + epoch for one in members]):
            for step in range(4):
                images, targets = zip(*(one.batch(step) for one in members), strict=True)
                outputs, values = pack.learn(torch.stack(images), targets)
                for place, one in enumerate(members):
                    one.seen += [outputs[place].clone(), values[place].clone()]
                    one.optimizer.step(pack.pieces(place))


def assert_equal(ours: Member, theirs: Member) -> None:
    """Check that curves, weights and batch norm's statistics are equal bit for bit."""
    for one, other in zip(ours.seen, theirs.seen, strict=True):
        assert torch.equal(one, other)
    for name, one in ours.model.state_dict().items():
        assert torch.equal(one, theirs.model.state_dict()[name]), name
    for name, one in ours.optimizer.state().items():
        assert torch.equal(one, theirs.optimizer.state()[name]), name


@pytest.mark.parametrize("width", [1, 7, 16, 33, 64])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chosen", [PLAIN, MIXED, BINARY], ids=["plain", "mixed", "binary"])
def test_a_member_is_itself(
    chosen: list[dict[str, Value]], width: int, *, norm: bool, bias: bool
) -> None:
    """Losses, optimizers, rates and dropout may differ; only the shape is shared."""
    dropouts = [0.3, 0.0, 0.5, 0.3, 0.1]

    def make(place: int, one: dict[str, Value]) -> Member:
        return Member(place, one, width=width, dropout=dropouts[place], norm=norm, bias=bias)

    packed = [make(*one) for one in enumerate(chosen)]
    together(packed, range(3))
    for place, one in enumerate(chosen):
        single = make(place, one)
        single.alone(range(3))
        assert_equal(packed[place], single)


@pytest.mark.parametrize("width", [7, 32])
@pytest.mark.parametrize("onednn", [True, False])
def test_members_come_and_go(width: int, monkeypatch: pytest.MonkeyPatch, *, onednn: bool) -> None:
    """Alone, with two others, with one other, alone again: the same training."""
    monkeypatch.setattr(products, "uses_onednn", lambda: onednn)
    monkeypatch.setattr(products, "WORTHWHILE", 100)
    first, second, third = (Member(one, {}, width=width, dropout=0.3) for one in range(3))
    first.alone(range(2))
    together([second, first, third], range(2, 4))
    together([third, first], range(4, 5))
    first.alone(range(5, 6))
    single = Member(0, {}, width=width, dropout=0.3)
    single.alone(range(6))
    assert_equal(first, single)


@pytest.mark.parametrize("onednn", [True, False])
def test_large_layers_are_updated_in_pieces(
    monkeypatch: pytest.MonkeyPatch, *, onednn: bool
) -> None:
    """The first layer and an inner one are updated in pieces in turn."""
    monkeypatch.setattr(products, "uses_onednn", lambda: onednn)
    monkeypatch.setattr(products, "WORTHWHILE", 100)
    monkeypatch.setattr(stack_module, "LARGE", 40)
    monkeypatch.setattr(stack_module, "PIECE", 36)
    monkeypatch.setattr(stack_module, "FEWEST_ROWS", 2)
    packed = [Member(place, {}) for place in range(3)]
    assert set(packed[0].stack.weights) == {"all", "large.0", "large.1"}
    together(packed, range(2))
    for place in range(3):
        single = Member(place, {})
        single.alone(range(2))
        assert_equal(packed[place], single)


@pytest.mark.parametrize("onednn", [True, False])
def test_products_of_every_size_are_a_members_own(
    monkeypatch: pytest.MonkeyPatch, *, onednn: bool
) -> None:
    """Batched products equal those of one member alone, for tiny and large ones."""
    monkeypatch.setattr(products, "uses_onednn", lambda: onednn)
    monkeypatch.setattr(products, "WORTHWHILE", 1 << 14)
    chance = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1, 2, 3, 5, 8, 13, 32, 64, 100, 257])
    for _ in range(200):
        rows, inner, columns = (int(sizes[k]) for k in torch.randint(10, (3,), generator=chance))
        members = int(torch.randint(2, 9, (1,), generator=chance))
        left = torch.randn(members, rows, inner, generator=chance)
        across = torch.randn(members, columns, inner, generator=chance).mT
        offset = torch.randn(members, 1, columns, generator=chance)
        found = stack_module._product(left, across, offset)
        for place in range(members):
            alone = stack_module._product(left[place].clone(), across[place], offset[place])
            assert torch.equal(found[place], alone), (members, rows, inner, columns)


def test_only_stacks_of_one_shape_are_packed() -> None:
    """Width, batch norm and outputs belong to the shape; dropout and losses do not."""
    usual = Member(0, {}).stack.shape
    alike = [Member(1, {"loss": "focal"}), Member(2, {}, dropout=0.5)]
    others = [
        Member(1, {}, width=8),
        Member(1, {}, norm=False),
        Member(1, {}, bias=False),
        Member(1, {"loss": "bce"}),
    ]
    assert all(one.stack.shape == usual for one in alike)
    assert all(one.stack.shape != usual for one in others)
