"""Networks for 8×8 images: the shared ann, and a convolutional one with a single pooling."""

from collections.abc import Mapping

from torch import nn

from tuner.records import Value
from tuner.train.networks.models import ann

CHANNELS = (16, 32)


def build(parameters: Mapping[str, Value], inputs: tuple[int, int, int], outputs: int) -> nn.Module:
    """Build a fresh network of the kind that `model` names."""
    if parameters["model"] == "ann":
        return ann(parameters, inputs, outputs)
    return small_cnn(inputs, outputs)


def small_cnn(inputs: tuple[int, int, int], outputs: int) -> nn.Module:
    """Build two convolutions and one pooling; three poolings would leave one pixel of 8×8."""
    channels, height, width = inputs
    first, second = CHANNELS
    return nn.Sequential(
        nn.Conv2d(channels, first, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 2) * (width // 2), outputs),
    )
