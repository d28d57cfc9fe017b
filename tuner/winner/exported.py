"""A saved network as one file that needs neither tuner nor the objective's code.

TorchScript or ONNX, with the standardisation included: its input is pixels after reading, windowing
and resizing (float32, images × channels × height × width), its output log-probabilities.
"""

import copy
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.errors import MachineError, UserError
from tuner.train.data import Resident
from tuner.train.losses import log_probabilities
from tuner.winner.agreement import compare, words
from tuner.winner.document import EXPORTS, Model
from tuner.winner.kept import StoredPredictions

Form = Literal["torchscript", "onnx"]
Logs = NDArray[np.float32]
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Whole(nn.Module):
    """A network from pixels to log-probabilities."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, model: Model) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(model.reading.mean)[:, None, None])
        self.register_buffer("scale", torch.tensor(model.reading.scale)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the log-probability of every class."""
        images = (pixels.to(torch.float32) - self.mean) * self.scale
        return log_probabilities(self.network(images))


def check_packages(form: str | None) -> None:
    """Refuse a format whose packages are missing, before hours of training."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if form == "onnx" and missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}, which is not installed: "
            "pip install onnx onnxscript onnxruntime, or take --format torchscript."
        )


def write(
    form: Form,
    network: nn.Module,
    model: Model,
    *,
    splits: Mapping[str, Resident],
    stored: StoredPredictions,
    folder: Path,
) -> None:
    """Write the file, read it back, and compare its predictions with the stored ones."""
    # On the CPU, whatever it was trained on, so that the file can be read anywhere.
    whole = Whole(copy.deepcopy(network).to("cpu").eval(), model).eval()
    path = folder / EXPORTS[form]
    example = torch.zeros(2, *model.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of torch, and constants in a trace
        try:
            run = (
                _torchscript(whole, example, path)
                if form == "torchscript"
                else _onnx(whole, example, path)
            )
        # The network is the objective's code, so tracing it may raise anything.
        except Exception as error:
            raise UserError(
                f"The network cannot be written as {form}: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}. Save it without --format."
            ) from error
        for name, split in stored.splits.items():
            _check(
                form,
                name,
                run,
                images=splits[name],
                stored=split.log_probabilities,
                size=model.arithmetic.evaluation_batch,
            )


def _torchscript(whole: Whole, example: Tensor, path: Path) -> Callable[[Tensor], Logs]:
    with torch.inference_mode():
        torch.jit.save(torch.jit.trace(whole, example, check_trace=False), str(path))  # type: ignore[no-untyped-call]
    read = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(images: Tensor) -> Logs:
        with torch.inference_mode():
            return np.asarray(read(images).numpy(), np.float32)

    return run


def _onnx(whole: Whole, example: Tensor, path: Path) -> Callable[[Tensor], Logs]:
    import onnxruntime

    torch.onnx.export(
        whole,
        (example,),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["pixels"],
        output_names=["log_probabilities"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("images")}},
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Logs:
        return np.asarray(session.run(None, {"pixels": images.numpy()})[0], np.float32)

    return run


def _check(
    form: str,
    name: str,
    run: Callable[[Tensor], Logs],
    *,
    images: Resident,
    stored: Logs,
    size: int,
) -> None:
    parts: Sequence[Logs] = [
        run(images.images[start : start + size].to("cpu").to(torch.float32))
        for start in range(0, len(stored), size)
    ]
    found = np.concatenate(parts)
    agreement = compare(found, stored)
    if not agreement.matches:
        raise MachineError(
            f"As {form}, the network gives different predictions; nothing was saved. "
            f"{words(agreement, name)} It may have data-dependent control flow, which tracing "
            "cannot capture. Save it without --format."
        )
