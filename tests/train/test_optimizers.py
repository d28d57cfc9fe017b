"""Optimizers are torch's, with the recipe's settings."""

from typing import Any

import pytest
import torch
from torch import nn

from tuner.errors import UserError
from tuner.records import Value
from tuner.train.optimizers import build_optimizer, set_rate
from tuner.train.recipe import read_recipe

CPU = torch.device("cpu")


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> list[float]:
    """Return a weight after each of five steps down a parabola."""
    path = []
    for _ in range(5):
        optimizer.zero_grad()
        (weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        path.append(weight.item())
    return path


def weight() -> nn.Parameter:
    """Return a fresh weight of 1."""
    return nn.Parameter(torch.ones(1))


REFERENCES: list[tuple[dict[str, Value], type[torch.optim.Optimizer], dict[str, Any]]] = [
    ({"optimizer": "adam"}, torch.optim.Adam, {"weight_decay": 0.1}),
    ({"optimizer": "adamw"}, torch.optim.AdamW, {"weight_decay": 0.1}),
    (
        {"optimizer": "sgd", "momentum": 0.8},
        torch.optim.SGD,
        {"momentum": 0.8, "weight_decay": 0.1},
    ),
    (
        {"optimizer": "sgd", "nesterov": True},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
]


@pytest.mark.parametrize(("chosen", "kind", "settings"), REFERENCES)
def test_steps_agree_with_torch_s_plain_form(
    chosen: dict[str, Value], kind: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    """The fused optimizer takes the steps of torch's unfused one with the same settings."""
    ours, theirs = weight(), weight()
    recipe = read_recipe({"lr": 0.05, "weight_decay": 0.1, **chosen})
    plain = kind([theirs], lr=0.05, foreach=False, **settings)  # type: ignore[call-arg]
    ours_path = steps(build_optimizer(recipe, [ours], CPU), ours)
    assert ours_path == pytest.approx(steps(plain, theirs), rel=1e-5)


def test_the_rate_set_is_the_rate_used() -> None:
    """After set_rate(0) weights stand still."""
    held = weight()
    optimizer = build_optimizer(read_recipe({"optimizer": "sgd"}), [held], CPU)
    set_rate(optimizer, 0.0)
    assert steps(optimizer, held) == [1.0] * 5


def test_nesterov_without_momentum_is_refused() -> None:
    """The message says what to set."""
    recipe = read_recipe({"optimizer": "sgd", "nesterov": True, "momentum": 0})
    with pytest.raises(UserError, match="set momentum above 0"):
        build_optimizer(recipe, [weight()], CPU)
