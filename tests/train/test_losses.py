"""Losses, and the log-probabilities behind the yardstick."""

import numpy as np
import pytest
import torch

from tuner.errors import UserError
from tuner.train.losses import choose_loss, log_probabilities


def test_one_output_means_the_same_as_two_tied_ones() -> None:
    """bce's one output z and ce's outputs (0, z) have equal log-probabilities and losses."""
    z = torch.linspace(-30, 30, 121)[:, None]
    two = torch.cat((torch.zeros_like(z), z), dim=1)
    labels = torch.arange(121) % 2
    bce, ce = choose_loss("bce", 2), choose_loss("ce", 2)
    torch.testing.assert_close(log_probabilities(z), log_probabilities(two))
    one_value = bce.value(z, bce.targets(labels))
    torch.testing.assert_close(one_value, ce.value(two, ce.targets(labels)))


@pytest.mark.parametrize("name", ["bce", "ce"])
def test_both_losses_are_the_mean_nll_of_the_true_class(name: str) -> None:
    """Without smoothing or weights, the training loss is the yardstick itself."""
    loss = choose_loss(name, 2)
    outputs = torch.randn(50, loss.outputs, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 2
    nll = -log_probabilities(outputs)[torch.arange(50), labels].mean()
    torch.testing.assert_close(loss.value(outputs, loss.targets(labels)), nll)


def test_sure_predictions_stay_finite() -> None:
    """Outputs of a thousand give log-probabilities of minus a thousand, not minus infinity."""
    predictions = log_probabilities(torch.tensor([[1000.0], [-1000.0]])).numpy()
    assert np.isfinite(predictions).all()
    assert predictions[0, 0] == pytest.approx(-1000.0)


def test_bce_refuses_more_than_two_classes() -> None:
    """bce over three classes is the user's error, and the message names ce."""
    with pytest.raises(UserError, match="3; use loss = 'ce'"):
        choose_loss("bce", 3)
