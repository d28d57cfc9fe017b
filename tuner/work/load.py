"""Measures how busy a worker's device is and how much memory it takes, for its renewals."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from tuner.settings import visible_gpu_names


@dataclass(frozen=True)
class Load:
    """One measurement; None for what this machine cannot measure."""

    memory: int | None
    """Resident bytes of the worker and its trainer."""
    cores: float | None
    """CPU cores that both kept busy since the last measurement."""
    gpu: float | None = None
    """The GPU's utilisation: the share of the last moments in which it was at work."""
    gpu_memory: int | None = None
    """Bytes in use on the GPU, by any process."""
    gpu_total: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as stored in the worker's row."""
        return asdict(self)


class LoadMeter:
    """Measures the load of a worker on a device; costs about a millisecond.

    `trainers` returns the process ids of its trainers, which a fork server may have forked.
    """

    def __init__(self, device: str, trainers: Callable[[], Sequence[int]]) -> None:
        self._device = device
        self._trainers = trainers
        self._spent: dict[int, float] = {}
        self._measured = time.monotonic()

    def measure(self) -> Load:
        """Return the load since the last call."""
        family = self._family()
        memory, spent = 0, {}
        for process in family:
            with suppress(psutil.Error):  # ended meanwhile
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                spent[process.pid] = times.user + times.system
        now = time.monotonic()
        # All time of a new process counts, because it began after the last measurement.
        busy = sum(max(0.0, took - self._spent.get(pid, 0.0)) for pid, took in spent.items())
        first = not self._spent
        cores = None if first else busy / max(now - self._measured, 1e-3)
        self._spent, self._measured = spent, now
        used, taken, total = gpu_load(self._device)
        return Load(memory or None, cores, used, taken, total)

    def _family(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for pid in (os.getpid(), *self._trainers()):
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    found.setdefault(process.pid, process)
        return list(found.values())


def gpu_load(device: str) -> tuple[float | None, int | None, int | None]:
    """Return a GPU's utilisation, used bytes and total bytes; None for what is unknown."""
    if not device.startswith("cuda"):
        return None, None, None
    import pynvml

    used = taken = total = None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            handle = _handle(device)
            # A partition of a card (MIG) reports memory, but no utilisation.
            with suppress(pynvml.NVMLError):
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                taken, total = int(memory.used), int(memory.total)
            with suppress(pynvml.NVMLError):
                used = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        finally:
            pynvml.nvmlShutdown()
    return used, taken, total


def _handle(device: str) -> Any:
    """Return NVML's handle of a device, which CUDA numbers among the visible ones."""
    import pynvml

    index = int(device.partition(":")[2] or 0)
    names = visible_gpu_names()
    if names is None:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    name = names[index] if index < len(names) else str(index)
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)
