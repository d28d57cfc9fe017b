"""The devices that this machine can train on, found without torch."""

import os
from collections.abc import Callable, Sequence

from tuner.errors import MachineError, UserError
from tuner.fleet.gpus import NAMED, Gpu, claimant, find_gpus
from tuner.settings import visible_gpus

AUTO = "auto"
"""As many workers on a GPU as it has room for."""


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
    # NVML sees every card; CUDA numbers only those in CUDA_VISIBLE_DEVICES.
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


def place_crew(
    wanted: str,
    workers: int | None,
    threads: int,
    *,
    devices: Sequence[str] = (),
    per_gpu: int | str = 1,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[str, ...]:
    """Return a device for each worker of a crew, on GPUs that nobody else is using.

    Named GPUs (`devices`: numbers or UUIDs) are used even if other processes are at work on them.
    `tell` is called with a line for each GPU that is left out. With `per_gpu="auto"` each GPU
    starts with one worker, and `fleet/filling` adds others.
    """
    if per_gpu == AUTO and workers is not None:
        raise UserError(
            "--workers says how many workers there are; leave it out with --per-gpu auto."
        )
    if not devices and wanted not in ("auto", "cuda"):
        return crew_devices(wanted, workers, threads)
    present = find_gpus()
    if devices:
        places = [_named(name, present) for name in devices]
    else:
        if not present:
            return crew_devices(wanted, workers, threads)
        reasons = {gpu.device: _taken(gpu) for gpu in present}
        places = [device for device, reason in reasons.items() if not reason]
        left_out = [f"{gpu.label} {reasons[gpu.device]}" for gpu in present if reasons[gpu.device]]
        if not places:
            raise MachineError(
                "All GPUs of this machine are in use:\n"
                + "\n".join(f"  {line}" for line in left_out)
                + "\nWait, name those to use anyway with --devices 0, or train with --device cpu."
            )
        for line in left_out:
            tell(f"Left out: {line}. --devices names GPUs to use anyway.")
    count = workers or len(places) * (1 if per_gpu == AUTO else int(per_gpu))
    return tuple(places[index % len(places)] for index in range(count))


def _named(name: str, present: Sequence[Gpu]) -> str:
    wanted = f"cuda:{name}" if name.isdigit() else name
    for gpu in present:
        if wanted in (gpu.device, gpu.uuid) or (
            wanted.startswith(NAMED) and gpu.uuid.startswith(wanted)
        ):
            return gpu.device
    known = ", ".join(gpu.label for gpu in present) or "none"
    raise UserError(f"This machine has no GPU {name} that tuner may use. GPUs: {known}.")


def _taken(gpu: Gpu) -> str:
    """Return why a GPU is left out; empty if it is free."""
    crew = claimant(gpu.uuid)
    if crew is not None:
        return f"is taken by {crew}"
    if gpu.occupants:
        return f"is used by {', '.join(map(str, gpu.occupants))}"
    return ""
