"""What this machine can train on, found without torch."""

import os

from tuner.errors import UserError
from tuner.settings import visible_gpus


def gpus() -> int:
    """Return how many NVIDIA GPUs a process of ours may use; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        present = int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()
    # NVML sees every card; CUDA numbers only those that the variable leaves visible.
    visible = visible_gpus()
    return present if visible is None else min(present, visible)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def crew_devices(wanted: str, workers: int | None, threads: int) -> tuple[str, ...]:
    """Return a device for each worker: one a GPU, or without GPUs one for each free core.

    `wanted` is auto, cpu, cuda, or a single device such as cuda:1.
    """
    found = gpus() if wanted in ("auto", "cuda") else 0
    if wanted == "cuda" and found == 0:
        raise UserError("--device cuda was asked for, but no NVIDIA GPU answers on this machine.")
    if found:
        places = [f"cuda:{index}" for index in range(found)]
        return tuple(places[index % found] for index in range(workers or found))
    single = "cpu" if wanted == "auto" else wanted
    default = max(1, cores() // threads) if single == "cpu" else 1
    return (single,) * (workers or default)
