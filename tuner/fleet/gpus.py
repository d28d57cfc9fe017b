"""The GPUs of this machine: which we may use, who is using them, and which crew has claimed them.

    NVML ──> every card, or MIG part of a card ──> CUDA_VISIBLE_DEVICES ──> as CUDA numbers them
         ──> processes using it ──> busy: reported, and not used unless it is named
    a socket named after the card's UUID ──> claimed by one crew on this host

A claim is a socket in Linux's abstract namespace. Binding one is atomic, so of two launches at the
same moment exactly one gets the card. It disappears with its process, even by kill -9, and there is
no file that another user could plant, link or leave behind. Containers have separate namespaces and
do not see each other's claims, but NVML shows them that the card is busy.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psutil

from tuner.errors import MachineError
from tuner.home import name_of
from tuner.settings import visible_gpu_names

NAMED = ("GPU-", "MIG-")
"""A device may be a UUID instead of a number; then CUDA is shown only that one."""


@dataclass(frozen=True)
class Occupant:
    """A process that uses a GPU."""

    pid: int
    name: str
    user: str
    bytes: int | None

    def __str__(self) -> str:
        """Return a description for people."""
        size = "" if self.bytes is None else f", {self.bytes / 1e9:.1f} GB"
        return f"{self.name} (process {self.pid} of {self.user}{size})"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG part of one."""

    device: str
    """A worker's device option: cuda:N, as CUDA numbers the visible ones, or a MIG part's UUID."""
    uuid: str
    name: str
    free_bytes: int
    total_bytes: int
    occupants: tuple[Occupant, ...] = ()

    @property
    def label(self) -> str:
        """The name for people."""
        return f"{self.device} ({self.name}, {self.free_bytes / 1e9:.0f} GB free)"


def find_gpus() -> list[Gpu]:
    """Return the GPUs that our processes may use, as CUDA numbers them; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        names = visible_gpu_names()
        if names is not None:
            return [_gpu(_handle(name), f"cuda:{place}") for place, name in enumerate(names)]
        found = []
        for index in range(int(pynvml.nvmlDeviceGetCount())):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            # CUDA shows a process only the first of all MIG parts, unless one is named.
            parts = _parts(handle)
            found += [_gpu(part, None) for part in parts] or [_gpu(handle, f"cuda:{index}")]
        return found
    except pynvml.NVMLError as error:
        raise MachineError(
            f"The NVIDIA driver does not say which GPUs there are: {error}. Check nvidia-smi, and "
            "CUDA_VISIBLE_DEVICES if it is set; --device cpu trains without GPUs."
        ) from None
    finally:
        pynvml.nvmlShutdown()


def uuid_of(device: str, gpus: Iterable[Gpu]) -> str | None:
    """Return the UUID of a device such as cuda:1; None for the CPU or an unknown GPU."""
    if device.startswith(NAMED):
        return device
    wanted = "cuda:0" if device == "cuda" else device
    return next((gpu.uuid for gpu in gpus if gpu.device == wanted), None)


QUESTIONS = 64
"""At most this many processes can ask who has a GPU between two calls of `Claims.answer`."""


class Claims:
    """The GPUs that a crew has claimed on this host, until it is closed."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    @classmethod
    def of(cls, uuids: Iterable[str]) -> Self:
        """Claim GPUs, all or none; raise a MachineError that says who has claimed one already."""
        claims = cls()
        try:
            # In a fixed order, or two crews that want the same two could each get one of them.
            for uuid in sorted(set(uuids)):
                claims.take(uuid)
        except BaseException:
            claims.close()
            raise
        return claims

    def take(self, uuid: str) -> None:
        """Claim one GPU."""
        if not sys.platform.startswith("linux"):  # only Linux has abstract sockets, and these GPUs
            return
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(_address(uuid))
            # From the kernel, a process that connects learns which one holds the claim.
            claim.listen(QUESTIONS)
            claim.setblocking(False)
        except OSError:
            claim.close()
            raise MachineError(
                f"GPU {uuid} is taken by {claimant(uuid) or 'another crew'} on this machine. Wait, "
                "choose others with --devices, or give that crew more workers a GPU (--per-gpu)."
            ) from None
        self._sockets.append(claim)

    def answer(self) -> None:
        """Accept the connections of processes that ask who has these GPUs; call it regularly.

        A connection stays in the socket's queue until it is accepted, even if the other side has
        got its answer. With a full queue nobody else could connect.
        """
        for claim in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    claim.accept()[0].close()

    def close(self) -> None:
        """Release the claims."""
        while self._sockets:
            self._sockets.pop().close()


def claimant(uuid: str) -> str | None:
    """Return which crew has claimed a GPU on this host; None if nobody has."""
    if not sys.platform.startswith("linux"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(_address(uuid))
        except ConnectionRefusedError:
            return None
        except OSError:
            return "another crew"  # it is there, and others are asking as well
        told = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", told)
    return f"workers of {name_of(uid)} (launched by process {pid})"


def _address(uuid: str) -> str:
    return f"\0tuner/gpu/{uuid}"


def _handle(name: str) -> Any:
    import pynvml

    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    # CUDA also accepts a prefix of a UUID.
    for index in range(int(pynvml.nvmlDeviceGetCount())):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        if str(pynvml.nvmlDeviceGetUUID(handle)).startswith(name):
            return handle
    raise MachineError(f"CUDA_VISIBLE_DEVICES names {name}, and this machine has no such GPU.")


def _parts(handle: Any) -> list[Any]:
    """Return the MIG parts of a card; none if it is not divided."""
    import pynvml

    parts: list[Any] = []
    with suppress(pynvml.NVMLError):
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
        if current != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        for place in range(int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))):
            with suppress(pynvml.NVMLError):  # a place without a part
                parts.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
    return parts


def _gpu(handle: Any, device: str | None) -> Gpu:
    import pynvml

    uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    processes: list[Any] = []
    with suppress(pynvml.NVMLError):  # some drivers do not report it for MIG parts
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return Gpu(
        device or uuid,
        uuid,
        str(pynvml.nvmlDeviceGetName(handle)),
        int(memory.free),
        int(memory.total),
        tuple(_occupant(process) for process in processes if process.pid != os.getpid()),
    )


def _occupant(process: Any) -> Occupant:
    size = None if process.usedGpuMemory is None else int(process.usedGpuMemory)
    with suppress(psutil.Error):
        it = psutil.Process(process.pid)
        return Occupant(process.pid, it.name(), it.username(), size)
    # It is in another container, or has ended meanwhile.
    return Occupant(process.pid, "a process", "somebody", size)
