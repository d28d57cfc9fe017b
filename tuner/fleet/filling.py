"""How many workers a GPU can take, by the time and memory that its first one leaves free.

    the first worker ──> a minute of samples: utilisation, peak memory ──> K ──> K - 1 more

Samples count from the first one that finds the GPU at work, so that loading torch and the data does
not look like idle time. Pauses between trials do count, because another worker would fill them.
NVML's utilisation is the share of time in which any kernel ran, however small: a GPU that is idle
by that measure has room, and even a busy one may have. So the answer errs towards fewer workers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.work.load import gpu_load

SAMPLES = 60
SAMPLE_SECONDS = 1.0
MOST = 4
BUSY = 0.9
"""Limit of all workers' utilisation of a GPU, if each has that of the first."""
MEMORY = 0.8
"""Share of the free memory that they may use: a later trial may need more than the first."""
SHORT = 0.05
"""A GPU with a smaller share of its memory free has too many workers."""

Read = Callable[[str], tuple[float | None, int | None, int | None]]
"""Returns a GPU's utilisation, used bytes and total bytes, as `gpu_load` does."""


@dataclass(frozen=True)
class Advice:
    """How many workers a GPU can take, and why."""

    workers: int
    reason: str


def advise(busy: float | None, peak: int | None, room: int | None) -> Advice:
    """Return how many workers a GPU can take if one keeps it busy for this share of the time.

    That one needs `peak` of `room` bytes. If a figure is unknown, the advice is one worker.
    """
    if busy is None or not peak or not room:
        return Advice(1, "the driver does not tell how busy it is; one worker stays on it")
    by_memory, by_time = int(MEMORY * room / peak), int(BUSY / max(busy, 1e-3))
    workers = max(1, min(by_memory, by_time, MOST))
    found = (
        f"one worker keeps it busy {busy:.0%} of the time and needs {peak / 1e9:.1f} of "
        f"{room / 1e9:.1f} GB"
    )
    if workers > 1:
        return Advice(workers, f"{found}, so {workers} train on it")
    short = "time" if by_time < 2 else "memory"
    return Advice(1, f"{found}: there is no {short} for a second one")


class Filling:
    """One GPU of a crew: watched while its first worker trains, then while all of them do."""

    def __init__(self, device: str, read: Read = gpu_load) -> None:
        self.device = device
        self._read = read
        _, self._before, self._total = read(device)
        self._busy: list[float] = []
        self._peak = 0
        self._looked = float("-inf")
        self._advised = False

    def look(self, now: float) -> Advice | None:
        """Take a sample if one is due; return the advice once there are enough samples.

        Afterwards it may advise one worker less, once, if the GPU runs short of memory.
        """
        if now - self._looked < SAMPLE_SECONDS or self._before is None:
            return None
        self._looked = now
        busy, taken, _ = self._read(self.device)
        if self._advised:
            return self._less(taken)
        if taken is None or (busy is None and taken <= self._before):
            return None
        self._peak = max(self._peak, taken - self._before)
        if busy is None:  # a part of a card (MIG)
            return self._advise(None)
        if busy or self._busy:
            self._busy.append(busy)
        if len(self._busy) < SAMPLES:
            return None
        return self._advise(sum(self._busy) / len(self._busy))

    def _advise(self, busy: float | None) -> Advice:
        self._advised = True
        room = None if self._total is None or self._before is None else self._total - self._before
        return advise(busy, self._peak, room)

    def _less(self, taken: int | None) -> Advice | None:
        if taken is None or not self._total or self._total - taken >= SHORT * self._total:
            return None
        self._before = None  # advised once
        free = (self._total - taken) / 1e9
        return Advice(-1, f"only {free:.1f} GB are free; one worker leaves it")
