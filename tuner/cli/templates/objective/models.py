"""The networks of my_objective: those that come with tuner, and a place for your own."""

from collections.abc import Mapping

from torch import nn

from tuner.records import Value
from tuner.train.networks.models import build as build_shared


def build(parameters: Mapping[str, Value], inputs: tuple[int, int, int], outputs: int) -> nn.Module:
    """Build a fresh network for images of shape (channels, height, width).

    `outputs` is the number of classes, or 1 with loss = "bce". The network
    returns one row of that many numbers per image, without softmax or sigmoid.
    Draw its weights from torch's global generator, which is seeded beforehand.
    """
    # Your own network: add its name to the choices of `model` in __init__.py, then
    # if parameters["model"] == "mine":
    #     return nn.Sequential(nn.Flatten(), nn.Linear(inputs[0] * inputs[1] * inputs[2], outputs))
    return build_shared(parameters, inputs, outputs)
