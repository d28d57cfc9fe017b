"""The shared networks: their layers, what they refuse, and weights from a file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.train.blobs import untimed
from tuner.errors import UserError
from tuner.records import Job, Value
from tuner.train.networks.backbones import BACKBONES
from tuner.train.networks.declared import KINDS, PARAMETERS
from tuner.train.networks.models import NETWORKS, build
from tuner.train.objective import find
from tuner.train.state import fingerprint
from tuner.train.workbench import Workbench

GREY = (1, 32, 32)


def chosen(**given: Value) -> Mapping[str, Value]:
    """Return all parameters of the networks, with defaults except for the given ones."""
    return {**{parameter.name: parameter.default for parameter in PARAMETERS}, **given}


def size(model: nn.Module) -> int:
    """Return how many weights a network has."""
    return sum(weight.numel() for weight in model.parameters())


def test_every_declared_kind_can_be_built() -> None:
    """Every network kind that a study may name can be built."""
    assert {*NETWORKS, *BACKBONES} == set(KINDS)


def test_the_cnn_is_the_reports() -> None:
    """It has as many weights as lab report E's network at 256×256 with one output."""
    assert size(build(chosen(model="cnn"), (1, 256, 256), 1)) == 1_067_457


def test_the_fully_connected_network_is_the_reports() -> None:
    """It has lab report E's three hidden layers of 32 at 256×256."""
    parameters = chosen(model="ann", width=32, batch_norm=False, dropout=0.0)
    assert size(build(parameters, (1, 256, 256), 1)) == 2_099_329


@pytest.mark.parametrize("kernel", [2, 3])
def test_pooling_before_the_relu_changes_nothing(kernel: int) -> None:
    """Outputs and gradients equal those of the usual order, bit for bit."""
    ours = build(chosen(model="cnn_gap", pool_kernel=kernel), (3, 32, 32), 2)
    usual: list[nn.Module] = list(ours)  # type: ignore[call-overload]
    for place in (1, 4, 7):
        usual[place], usual[place + 1] = usual[place + 1], usual[place]
    images = torch.randn(5, 3, 32, 32)
    found = []
    for model in (ours, nn.Sequential(*usual)):
        for weight in model.parameters():
            weight.grad = None
        outputs = model(images)
        outputs.square().sum().backward()
        found.append([outputs.detach(), *(weight.grad for weight in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_global_average_pooling_does_not_depend_on_the_images_size() -> None:
    """The same weights work for images of any size, pooled by 2 or by 4."""
    for kernel in (2, 4):
        model = build(chosen(model="cnn_gap", pool_kernel=kernel), (1, 64, 64), 2)
        assert model(torch.zeros(3, 1, 96, 80)).shape == (3, 2)
        pools = [layer for layer in model.children() if isinstance(layer, nn.MaxPool2d)]
        assert [pool.kernel_size for pool in pools] == [kernel] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [GREY, (3, 40, 36)])
def test_every_network_learns_from_its_images(kind: str, inputs: tuple[int, int, int]) -> None:
    """Outputs have the requested shape, and every weight gets a gradient."""
    torch.manual_seed(0)
    model = build(chosen(model=kind), inputs, 3)
    outputs = model(torch.randn(4, *inputs))
    assert outputs.shape == (4, 3)
    outputs.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_build_equal_networks(kind: str) -> None:
    """Building draws from torch's seeded generator only."""
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build(chosen(model=kind), GREY, 2).state_dict())
    assert len(states[0]) > 0
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_the_same_in_every_bit(kind: str, tmp_path: Path) -> None:
    """Trained twice on a CPU from one seed, every network has the same weights and figures."""
    declared = find("chest_xray", []).objective.declarations()
    keys: dict[str, Value] = {name: each.default for name, each in declared.data.items()}
    keys |= {"image_size": 32, "train_images": 16, "val_images": 8, "test_images": 8}
    parameters = {name: each.default for name, each in declared.parameters.items()}
    job = Job("chest_xray", {**parameters, "model": kind, "epochs": 1, "batch_size": 8}, keys, 3)
    bench = Workbench("cpu", 1, tmp_path, [], lambda *_: None)
    seen = []
    for _ in range(2):
        run = bench.begin(job)
        (epoch,) = run.epochs(lambda: None)
        seen.append((untimed(epoch), fingerprint(run.state().weights)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("parameters", "inputs", "words"),
    [
        ({"model": "cnn", "pool_kernel": 4}, GREY, "at least 64 pixels"),
        ({"model": "cnn_gap", "pool_kernel": 4}, (1, 64, 60), "smaller pool_kernel"),
        ({"model": "densenet121"}, (1, 28, 28), "at least 29 pixels"),
        ({"model": "ann", "weights": "w.pt"}, GREY, "only resnet18, densenet121"),
    ],
)
def test_what_cannot_be_built_is_told(
    parameters: dict[str, Value], inputs: tuple[int, int, int], words: str
) -> None:
    """Too small images and unused weights are refused, with what to do."""
    with pytest.raises(UserError, match=re.escape(words)):
        build(chosen(**parameters), inputs, 2)


def test_densenet_takes_its_smallest_images() -> None:
    """The documented minimum is exact."""
    assert build(chosen(model="densenet121"), (1, 29, 29), 2).eval()(
        torch.zeros(2, 1, 29, 29)
    ).shape == (2, 2)


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested"])
def test_weights_come_from_a_file(form: str, tmp_path: Path) -> None:
    """Weights for colour images of 1,000 classes initialise a network for grey ones of two."""
    import torchvision.models

    torch.manual_seed(1)
    published = torchvision.models.resnet18().state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(published, path)
    else:
        torch.save(published if form == "torch" else {"state_dict": published, "epoch": 3}, path)
    model = build(chosen(model="resnet18", weights=str(path)), GREY, 2)
    state = model.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], published["layer1.0.conv1.weight"])
    assert torch.equal(state["conv1.weight"], published["conv1.weight"].sum(1, keepdim=True))
    assert state["fc.weight"].shape == (2, 512)
    grey = torch.rand(2, 1, 32, 32)
    reference = torchvision.models.resnet18()
    reference.load_state_dict(published)
    reference.fc = model.get_submodule("fc")
    assert torch.allclose(
        model.eval()(grey), reference.eval()(grey.expand(2, 3, 32, 32)), atol=1e-4
    )


def write(path: Path, held: Any) -> str:
    """Save an object with torch and return its path."""
    torch.save(held, path)
    return str(path)


class Trap:
    """Has an effect when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Create a file in place of an object."""
        return Path.touch, (Path(self.__dict__["path"]),)


def test_a_file_is_never_executed(tmp_path: Path) -> None:
    """A torch file that would run code is refused, and the code does not run."""
    trap = Trap()
    trap.__dict__["path"] = str(tmp_path / "harm")
    path = write(tmp_path / "w.pth", {"conv1.weight": trap})
    with pytest.raises(UserError, match="not a file of weights"):
        build(chosen(model="resnet18", weights=path), GREY, 2)
    assert not (tmp_path / "harm").exists()


def test_files_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """A missing file, another kind of file and another network's weights have their reasons."""
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "text.pth").write_text("no weights")
    other = write(tmp_path / "other.pth", build(chosen(model="cnn"), GREY, 2).state_dict())
    listed = write(tmp_path / "list.pth", [torch.zeros(1)])
    cases = {
        str(tmp_path / "none.pth"): "there is no file of weights",
        str(tmp_path / "text.safetensors"): "not a file of weights",
        str(tmp_path / "text.pth"): "not a file of weights",
        str(tmp_path): "cannot be read",
        other: "another network",
        listed: "no weights by name",
    }
    for path, words in cases.items():
        with pytest.raises(UserError, match=words):
            build(chosen(model="resnet18", weights=path), GREY, 2)
