"""Builds the network that a trial's parameters describe."""

from collections.abc import Callable, Mapping

from torch import nn

from tuner.errors import UserError
from tuner.records import Value
from tuner.train.networks.backbones import BACKBONES, build_backbone

Shape = tuple[int, int, int]
"""Of one image: channels, height, width."""

BLOCKS = 3
"""Number of convolutional blocks of cnn and cnn_gap, as in the lab report that defined the cnn."""
CHANNELS = 32
UNITS = 32
"""Units of the linear layer between the blocks and the outputs."""


def build(parameters: Mapping[str, Value], inputs: Shape, outputs: int) -> nn.Module:
    """Build a new network of the kind that `model` names."""
    kind = str(parameters["model"])
    weights = str(parameters.get("weights", ""))
    if kind in BACKBONES:
        return build_backbone(kind, inputs, outputs, weights)
    if weights:
        loadable = ", ".join(BACKBONES)
        raise UserError(
            f"weights = {weights!r} cannot be used with model = {kind!r}: only {loadable} can "
            "start from a file; choose one of them or remove weights"
        )
    return NETWORKS[kind](parameters, inputs, outputs)


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


def cnn(parameters: Mapping[str, Value], inputs: Shape, outputs: int) -> nn.Module:
    """Build three convolutional blocks, flattened into a linear layer, then the outputs."""
    height, width = _pooled(parameters, inputs)
    return nn.Sequential(
        *_convolutions(parameters, inputs[0]),
        nn.Flatten(),
        *_head(CHANNELS * height * width, outputs),
    )


def cnn_gap(parameters: Mapping[str, Value], inputs: Shape, outputs: int) -> nn.Module:
    """Build the cnn with global average pooling in place of flattening."""
    _pooled(parameters, inputs)
    return nn.Sequential(
        *_convolutions(parameters, inputs[0]),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *_head(CHANNELS, outputs),
    )


NETWORKS: Mapping[str, Callable[[Mapping[str, Value], Shape, int], nn.Module]] = {
    "ann": ann,
    "cnn": cnn,
    "cnn_gap": cnn_gap,
}
"""Builders of our own networks; the others are torchvision's."""


def _block(parameters: Mapping[str, Value], features: int, width: int) -> list[nn.Module]:
    norm: list[nn.Module] = [nn.BatchNorm1d(width)] if parameters["batch_norm"] else []
    return [nn.Linear(features, width), *norm, nn.ReLU(), nn.Dropout(float(parameters["dropout"]))]


def _convolutions(parameters: Mapping[str, Value], channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(BLOCKS):
        convolution = nn.Conv2d(channels, CHANNELS, kernel_size=3, padding=1)
        # After pooling, the ReLU has a quarter of the work; outputs and gradients are the same.
        layers += [convolution, nn.MaxPool2d(int(parameters["pool_kernel"])), nn.ReLU()]
        channels = CHANNELS
    return layers


def _head(features: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(features, UNITS), nn.ReLU(), nn.Linear(UNITS, outputs)]


def _pooled(parameters: Mapping[str, Value], inputs: Shape) -> tuple[int, int]:
    """Return height and width after all poolings, or raise if nothing is left."""
    kernel = int(parameters["pool_kernel"])
    _, height, width = inputs
    for _ in range(BLOCKS):
        height, width = height // kernel, width // kernel
    if min(height, width) == 0:
        raise UserError(
            f"images of {inputs[1]}×{inputs[2]} pixels are too small for {BLOCKS} poolings by "
            f"{kernel}: nothing would be left; use images of at least {kernel**BLOCKS} pixels "
            "per side (data.image_size) or a smaller pool_kernel"
        )
    return height, width
