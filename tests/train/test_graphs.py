"""Recording on a GPU, as far as it can be tested without one; test_gpu has the rest."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuner.train.functional import ObstacleError
from tuner.train.graphs import LONGEST, _python_side, _state, stretches
from tuner.train.passes import training_bounds


@pytest.mark.parametrize("count", [1, 7, 32, 97, 1600, 1601, 3201, 100_003])
@pytest.mark.parametrize("size", [1, 16, 32])
def test_stretches_are_all_steps_in_order(count: int, size: int) -> None:
    """Each step is in one stretch of equal steps, with few kinds to record."""
    bounds = training_bounds(count, size)
    found = stretches(bounds)
    steps = [step for first, last, _ in found for step in range(first, last)]
    assert steps == list(range(len(bounds)))
    for first, last, images in found:
        assert {stop - start for start, stop in bounds[first:last]} == {images}
        assert last - first <= LONGEST
    assert len({(last - first, images) for first, last, images in found}) <= 3


class Network(nn.Module):
    """A network that may change something on the Python side."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.does, self.steps = does, 0
        if does == "keeps":
            self.last = torch.zeros(4)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(4))

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        if self.does == "counts":
            self.steps += 1
        found: Tensor = self.first(images)
        if self.does == "moves a buffer":
            self.centre = 0.9 * self.centre + 0.1 * images.mean(0)
        if self.does == "moves a weight":
            self.first.weight.data = self.first.weight.data.clamp(-1, 1)
        if self.does == "drops more":
            self.dropout.p = 0.6
        if self.does == "draws":
            found = found * random.random()
        if self.does == "draws by numpy":
            found = found * float(np.random.uniform())
        if self.does == "draws by torch":
            found = found * torch.rand(1)
        return found


SEEN = ("counts", "draws", "draws by numpy", "draws by torch", "moves a buffer", "moves a weight")


@pytest.mark.parametrize("does", ["nothing", "drops more", *SEEN])
def test_what_a_replay_would_miss_is_seen(does: str) -> None:
    """A counter, a replaced tensor and every kind of random number from Python are detected."""
    network = Network(does)
    before = _python_side([network])
    network(torch.zeros(2, 4))
    assert (_python_side([network]) == before) is (does == "nothing")


def test_attributes_that_cannot_be_compared_are_not_guessed() -> None:
    """A tensor that is not a buffer is refused, since it may hold anything."""
    with pytest.raises(ObstacleError, match=r"Network\.last is a Tensor"):
        _python_side([Network("keeps")])


@pytest.mark.parametrize("change", ["freeze", "evaluate", "count"])
def test_a_network_that_changes_between_epochs_is_recorded_again(change: str) -> None:
    """Weights frozen from some epoch on, a layer not trained any more, a count of epochs."""
    network = Network("nothing").train()
    before = _state([network])
    assert _state([network]) == before
    if change == "freeze":
        network.first.weight.requires_grad_(False)
    if change == "evaluate":
        network.dropout.eval()
    if change == "count":
        network.steps += 1
    assert _state([network]) != before
