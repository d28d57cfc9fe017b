"""Whether a stored state fits the run that is to go on from it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tuner.train.state import TrainingState, Weights


class UnfitError(Exception):
    """A state is not one that this run would have come to; nothing of it was taken."""

    def __init__(self, why: str, ended_after: int | None = None) -> None:
        super().__init__(why)
        self.ended_after = ended_after
        """The epoch after which this run would have ended, where the state is a later one."""


def check_fit(state: TrainingState, model: nn.Module, optimizer: Optimizer) -> None:
    """Raise UnfitError unless every tensor of the state has its place in model and optimizer."""
    _check_weights("its weights", state.weights, model)
    _check_weights("its best weights", state.best_weights, model)
    if not _fits(state.optimizer, optimizer):
        raise UnfitError("its optimizer state is another's")


def _check_weights(what: str, weights: Weights, model: nn.Module) -> None:
    wanted = {name: _form(value) for name, value in model.state_dict().items()}
    if {name: _form(value) for name, value in weights.items()} != wanted:
        raise UnfitError(f"{what} are another model's")


def _form(value: object) -> tuple[object, ...]:
    return (value.shape, value.dtype) if isinstance(value, Tensor) else ("none",)


def _fits(stored: Mapping[str, Any], optimizer: Optimizer) -> bool:
    fresh = optimizer.state_dict()
    groups, state = stored.get("param_groups"), stored.get("state")
    if set(stored) != set(fresh) or not isinstance(groups, list) or not isinstance(state, dict):
        return False
    if [_outline(group) for group in groups] != [_outline(g) for g in fresh["param_groups"]]:
        return False
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return all(
        isinstance(index, int) and 0 <= index < len(weights) and _belongs(held, weights[index])
        for index, held in state.items()
    )


def _outline(group: object) -> object:
    """Return what must be equal of two groups: all but the rate, which each epoch sets anew."""
    if not isinstance(group, dict):
        return None
    return {name: value for name, value in group.items() if name != "lr"} | {"lr": "lr" in group}


def _belongs(held: object, weight: Tensor) -> bool:
    """Say whether an optimizer's memory of one weight has its shape, counters apart."""
    return isinstance(held, dict) and all(
        not isinstance(value, Tensor) or value.dim() == 0 or value.shape == weight.shape
        for value in held.values()
    )
