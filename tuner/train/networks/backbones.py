"""torchvision's networks, adapted to a problem's input channels and outputs.

Nothing is ever downloaded: weights are random, or come from a local file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tuner.errors import UserError
from tuner.train.networks.weights import read_weights

RGB = 3
"""Input channels of torchvision's networks and of their published weights."""


@dataclass(frozen=True)
class Backbone:
    """One of torchvision's networks, with the names of its first and last layers."""

    constructor: str
    first: str
    last: str
    smallest: int
    """Smallest side in pixels that survives its poolings."""


BACKBONES: Mapping[str, Backbone] = {
    "resnet18": Backbone("resnet18", "conv1", "fc", 1),
    "densenet121": Backbone("densenet121", "features.conv0", "classifier", 29),
    "efficientnet_b0": Backbone("efficientnet_b0", "features.0.0", "classifier.1", 1),
}


def build_backbone(
    kind: str, inputs: tuple[int, int, int], outputs: int, weights: str
) -> nn.Module:
    """Build one of BACKBONES for images of this shape, with random weights or from a file."""
    backbone = BACKBONES[kind]
    if min(inputs[1:]) < backbone.smallest:
        raise UserError(
            f"images of {inputs[1]}×{inputs[2]} pixels are too small for {kind}; "
            f"use images of at least {backbone.smallest} pixels per side (data.image_size)"
        )
    model = _constructor(backbone)()
    channels = inputs[0]
    if channels != RGB:
        _replace(model, backbone.first, lambda layer: _with_channels(layer, channels))
    _replace(model, backbone.last, lambda layer: _with_outputs(layer, outputs))
    if weights:
        _start_from(model, backbone, Path(weights))
    return model


def _constructor(backbone: Backbone) -> Callable[[], nn.Module]:
    import torchvision.models  # takes 1 s, which our own networks do not need

    constructor: Callable[[], nn.Module] = getattr(torchvision.models, backbone.constructor)
    return constructor


def _replace(model: nn.Module, name: str, change: Callable[[nn.Module], nn.Module]) -> None:
    parent_name, _, child = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, child, change(parent.get_submodule(child)))


def _with_channels(layer: nn.Module, channels: int) -> nn.Module:
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(
        channels,
        layer.out_channels,
        kernel_size=layer.kernel_size,  # type: ignore[arg-type]  # pairs, whatever the stubs say
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )


def _with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, outputs)


def _start_from(model: nn.Module, backbone: Backbone, path: Path) -> None:
    """Load a file's weights; the last layer stays random if its shape does not fit."""
    wanted = model.state_dict()
    loaded = {name: value for name, value in read_weights(path).items() if _counts(name)}
    first = f"{backbone.first}.weight"
    if first in loaded:
        loaded[first] = _fitted(loaded[first], wanted[first])
    last = {f"{backbone.last}.weight", f"{backbone.last}.bias"}
    for name in last & set(loaded):
        if loaded[name].shape != wanted[name].shape:
            del loaded[name]
    _check(path, loaded, wanted, spared=last)
    model.load_state_dict(loaded, strict=False)


def _counts(name: str) -> bool:
    """Return whether a tensor is a weight; batch norm's counters exist only in newer files."""
    return not name.endswith("num_batches_tracked")


def _fitted(weight: Tensor, wanted: Tensor) -> Tensor:
    """Sum the weights over colours for grey images, as if all colours had the same value."""
    if weight.ndim == 4 and weight.shape[1] == RGB and wanted.shape[1] == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight


def _check(
    path: Path, loaded: Mapping[str, Tensor], wanted: Mapping[str, Tensor], spared: set[str]
) -> None:
    needed = {name for name in wanted if _counts(name)} - spared
    faults = [f"{name} is missing" for name in sorted(needed - set(loaded))]
    faults += [f"{name} is not in the network" for name in sorted(set(loaded) - set(wanted))]
    faults += [
        f"{name} has shape {tuple(loaded[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(set(loaded) & set(wanted))
        if loaded[name].shape != wanted[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(
            f"{path} has the weights of another network: {'; '.join(faults[:5])}{more}; "
            "use a file with weights of this model"
        )
