"""What is recorded on a GPU, as far as that can be tried without one; test_gpu has the rest."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuner.train.functional import ObstacleError
from tuner.train.graphs import LONGEST, _python_side, stretches
from tuner.train.passes import training_bounds


@pytest.mark.parametrize("count", [1, 7, 32, 97, 1600, 1601, 3201, 100_003])
@pytest.mark.parametrize("size", [1, 16, 32])
def test_stretches_are_all_steps_in_order(count: int, size: int) -> None:
    """Each step is in one, those of one stretch are equal, and few kinds have to be recorded."""
    bounds = training_bounds(count, size)
    found = stretches(bounds)
    steps = [step for first, last, _ in found for step in range(first, last)]
    assert steps == list(range(len(bounds)))
    for first, last, images in found:
        assert {stop - start for start, stop in bounds[first:last]} == {images}
        assert last - first <= LONGEST
    assert len({(last - first, images) for first, last, images in found}) <= 3


class Network(nn.Module):
    """A network that may leave something behind on the Python side."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.does, self.steps = does, 0
        if does == "keeps":
            self.last = torch.zeros(4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        if self.does == "counts":
            self.steps += 1
        found: Tensor = self.first(images)
        if self.does == "draws":
            found = found * random.random()
        if self.does == "draws by numpy":
            found = found * float(np.random.uniform())
        if self.does == "draws by torch":
            found = found * torch.rand(1)
        return found


@pytest.mark.parametrize("does", ["nothing", "counts", "draws", "draws by numpy", "draws by torch"])
def test_what_a_replay_would_miss_is_seen(does: str) -> None:
    """A counter, and every kind of random number that Python draws."""
    network = Network(does)
    before = _python_side([network])
    network(torch.zeros(2, 4))
    assert (_python_side([network]) == before) is (does == "nothing")


def test_attributes_that_cannot_be_compared_are_not_guessed() -> None:
    """A tensor that is no buffer may hold anything."""
    with pytest.raises(ObstacleError, match=r"Network\.last is a Tensor"):
        _python_side([Network("keeps")])
