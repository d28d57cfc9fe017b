"""Losses, and the log-probabilities from which the NLL is computed."""

import numpy as np
import pytest
import torch

from tuner.errors import DataError, UserError
from tuner.records import Value
from tuner.train.losses import Loss, balanced_weights, choose_loss, log_probabilities
from tuner.train.recipe import read_recipe

CPU = torch.device("cpu")
UNEVEN = np.array([0] * 30 + [1] * 10)


def plain(name: str, classes: int = 2) -> Loss:
    """Return a loss without options."""
    return choose_loss(read_recipe({"loss": name}), classes, np.arange(classes), CPU)


def shaped(classes: int = 2, /, **parameters: Value) -> Loss:
    """Return a loss with smoothing, class weights or focal loss, for uneven classes."""
    labels = np.concatenate([np.full(10 * (k + 1), k) for k in range(classes)])
    return choose_loss(read_recipe(parameters), classes, labels, CPU)


def test_one_output_means_the_same_as_two_tied_ones() -> None:
    """bce's one output z and ce's outputs (0, z) have equal log-probabilities and losses."""
    z = torch.linspace(-30, 30, 121)[:, None]
    two = torch.cat((torch.zeros_like(z), z), dim=1)
    labels = torch.arange(121) % 2
    bce, ce = plain("bce"), plain("ce")
    torch.testing.assert_close(log_probabilities(z), log_probabilities(two))
    one_value = bce.value(z, bce.targets(labels))
    torch.testing.assert_close(one_value, ce.value(two, ce.targets(labels)))


@pytest.mark.parametrize("name", ["bce", "ce"])
def test_both_losses_are_the_mean_nll_of_the_true_class(name: str) -> None:
    """Without smoothing or weights, the training loss is the mean NLL of the true class."""
    loss = plain(name)
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
        plain("bce", classes=3)


SHAPES: list[dict[str, Value]] = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"label_smoothing": 0.2, "class_weights": "balanced"},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_tied_outputs_have_equal_losses_and_gradients(shape: dict[str, Value]) -> None:
    """bce on z agrees with ce on (0, z) and on (-z/2, z/2), with any option for labels."""
    labels = torch.arange(40) % 2
    z = torch.linspace(-6, 6, 40, requires_grad=True)
    bce, ce = shaped(loss="bce", **shape), shaped(loss="ce", **shape)
    value = bce.value(z[:, None], bce.targets(labels))
    (slope,) = torch.autograd.grad(value, z)
    for tied in (torch.stack((0 * z, z), dim=1), torch.stack((-z / 2, z / 2), dim=1)):
        other = ce.value(tied, ce.targets(labels))
        (other_slope,) = torch.autograd.grad(other, z, retain_graph=True)
        torch.testing.assert_close(other, value)
        torch.testing.assert_close(other_slope, slope)


def test_a_network_learns_the_same_under_both() -> None:
    """With tied outputs, networks with one and with two outputs give the same results."""
    torch.manual_seed(0)
    images, labels = torch.randn(60, 5), torch.arange(60) % 2
    ends = []
    for name in ("bce", "ce"):
        layer = torch.nn.Linear(5, 1)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        loss, optimizer = plain(name), torch.optim.SGD(layer.parameters(), lr=0.5)
        for _ in range(50):
            z = layer(images + labels[:, None])
            outputs = z if name == "bce" else torch.cat((-z / 2, z / 2), dim=1)
            optimizer.zero_grad()
            loss.value(outputs, loss.targets(labels)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        ends.append(layer.weight.detach())
    assert ends[0].abs().max() > 0.1
    torch.testing.assert_close(*ends)


def test_smoothing_is_torch_s() -> None:
    """Smoothed labels of three classes give torch's own cross-entropy."""
    outputs, labels = torch.randn(50, 3), torch.arange(50) % 3
    ours = shaped(3, loss="ce", label_smoothing=0.3).value(outputs, labels)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.3)(outputs, labels)
    torch.testing.assert_close(ours, theirs)


def test_weights_are_torch_s_over_the_whole_training_split() -> None:
    """Over all training images the weighted mean is torch's; batches are not normalised."""
    labels = torch.from_numpy(UNEVEN)
    outputs = torch.randn(40, 2)
    loss = choose_loss(read_recipe({"loss": "ce", "class_weights": "balanced"}), 2, UNEVEN, CPU)
    weights = balanced_weights(UNEVEN, 2)
    assert weights[labels].mean() == pytest.approx(1.0)
    theirs = torch.nn.CrossEntropyLoss(weight=weights)(outputs, labels)
    torch.testing.assert_close(loss.value(outputs, labels), theirs)
    alone = loss.value(outputs[:30], labels[:30])
    torch.testing.assert_close(alone, weights[0] * plain("ce").value(outputs[:30], labels[:30]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_agrees_with_its_formula(gamma: float) -> None:
    """-(1-p)^gamma log p of the true class, computed in float64 with numpy."""
    outputs, labels = torch.randn(50, 4), torch.arange(50) % 4
    logits = outputs.double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p = p[np.arange(50), labels.numpy()]
    expected = float(np.mean(-((1 - p) ** gamma) * np.log(p)))
    loss = shaped(4, loss="focal", focal_gamma=gamma)
    assert loss.value(outputs, labels).item() == pytest.approx(expected, rel=1e-5)


def test_sure_images_do_not_break_focal() -> None:
    """With a probability of 0 or 1, value and gradient stay finite for any gamma."""
    outputs = torch.tensor([[-200.0, 200.0], [200.0, -200.0]], requires_grad=True)
    loss = shaped(2, loss="focal", focal_gamma=0.5)
    loss.value(outputs, torch.tensor([1, 1])).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_a_class_without_images_has_no_weight() -> None:
    """Balanced weights require every class in the training split."""
    with pytest.raises(DataError, match="no weight for 1 of 3"):
        balanced_weights(np.array([0, 1]), 3)
