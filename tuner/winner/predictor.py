"""Runs a saved network: built only if it fits its weights, and evaluated as in the study.

Its output for an image depends on the other images of a batch only by rounding; see
`document.TOLERANCE`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuner.errors import ObjectiveError, UserError
from tuner.spec.study import WEIGHTS
from tuner.train.checkpoints.keys import shaping
from tuner.train.device import Device
from tuner.train.losses import log_probabilities, output_count
from tuner.train.objective import FoundObjective
from tuner.train.precision import Arithmetic, choose_arithmetic, lay_out, supports_bf16
from tuner.train.recipe import read_recipe
from tuner.train.state import Weights
from tuner.winner.document import Model

Logs = NDArray[np.float32]
Images = NDArray[np.uint8] | NDArray[np.float32]
Progress = Callable[[str, int, int], None]

SPARE_BYTES = 256 << 20
"""Bytes that building a network may allocate in addition to its weights, and per weight."""


class Averaged(nn.Module):
    """An ensemble: returns the logarithm of its members' mean probabilities."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-probability of every class."""
        logs = [log_probabilities(member(images)) for member in self.members]
        return torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))


class Predictor:
    """A network with its weights on a device."""

    def __init__(
        self, model: Model, weights: Weights, found: FoundObjective, device: Device
    ) -> None:
        self._model = model
        self._device = device
        parameters = shaping(model.parameters)
        if WEIGHTS in parameters:
            # The pretrained weights it started from are not needed any more, and may be gone.
            parameters[WEIGHTS] = ""
        outputs = output_count(read_recipe(model.parameters), len(model.classes))
        self._outputs = len(model.classes) if model.members else outputs

        def build() -> nn.Module:
            if not model.members:
                return found.build_model(parameters, model.shape, outputs)
            return Averaged(
                found.build_model(parameters, model.shape, outputs) for _ in model.members
            )

        _check_before_building(build, weights, model)
        self._network = build()
        self._network.to(device.torch)
        self._arithmetic = _arithmetic(model, device, self._network)
        lay_out(self._network, self._arithmetic)
        _check_weights(self._network, weights, model)
        self._network.load_state_dict(weights)
        self._network.eval()
        self._mean = _by_channel(model.reading.mean, device)
        self._scale = _by_channel(model.reading.scale, device)

    @property
    def network(self) -> nn.Module:
        """The network itself; its input is what `standardised` returns."""
        return self._network

    @property
    def outputs(self) -> int:
        """The number of outputs per image: one with loss bce, else one per class."""
        return self._outputs

    def standardised(self, batch: Images) -> Tensor:
        """Return images as the network's input: as float32, minus mean, times scale."""
        raw = torch.from_numpy(batch).to(self._device.torch)
        # The same operations as in the trainer's feed.
        return raw.to(torch.float32).sub_(self._mean).mul_(self._scale)

    def predict(self, images: Sequence[Images], progress: Progress) -> Logs:
        """Return the log-probabilities of images, in batches as large as the study's."""
        logs = np.empty((len(images), len(self._model.classes)), np.float32)
        size = self._model.arithmetic.evaluation_batch
        for start in range(0, len(images), size):
            batch = cast("Images", np.stack(images[start : start + size]))
            logs[start : start + len(batch)] = self._compute(batch)
            progress("predicting", start + len(batch), len(images))
        return logs

    def _compute(self, batch: Images) -> Logs:
        images = self.standardised(batch)
        with torch.inference_mode():
            found = log_probabilities(self._output(images))
        return np.asarray(found.cpu().numpy(), np.float32)

    def _output(self, images: Tensor) -> Tensor:
        name = self._model.objective
        try:
            output: Tensor = self._network(self._arithmetic.arranged(images))
        # The model is the objective's code: any exception is a fault of the objective.
        except Exception as error:
            raise ObjectiveError(
                f"the model of objective {name!r} fails on images of shape {self._model.shape}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if tuple(output.shape) != (len(images), self._outputs):
            raise ObjectiveError(
                f"the model of objective {name!r} gives outputs of shape {tuple(output.shape)} for "
                f"{len(images)} images; ({len(images)}, {self._outputs}) is needed"
            )
        return output


def _arithmetic(model: Model, device: Device, network: nn.Module) -> Arithmetic:
    """Return the trial's arithmetic on this device; evaluation is always float32."""
    asked = read_recipe(model.parameters).precision
    if asked == "bf16" and not supports_bf16(device.torch):
        asked = "fp32"
    return choose_arithmetic(asked, device.torch, network)


def _check_before_building(build: Callable[[], nn.Module], weights: Weights, model: Model) -> None:
    """Refuse a network that does not fit the weights before it allocates memory.

    model.json may come from anybody: a width of 65,536 is valid and would take 17 GB per layer. On
    the meta device, tensors have shapes but no memory, so the network's shapes are compared with
    the weights' first. Code that needs real numbers to build (`.item()`) fails there; it is built
    on the CPU, within the same bound on memory.
    """
    given = sum(value.nbytes for value in weights.values())
    try:
        with _Allocations(2 * given + SPARE_BYTES), torch.device("meta"):
            planned = build()
    except ObjectiveError as error:
        if isinstance(error.__cause__, _TooLargeError):
            raise _not_its_weights(model, "it takes far more memory than they do") from None
    else:
        _check_weights(planned, weights, model)
        return
    try:
        with _Allocations(2 * given + SPARE_BYTES):
            build()
    except ObjectiveError as error:
        if isinstance(error.__cause__, _TooLargeError):
            raise _not_its_weights(model, "it takes far more memory than they do") from None
        raise


class _TooLargeError(Exception):
    """Building a network allocates more than its weights can explain."""


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all new tensors, and raises an error above the limit.

    A new tensor of gigabytes uses no memory yet: the kernel allocates pages when they are written
    to, so raising after the call that created it is early enough.
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = most
        self._total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to guard this mode against its compiler.

        For that, it would load the compiler, which takes a second, and nothing is compiled here.
        """
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Results with alias information are views, or were written to in place.
        if not any(returned.alias_info for returned in func._schema.returns):
            found = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
            self._total += sum(one.nbytes for one in found if one.device.type != "meta")
        if self._total > self._most:
            raise _TooLargeError
        return result


def _check_weights(network: nn.Module, weights: Weights, model: Model) -> None:
    wanted = {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}
    given = {name: (value.shape, value.dtype) for name, value in weights.items()}
    if wanted != given:
        odd = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
        raise _not_its_weights(model, f"{len(odd)} differ, such as {odd[0]}")


def _not_its_weights(model: Model, how: str) -> UserError:
    return UserError(
        f"The weights do not fit the network that objective {model.objective!r} builds here "
        f"({how}): its code has changed since, or another objective has the same name; "
        "--objectives FOLDER says where to look."
    )


def _by_channel(values: Sequence[float], device: Device) -> Tensor:
    # They are float32 values written with all digits, so nothing is rounded here.
    return torch.tensor(values, dtype=torch.float32, device=device.torch)[:, None, None]


def memory_of(model: Model) -> int:
    """Return the size of an image in bytes, as it is read."""
    return math.prod(model.inputs) * (1 if model.reading.pixels == "uint8" else 4)
