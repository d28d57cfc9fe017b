"""The devices that this machine can train on, found without torch."""

import os

from tuner.errors import UserError
from tuner.settings import visible_gpus


def gpus() -> int:
    """Return how many NVIDIA GPUs our processes may use; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        present = int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
    # NVML sees every card; CUDA numbers only those that CUDA_VISIBLE_DEVICES leaves visible.
    visible = visible_gpus()
    return present if visible is None else min(present, visible)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crew_devices(wanted: str, workers: int | None, threads: int) -> tuple[str, ...]:
    """Return a device for each worker: one worker per GPU, or per core without GPUs.

    `wanted` is auto, cpu, cuda, or a single device such as cuda:1.
    """
    count = gpus() if wanted in ("auto", "cuda") else 0
    if wanted == "cuda" and count == 0:
        raise UserError(
            "This machine has no usable NVIDIA GPU (--device cuda). Leave out --device to train on "
            "the CPU."
        )
    if count:
        places = [f"cuda:{index}" for index in range(count)]
        return tuple(places[index % count] for index in range(workers or count))
    single = "cpu" if wanted == "auto" else wanted
    default = max(1, cores() // threads) if single == "cpu" else 1
    return (single,) * (workers or default)
