"""A network is built only if the given weights are its own, whatever a document says."""

import pytest
import torch
from torch import nn

from tuner.errors import ObjectiveError, UserError
from tuner.winner import predictor
from tuner.winner.document import Model
from tuner.winner.predictor import _check_before_building

MODEL = Model.model_construct(objective="mine")


def network(width: int, *, asks: bool) -> nn.Module:
    """Build a layer as an objective would; with `asks` it needs a real number during the build."""
    try:
        rate = torch.linspace(0, 0.5, 3)[1].item() if asks else 0.25
        return nn.Sequential(nn.Linear(8, width), nn.Dropout(rate))
    except Exception as error:
        raise ObjectiveError("build() failed") from error


@pytest.mark.parametrize("asks", [False, True])
def test_its_own_weights_are_taken(*, asks: bool) -> None:
    """Both for code that can run without memory, and for code that cannot."""
    weights = network(16, asks=asks).state_dict()
    _check_before_building(lambda: network(16, asks=asks), weights, MODEL)


@pytest.mark.parametrize("asks", [False, True])
def test_a_larger_network_is_refused(*, asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is built: one is checked without memory, one stopped at its first large tensor."""
    monkeypatch.setattr(predictor, "SPARE_BYTES", 1 << 20)
    weights = network(16, asks=asks).state_dict()
    with pytest.raises(UserError, match="The weights do not fit the network"):
        _check_before_building(lambda: network(1 << 20, asks=asks), weights, MODEL)


def test_a_fault_of_the_objective_stays_one() -> None:
    """An exception from the objective's code is reported as its own fault."""

    def build() -> nn.Module:
        raise ObjectiveError("build() failed: KeyError: 'hidden'")

    with pytest.raises(ObjectiveError, match="hidden"):
        _check_before_building(build, {}, MODEL)
