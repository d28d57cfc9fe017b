"""Code that loads a saved network in plain PyTorch, for its model card."""

from collections.abc import Iterator, Mapping

from torch import nn

from tuner.records import Value
from tuner.train.networks.backbones import BACKBONES, RGB
from tuner.winner.document import WEIGHTS, Model

LAYERS = (
    nn.Flatten,
    nn.Linear,
    nn.ReLU,
    nn.Dropout,
    nn.Dropout2d,
    nn.Conv2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GELU,
    nn.LeakyReLU,
    nn.Sigmoid,
    nn.Tanh,
)
"""Layers whose `repr` is the call that creates them, inside a Sequential."""


def network_lines(network: nn.Module, parameters: Mapping[str, Value]) -> list[str] | None:
    """Return lines that build a network of torch's own layers; None if that is not possible.

    They are run here and must give a network that accepts the same weights and then has the same
    outputs, so an incomplete `repr` is detected.
    """
    layers = _sequential(network)
    if layers is not None:
        lines = ["network = nn.Sequential(", *(f"    {layer}," for layer in layers), ")"]
    elif type(network).__module__.startswith("torchvision.models."):
        lines = _backbone(network, str(parameters.get("model")))
    else:
        return None
    return lines if lines and _builds(lines, network) else None


def card_lines(model: Model, network: list[str], outputs: int) -> list[str]:
    """Return the card's lines: load the network and its weights, read an image, predict it."""
    torchvision = any("torchvision" in line for line in network)
    return [
        f"import numpy as np, torch{', torchvision' if torchvision else ''}",
        "from PIL import Image",
        "from safetensors.torch import load_file",
        "from torch import nn",
        *_loading(model, network),
        *_reading(model),
        *_standardising(model),
        "with torch.inference_mode():",
        *_predicting(model, outputs),
        f"print(dict(zip({model.classes!r}, logs.exp()[0].tolist())))",
    ]


def _loading(model: Model, network: list[str]) -> Iterator[str]:
    """Yield lines that build the network, or each of an ensemble, and load its weights."""
    if not model.members:
        yield from network
        yield f'network.load_state_dict(load_file("{WEIGHTS}"))'
        yield "network.eval()"
        return
    yield f'weights, networks = load_file("{WEIGHTS}"), []'
    seeds = ", ".join(str(member.seed) for member in model.members)
    yield f"for n in range({len(model.members)}):  # seeds {seeds}"
    yield from (f"    {line}" for line in network)
    yield '    own = f"members.{n}."'
    yield (
        "    network.load_state_dict({k.removeprefix(own): v for k, v in weights.items() "
        "if k.startswith(own)})"
    )
    yield "    networks.append(network.eval())"


def _predicting(model: Model, outputs: int) -> Iterator[str]:
    """Yield lines that compute log-probabilities; for an ensemble, of the mean probabilities."""
    logs = "network(image[None]).log_softmax(1)"
    if outputs == 1:
        logs = "nn.functional.logsigmoid(network(image[None]) * torch.tensor([[-1.0, 1.0]]))"
    if not model.members:
        yield f"    logs = {logs}"
        return
    yield f"    each = [{logs} for network in networks]"
    yield "    logs = torch.stack(each).exp().mean(0).log()"


def _reading(model: Model) -> Iterator[str]:
    """Yield lines that read, resize and window a file as for training."""
    _, height, width = model.inputs
    reading = model.reading
    size = f"({width}, {height})"
    if reading.files in ("alike", "unchecked") and reading.kind in ("8-bit", "16-bit"):
        if reading.kind == "8-bit":
            yield 'image = Image.open("scan.png").convert("L")'
        else:
            yield 'image = Image.fromarray(np.asarray(Image.open("scan.tif")).astype(np.float32))'
        yield from _fitting(reading.fit, height, width)
        if reading.fit != "pad":
            yield f"image = image.resize({size}, Image.Resampling.BILINEAR)  # width, height"
        yield "pixels = np.asarray(image, np.float32)"
        if reading.kind == "16-bit":
            yield "pixels = np.rint(pixels.clip(0, 65535))"
    else:
        what = "channels, height, width" if model.inputs[0] > 1 else "height, width"
        yield f'pixels = np.load("scan.npy").astype(np.float32)  # ({what}), as the study had them'
    if reading.window is not None:
        low, high = reading.window
        yield f"pixels = (pixels - {low!r}) * (255.0 / ({high!r} - {low!r}))  # the study's window"
        yield "pixels = np.rint(pixels.clip(0, 255))"


def _fitting(fit: str, height: int, width: int) -> Iterator[str]:
    """Yield lines that keep an image's proportions, if the study does."""
    if fit == "stretch":
        return
    most, op = ("max", "/") if fit == "crop" else ("min", "*")
    yield f"ratio = {most}({height} / image.height, {width} / image.width)"
    if fit == "crop":
        yield f"h = min(image.height, max(1, round({height} {op} ratio)))"
        yield f"w = min(image.width, max(1, round({width} {op} ratio)))"
        yield "top, left = (image.height - h) // 2, (image.width - w) // 2"
        yield "image = image.crop((left, top, left + w, top + h))"
    else:
        yield f"h = min({height}, max(1, round(image.height {op} ratio)))"
        yield f"w = min({width}, max(1, round(image.width {op} ratio)))"
        yield f"black = Image.new(image.mode, ({width}, {height}))"
        yield "inner = image.resize((w, h), Image.Resampling.BILINEAR)"
        yield f"black.paste(inner, (({width} - w) // 2, ({height} - h) // 2))"
        yield "image = black"


def _standardising(model: Model) -> Iterator[str]:
    mean, scale = model.reading.mean, model.reading.scale
    shape = ", ".join(map(str, model.inputs))
    yield f"mean = torch.tensor({mean!r})[:, None, None]"
    yield f"scale = torch.tensor({scale!r})[:, None, None]  # 1 / standard deviation"
    yield (
        f"image = (torch.tensor(pixels).reshape({shape}) - mean) * scale  # multiply, not divide"
    )


def _sequential(network: nn.Module) -> list[str] | None:
    if type(network) is not nn.Sequential:
        return None
    # By exact type, because a subclass may compute anything and have the same repr.
    if any(type(layer) not in LAYERS for layer in network):
        return None
    return [f"nn.{layer!r}" for layer in network]


def _backbone(network: nn.Module, kind: str) -> list[str]:
    if kind not in BACKBONES:
        return []
    backbone = BACKBONES[kind]
    lines = [f"network = torchvision.models.{backbone.constructor}()"]
    first = network.get_submodule(backbone.first)
    if isinstance(first, nn.Conv2d) and first.in_channels != RGB:
        lines.append(f"network{_path(backbone.first)} = nn.{first!r}")
    lines.append(f"network{_path(backbone.last)} = nn.{network.get_submodule(backbone.last)!r}")
    return lines


def _path(name: str) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split("."))


def _builds(lines: list[str], network: nn.Module) -> bool:
    import torchvision

    # Composed above only from names of torch's own layers and numbers.
    names = {"nn": nn, "torchvision": torchvision}
    try:
        exec("\n".join(lines), names)  # noqa: S102
        built = names["network"]
        assert isinstance(built, nn.Module)
        built.load_state_dict(network.state_dict())
    except (NameError, TypeError, ValueError, RuntimeError, SyntaxError):
        return False
    return _settings(built) == _settings(network)


def _settings(network: nn.Module) -> list[str]:
    return [repr(layer) for layer in network.modules()]
