"""The device that a trainer computes on, and its numerics.

Two runs of one trial on the CPU must agree in every bit, so all of torch's
process-wide options are set here, once, and recorded with the reason.
"""

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch

from tuner.errors import MachineError, UserError
from tuner.train.products import uses_onednn

EVALUATION_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
"""Size of an evaluation batch as float32: it fits in a CPU's cache, or fills a GPU."""

CONVOLVED_BYTES = {"cpu": 512 << 10, "cuda": 64 << 20}
"""The same for convolutional networks, whose activations are tens of times larger than an image."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""The parameters of mallopt, from malloc.h."""

KEPT_BLOCK = 32 << 20
"""Largest block, in bytes, that is reused after it was freed; glibc's maximum."""


@dataclass(frozen=True)
class Device:
    """An opened device, its name for the record, and its numerics."""

    torch: torch.device
    description: str
    notes: Mapping[str, str]

    def evaluation_size(self, image_elements: int, *, convolves: bool) -> int:
        """Return how many images of this many elements are evaluated at a time."""
        budgets = CONVOLVED_BYTES if convolves else EVALUATION_BYTES
        budget = budgets.get(self.torch.type, budgets["cpu"])
        return max(1, budget // (4 * image_elements))


def open_device(text: str, threads: int) -> Device:
    """Open "cpu", "cuda:N" or "mps" and fix the numerics of this process for it."""
    device = _parse(text)
    _check_present(device, text)
    if device.type == "cuda":
        # Streams and recordings are the current device's where none is named.
        torch.cuda.set_device(device)
    _keep_freed_memory()
    _fix_threads(threads)
    _fix_determinism(device)
    return Device(device, _describe(device), _notes(device, threads))


def _parse(text: str) -> torch.device:
    try:
        return torch.device("cuda:0" if text == "cuda" else text)
    except RuntimeError:
        raise UserError(f"{text!r} is not a device; expected cpu, cuda:0 or mps") from None


def _check_present(device: torch.device, text: str) -> None:
    if device.type == "cpu":
        return
    backend = getattr(torch, device.type, None)
    count = backend.device_count() if backend is not None and backend.is_available() else 0
    if (device.index or 0) >= count:
        raise MachineError(
            f"device {text} is not usable here: torch {torch.__version__} sees {count} "
            f"device(s) of kind {device.type}; choose another with --device, or use --device cpu"
        )


def _keep_freed_memory() -> None:
    """Make malloc keep the memory that tensors free, for the tensors of the next step.

    By default glibc returns large blocks to the system and gets them back page by
    page: that takes half the time of a CNN's float32 epoch at 64×64, and two thirds of
    its evaluation.
    """
    with suppress(OSError, AttributeError):  # other C libraries have no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _fix_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        # Allowed only before the first parallel work of a process; our operators
        # run one after the other in any case, so the bits do not depend on it.
        with suppress(RuntimeError):
            torch.set_num_interop_threads(1)


def _fix_determinism(device: torch.device) -> None:
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    if device.type != "cpu":
        return
    # Like `use_deterministic_algorithms(True)`, which would also load torch's compiler in 2 s.
    torch.set_deterministic_debug_mode("error")
    # By default the mode above also fills every new tensor, which costs time and helps nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _notes(device: torch.device, threads: int) -> dict[str, str]:
    notes = {
        "torch": torch.__version__,
        "threads": f"{threads}: results differ in their last bits with the number of threads",
    }
    if device.type == "cuda":
        notes["tf32"] = "off: its 10-bit products would differ between generations of GPUs"
        notes["cudnn"] = "deterministic algorithms, no benchmarking: the same kernels every run"
    if device.type == "cpu":
        notes["cpu"] = torch.backends.cpu.get_cpu_capability()
        if uses_onednn():
            notes["products"] = "large ones of plain layers by oneDNN: MKL leaves AVX-512 unused"
        notes["determinism"] = "deterministic algorithms only: two runs agree in every bit"
    return notes
