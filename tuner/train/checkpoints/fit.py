"""Checks whether a stored state fits the run that would continue from it."""

from collections.abc import Mapping

from torch import Tensor, nn

from tuner.train.optimizers import Optimizer
from tuner.train.state import TrainingState


class UnfitError(Exception):
    """This run would never have reached the state; nothing was changed."""

    def __init__(self, why: str, ended_after: int | None = None) -> None:
        super().__init__(why)
        self.ended_after = ended_after
        """The epoch after which this run would have ended, if the state is a later one."""


def check_fit(state: TrainingState, model: nn.Module, optimizer: Optimizer) -> None:
    """Raise UnfitError unless the state's tensors match those of the model and the optimizer."""
    _check("its weights are another model's", state.weights, model.state_dict())
    _check("its best weights are another model's", state.best_weights, model.state_dict())
    _check("its optimizer state is another's", state.optimizer, optimizer.state())


def _check(why: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    if _forms(found) != _forms(wanted):
        raise UnfitError(why)


def _forms(tensors: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    return {
        name: (value.shape, value.dtype) if isinstance(value, Tensor) else ("none",)
        for name, value in tensors.items()
    }
