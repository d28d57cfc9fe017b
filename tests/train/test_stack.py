"""A stack's hand-written steps equal autograd's to rounding, and only stacks use them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuner.records import Value
from tuner.train import products
from tuner.train import stack as stack_module
from tuner.train.learners import Autograd, choose_learner
from tuner.train.losses import Loss, choose_loss
from tuner.train.optimizers import Optimizer, build_optimizer
from tuner.train.precision import Arithmetic
from tuner.train.recipe import read_recipe
from tuner.train.stack import Stack, layers_of
from tuner.train.state import copy_weights

PLAIN = Arithmetic("fp32", channels_last=False, reason="")
CPU = torch.device("cpu")
LABELS = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1])
LOSSES: list[dict[str, Value]] = [
    {"loss": "ce"},
    {"loss": "bce"},
    {"loss": "focal", "focal_gamma": 2.0},
    {"loss": "ce", "label_smoothing": 0.1},
    {"loss": "bce", "class_weights": "balanced"},
]


def loss_of(chosen: dict[str, Value]) -> Loss:
    """Return a loss for two classes."""
    return choose_loss(read_recipe(chosen), 2, LABELS, CPU)


def network(outputs: int, *, norm: bool = True, bias: bool = True, dropout: float = 0) -> nn.Module:
    """Return a network of 4×3 images, with the same weights every time."""
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (12, 7):
        layers += [nn.Linear(inputs, 7, bias=bias)]
        layers += [nn.BatchNorm1d(7)] if norm else []
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(7, outputs))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Return images and labels; the last batch is shorter."""
    made = torch.Generator().manual_seed(2)
    sizes = [len(LABELS)] * (count - 1) + [4]
    return [
        (torch.randn(size, 1, 4, 3, generator=made), torch.from_numpy(LABELS[:size]))
        for size in sizes
    ]


def trained(
    learner: Autograd | Stack, loss: Loss, optimizer: str, epochs: int, *, double: bool = False
) -> list[Tensor]:
    """Train for some epochs and return the outputs and losses of every step."""
    steps = build_optimizer(read_recipe({"optimizer": optimizer, "lr": 0.01}), learner.weights)
    found: list[Tensor] = []
    given = batches(5)
    for _ in range(epochs):
        with learner.begin(len(given), 0):
            for images, labels in given:
                shown = images.double() if double else images.clone()
                found += learner.learn(shown, loss.targets(labels))
                steps.step(learner.pieces())
    return [one.clone() for one in found]


@pytest.mark.parametrize("chosen", LOSSES, ids=lambda one: "-".join(map(str, one.values())))
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_step_is_autograds(chosen: dict[str, Value], *, norm: bool, bias: bool) -> None:
    """Outputs, loss and every gradient of a batch agree to rounding."""
    loss = loss_of(chosen)
    ours, theirs = (network(loss.outputs, norm=norm, bias=bias) for _ in range(2))
    layers = layers_of(ours)
    assert layers is not None
    stack, autograd = Stack(ours, layers, loss), Autograd(theirs, loss, PLAIN)
    images, labels = batches(2)[0]
    targets = loss.targets(labels)
    with stack.begin(1, 0):
        found = stack.learn(images.clone(), targets)
    with autograd.begin(1, 0):
        expected = autograd.learn(images.clone(), targets)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.clone(), other, rtol=1e-5, atol=1e-6)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, held), kept in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(held, kept, msg=name)


class Exact(Autograd):
    """Autograd in the precision of the weights, including 64 bits."""

    def learn(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and loss of a batch, and leave gradients in the weights."""
        outputs = self.model(images)
        loss = self.loss.value(outputs, targets)
        for weight in self.weights.values():
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_training_is_autograds(seed: int, optimizer: str) -> None:
    """Over epochs with batches of two sizes, from five starts, the curves agree to rounding.

    In 64 bits: Adam divides a gradient by its size, so where it is nearly 0, rounding errors of 32
    bits, which differ between processors, would become steps. Without biases before batch norm,
    whose gradients are rounding errors alone.
    """
    loss = loss_of({})
    learners: list[Autograd | Stack] = []
    for kind in ("stack", "autograd"):
        model = network(2, bias=False)
        torch.manual_seed(seed)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.3)
        layers = layers_of(model)
        assert layers is not None
        model.double()
        learners.append(
            Stack(model, layers, loss) if kind == "stack" else Exact(model, loss, PLAIN)
        )
    found, expected = (trained(one, loss, optimizer, 6, double=True) for one in learners)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("onednn", [True, False])
def test_a_large_layer_is_updated_in_pieces(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, *, onednn: bool
) -> None:
    """Layers above the limit, the first and an inner one, train like autograd; so does a state."""
    monkeypatch.setattr(products, "uses_onednn", lambda: onednn)
    monkeypatch.setattr(stack_module, "LARGE", 40)
    monkeypatch.setattr(stack_module, "PIECE", 36)
    monkeypatch.setattr(stack_module, "FEWEST_ROWS", 2)
    loss = loss_of({})
    ours, theirs = network(2, bias=False), network(2, bias=False)
    layers = layers_of(ours)
    assert layers is not None
    stack = Stack(ours.double(), layers, loss)
    assert set(stack.weights) == {"all", "large.0", "large.1"}
    found = trained(stack, loss, optimizer, 3, double=True)
    expected = trained(Exact(theirs.double(), loss, PLAIN), loss, optimizer, 3, double=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.data, other.data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("onednn", [True, False])
def test_a_large_layer_goes_on_from_a_state(
    monkeypatch: pytest.MonkeyPatch, *, onednn: bool
) -> None:
    """Weights and the optimizer's state of pieces are restored bit for bit."""
    monkeypatch.setattr(products, "uses_onednn", lambda: onednn)
    monkeypatch.setattr(stack_module, "LARGE", 40)
    monkeypatch.setattr(stack_module, "PIECE", 36)
    monkeypatch.setattr(stack_module, "FEWEST_ROWS", 2)
    loss = loss_of({})
    given = batches(6)

    def start() -> tuple[nn.Module, Stack, Optimizer]:
        model = network(2)
        layers = layers_of(model)
        assert layers is not None
        stack = Stack(model, layers, loss)
        return model, stack, build_optimizer(read_recipe({"lr": 0.01}), stack.weights)

    def take(stack: Stack, optimizer: Optimizer, some: list[tuple[Tensor, Tensor]]) -> None:
        with stack.begin(len(some), 0):
            for images, labels in some:
                stack.learn(images.clone(), labels)
                optimizer.step(stack.pieces())

    whole, stack, optimizer = start()
    take(stack, optimizer, given[:3])
    weights, memory = copy_weights(whole), optimizer.state()
    take(stack, optimizer, given[3:])
    resumed, stack, optimizer = start()
    resumed.load_state_dict(weights)
    optimizer.restore({name: one.contiguous() for name, one in memory.items()})
    take(stack, optimizer, given[3:])
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_dropout_keeps_the_share_it_says_and_takes_the_same_way_back() -> None:
    """About 1 in 4 is dropped, without a gradient; every batch draws again."""
    loss = loss_of({})
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 400), nn.Dropout(0.25), nn.Linear(400, 2))
    layers = layers_of(model)
    assert layers is not None
    stack = Stack(model, layers, loss)
    first, last = model[1], model[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    torch.nn.init.constant_(first.weight, 0)
    torch.nn.init.constant_(first.bias, 1)
    images, labels = batches(2)[0]
    kept = []
    with stack.begin(2, 3):
        for _ in range(2):
            stack.learn(images[:1].clone(), labels[:1])
            assert last.weight.grad is not None
            assert first.bias.grad is not None
            seen, back = last.weight.grad[0] != 0, first.bias.grad != 0
            assert torch.equal(seen, back)
            kept.append(seen)
    assert 0.65 < float(torch.stack(kept).float().mean()) < 0.85
    assert not torch.equal(kept[0], kept[1])


def test_an_epoch_draws_from_its_own_seed() -> None:
    """Numbers drawn ahead in one epoch are not used in the next: a resumed training has none."""
    loss = loss_of({})
    found = []
    for epochs in ((1, 2), (2,)):
        model = network(2, norm=False, dropout=0.5)
        layers = layers_of(model)
        assert layers is not None
        stack = Stack(model, layers, loss)
        for epoch in epochs:
            with stack.begin(1, epoch):
                outputs, _ = stack.learn(batches(2)[0][0].clone(), torch.from_numpy(LABELS))
        found.append(outputs.clone())
    assert torch.equal(*found)


class Odd(nn.ReLU):
    """Computes something else under a known layer's name."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Return twice the usual output."""
        return 2 * super().forward(input)


def sequential(*layers: nn.Module) -> nn.Sequential:
    """Return a stack that ends in two outputs."""
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(12, 2))


def hooked() -> nn.Module:
    """Return a stack with a hook."""
    model = sequential()
    model[1].register_forward_hook(lambda *_: None)
    return model


def frozen() -> nn.Module:
    """Return a stack with one frozen layer."""
    model = sequential(nn.Linear(12, 12))
    model[1].requires_grad_(requires_grad=False)
    return model


def shared() -> nn.Module:
    """Return a stack with one weight shared by two layers."""
    model = sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    model[3].weight = model[1].weight
    return model


def twice() -> nn.Module:
    """Return a stack with one layer in two places."""
    layer = nn.Linear(12, 12)
    return sequential(layer, nn.ReLU(), layer)


def normed() -> nn.Module:
    """Return a stack with weight norm."""
    return sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(12, 12)))


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a subclass of a layer": lambda: sequential(Odd()),
    "another activation": lambda: sequential(nn.GELU()),
    "a network inside": lambda: sequential(nn.Sequential(nn.Linear(12, 12))),
    "a hook": hooked,
    "a frozen layer": frozen,
    "a shared weight": shared,
    "a layer twice": twice,
    "weight norm": normed,
    "double precision": lambda: sequential().double(),
    "cumulative batch norm": lambda: sequential(nn.BatchNorm1d(12, momentum=None)),
    "batch norm without weights": lambda: sequential(nn.BatchNorm1d(12, affine=False)),
    "everything dropped": lambda: sequential(nn.Dropout(1.0)),
    "flattened otherwise": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(12, 2)),
    "flattened later": lambda: nn.Sequential(nn.Linear(4, 3), nn.Flatten(), nn.Linear(9, 2)),
    "no weights": lambda: nn.Sequential(nn.Flatten()),
    "no sequence": lambda: nn.Linear(12, 2),
}


@pytest.mark.parametrize("other", OTHERS)
def test_any_other_network_learns_by_autograd(other: str) -> None:
    """A network that is not known to be a plain stack is differentiated by autograd."""
    model = OTHERS[other]()
    assert layers_of(model) is None
    assert isinstance(choose_learner(model, loss_of({}), PLAIN, CPU), Autograd)


def test_a_stack_learns_as_one_only_where_that_is_faster() -> None:
    """In bfloat16, or on another device than a CPU, autograd is used."""
    half = Arithmetic("bf16", channels_last=False, reason="")
    assert isinstance(choose_learner(network(2), loss_of({}), PLAIN, CPU), Stack)
    assert isinstance(choose_learner(network(2), loss_of({}), half, CPU), Autograd)
    gpu = torch.device("cuda")
    assert isinstance(choose_learner(network(2), loss_of({}), PLAIN, gpu), Autograd)
