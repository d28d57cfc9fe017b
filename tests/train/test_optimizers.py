"""Optimizers take the same steps as torch's, with the recipe's settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tuner.errors import UserError
from tuner.records import Value
from tuner.train.optimizers import Optimizer, build_optimizer
from tuner.train.recipe import read_recipe

GIVEN = {"lr": 0.05, "weight_decay": 0.1}

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def kind(of: type[torch.optim.Optimizer], **more: Any) -> Make:
    """Return a factory of torch's optimizer of a kind with these settings."""
    return lambda weights: of(weights, lr=0.05, weight_decay=0.1, fused=True, **more)  # type: ignore[call-arg]


KINDS: list[tuple[dict[str, Value], Make]] = [
    ({"optimizer": "adam"}, kind(torch.optim.Adam)),
    ({"optimizer": "adamw"}, kind(torch.optim.AdamW)),
    ({"optimizer": "sgd", "momentum": 0}, kind(torch.optim.SGD)),
    ({"optimizer": "sgd", "momentum": 0.8}, kind(torch.optim.SGD, momentum=0.8)),
    ({"optimizer": "sgd", "nesterov": True}, kind(torch.optim.SGD, momentum=0.9, nesterov=True)),
]


def weights() -> dict[str, nn.Parameter]:
    """Return weights of many shapes; one has gradients only in some steps, one never."""
    made = torch.Generator().manual_seed(7)
    shapes = {"scalar": (), "row": (33,), "matrix": (17, 5), "kernel": (4, 3, 3, 3), "gate": (6,)}
    found = {
        name: nn.Parameter(torch.randn(shape, generator=made)) for name, shape in shapes.items()
    }
    found["kernel"].data = found["kernel"].data.contiguous(memory_format=torch.channels_last)
    found["frozen"] = nn.Parameter(torch.ones(3), requires_grad=False)
    return found


def loss(held: dict[str, nn.Parameter], step: int) -> Tensor:
    """Return a loss whose gradients change with every step; `gate` has one in every other step."""
    used = [one for name, one in held.items() if name != "gate" or step % 2 == 0]
    return torch.stack([((one - step) ** 2).sum().cos() for one in used]).sum()


def take(held: dict[str, nn.Parameter], optimizer: Any, steps: range) -> None:
    """Take steps down the loss."""
    for step in steps:
        for one in held.values():
            one.grad = None
        loss(held, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def ours(chosen: dict[str, Value], held: dict[str, nn.Parameter]) -> Optimizer:
    """Return our optimizer over these weights."""
    return build_optimizer(read_recipe({**GIVEN, **chosen}), held)


def bits(held: dict[str, nn.Parameter]) -> dict[str, bytes]:
    """Return every bit of the weights."""
    return {name: one.detach().contiguous().numpy().tobytes() for name, one in held.items()}


@pytest.mark.parametrize(("chosen", "make"), KINDS)
def test_steps_are_torch_s_to_the_last_bit(chosen: dict[str, Value], make: Make) -> None:
    """The same kernels get the same numbers, also for weights without a gradient in some steps."""
    mine, theirs = weights(), weights()
    take(mine, ours(chosen, mine), range(6))
    take(theirs, make(list(theirs.values())), range(6))
    assert bits(mine) == bits(theirs)


@pytest.mark.parametrize(("chosen", "_make"), KINDS)
def test_a_restored_optimizer_goes_on_to_the_last_bit(
    chosen: dict[str, Value], _make: Make
) -> None:
    """The stored state alone determines the next steps."""
    whole, first = weights(), weights()
    take(whole, ours(chosen, whole), range(6))
    before = ours(chosen, first)
    take(first, before, range(3))
    state = before.state()
    again = ours(chosen, first)
    again.restore(state)
    take(first, again, range(3, 6))
    assert bits(first) == bits(whole)


def test_a_state_is_a_copy() -> None:
    """Later steps do not write into it."""
    held = weights()
    optimizer = ours({"optimizer": "adam"}, held)
    take(held, optimizer, range(1))
    state = optimizer.state()
    before = {name: one.clone() for name, one in state.items()}
    take(held, optimizer, range(1, 3))
    assert all(torch.equal(one, before[name]) for name, one in state.items())


def test_the_rate_set_is_the_rate_used() -> None:
    """After set_rate(0) weights stand still."""
    held = weights()
    optimizer = ours({"optimizer": "sgd"}, held)
    optimizer.set_rate(0.0)
    before = bits(held)
    take(held, optimizer, range(5))
    assert bits(held) == before


def test_nesterov_without_momentum_is_refused() -> None:
    """The message says what to set."""
    with pytest.raises(UserError, match="set momentum above 0"):
        ours({"optimizer": "sgd", "nesterov": True, "momentum": 0}, weights())
