"""Networks for chest radiographs, by the value of the parameter `model`."""

from collections.abc import Callable, Mapping

from torch import nn

from tuner.records import Value

Shape = tuple[int, int, int]
"""Of one image: channels, height, width."""


def build(parameters: Mapping[str, Value], inputs: Shape, outputs: int) -> nn.Module:
    """Build the fresh model that the parameters describe."""
    return MODELS[str(parameters["model"])](parameters, inputs, outputs)


def ann(parameters: Mapping[str, Value], inputs: Shape, outputs: int) -> nn.Module:
    """Build a fully connected network: `depth` blocks of `width` units, then the outputs."""
    channels, height, wide = inputs
    width = int(parameters["width"])
    layers: list[nn.Module] = [nn.Flatten()]
    features = channels * height * wide
    for _ in range(int(parameters["depth"])):
        layers += _block(parameters, features, width)
        features = width
    return nn.Sequential(*layers, nn.Linear(features, outputs))


def _block(parameters: Mapping[str, Value], features: int, width: int) -> list[nn.Module]:
    norm: list[nn.Module] = [nn.BatchNorm1d(width)] if parameters["batch_norm"] else []
    return [nn.Linear(features, width), *norm, nn.ReLU(), nn.Dropout(float(parameters["dropout"]))]


MODELS: dict[str, Callable[[Mapping[str, Value], Shape, int], nn.Module]] = {"ann": ann}
"""One builder a kind of network; a new kind needs a line here and in the declarations."""
