"""What affects the last bits of a training, beside its code, data and parameters."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from tuner.train.device import Device
from tuner.train.precision import supports_bf16
from tuner.train.products import cpu_model, uses_onednn

LIBRARIES = ("torch", "torchvision", "numpy", "scipy")
"""Libraries that compute weights and figures."""


def numerics(device: Device) -> dict[str, str]:
    """Describe a device's arithmetic: equal descriptions promise equal bits."""
    described = {
        "device": device.torch.type,
        "threads": str(torch.get_num_threads()),
        # Together with the parameters and the model, this determines precision and memory format.
        "bf16": "yes" if supports_bf16(device.torch) else "no",
        "matmul": torch.get_float32_matmul_precision(),
        **{name: _version(name) for name in LIBRARIES},
    }
    if device.torch.type == "cuda":
        return described | _cuda(device.torch)
    return described | _cpu()


def _cpu() -> dict[str, str]:
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "products": "oneDNN" if uses_onednn() else "torch",
        # oneDNN, which computes convolutions on every CPU, divides sums by the sizes of caches: two
        # CPUs with the same instructions may round differently.
        "model": cpu_model(),
    }


def _cuda(device: torch.device) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "gpu": f"{properties.name} sm_{properties.major}{properties.minor}",
    }


@functools.cache  # reading a package's metadata takes some 5 ms, at each trial
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"
