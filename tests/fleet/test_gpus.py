"""GPUs: how they are numbered, which are busy, and that no two crews share one.

No GPU is needed: NVML's answers are simulated, and claims, which know only a name, are real.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.harness.processes import until
from tuner.errors import MachineError, UserError
from tuner.fleet import devices, gpus
from tuner.fleet.devices import place_crew
from tuner.fleet.gpus import Claims, Gpu, Occupant, claimant, find_gpus
from tuner.home import name_of

GB = 10**9


class NvmlError(Exception):
    """NVML's error."""


@dataclass
class Card:
    """A card as NVML shows it: its UUID, its processes, its MIG parts."""

    uuid: str
    busy: Mapping[int, int | None]
    parts: tuple["Card", ...] | None = None


def nvml(*cards: Card) -> SimpleNamespace:
    """Return a stand-in for the module pynvml on a machine with these cards."""
    every = [*cards, *(part for card in cards for part in card.parts or ())]

    def by_uuid(name: str) -> Card:
        for card in every:
            if card.uuid == name:
                return card
        raise NvmlError(name)

    def part(card: Card, place: int) -> Card:
        if place >= len(card.parts or ()):
            raise NvmlError("empty")
        return (card.parts or ())[place]

    def processes(card: Card) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in card.busy.items()]

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_DEVICE_MIG_ENABLE=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: cards[index],
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetUUID=lambda card: card.uuid,
        nvmlDeviceGetName=lambda _: "a card",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(free=60 * GB, total=80 * GB),
        nvmlDeviceGetComputeRunningProcesses=processes,
        nvmlDeviceGetMigMode=lambda card: (int(card.parts is not None), 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda _: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=part,
    )


Machine = Callable[..., tuple[str, ...]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Simulate a machine with free, busy or divided cards; return their UUIDs."""

    def pretend(
        *busy: Mapping[int, int | None], parts: int = 0, visible: str = ""
    ) -> tuple[str, ...]:
        cards = [Card(f"GPU-{uuid.uuid4()}", one) for one in busy]
        if parts:
            cards[0].parts = tuple(Card(f"MIG-{uuid.uuid4()}", {}) for _ in range(parts))
        monkeypatch.setitem(sys.modules, "pynvml", nvml(*cards))
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        else:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        shown = [*cards, *(cards[0].parts or ())]
        return tuple(card.uuid for card in shown)

    return pretend


def test_gpus_are_numbered_as_cuda_numbers_what_is_visible(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices may be given by number, by UUID and by the beginning of one."""
    first, second, third = machine({}, {}, {})
    assert [(gpu.device, gpu.uuid) for gpu in find_gpus()] == [
        ("cuda:0", first),
        ("cuda:1", second),
        ("cuda:2", third),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"2,{first},{second[:12]}")
    assert [(gpu.device, gpu.uuid) for gpu in find_gpus()] == [
        ("cuda:0", third),
        ("cuda:1", first),
        ("cuda:2", second),
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ffffffff-0000")
    with pytest.raises(MachineError, match="GPU-ffffffff-0000"):
        find_gpus()


def test_each_part_of_a_divided_card_is_a_device(machine: Machine) -> None:
    """CUDA shows a process only one part, so a part is addressed by its UUID."""
    _, whole, *parts = machine({}, {}, parts=2)
    assert [gpu.device for gpu in find_gpus()] == [*parts, "cuda:1"]
    assert place_crew("auto", None, 1) == (*parts, "cuda:1")
    assert whole.startswith("GPU-")


def test_a_gpu_at_work_is_left_out_and_told(machine: Machine) -> None:
    """A busy GPU is skipped and its processes reported; one given by name is used anyway."""
    machine({}, {os.getppid(): 10 * GB, 99_999_999: None})
    told: list[str] = []
    assert place_crew("auto", None, 1, tell=told.append) == ("cuda:0",)
    (line,) = told
    assert f"process {os.getppid()} of " in line
    assert "10.0 GB" in line
    assert "a process (process 99999999 of somebody)" in line
    assert place_crew("auto", None, 1, devices=("1",), per_gpu=2) == ("cuda:1", "cuda:1")


def test_where_all_are_at_work_nothing_is_taken(machine: Machine) -> None:
    """If all GPUs are busy, the CPU is not used instead: it would take a hundred times as long."""
    machine({os.getppid(): GB})
    with pytest.raises(MachineError, match=r"(?s)All GPUs.*--devices 0.*--device cpu"):
        place_crew("auto", None, 1)


def test_workers_are_spread_over_the_gpus(machine: Machine) -> None:
    """One each, K each, or as many as requested; other devices are as before."""
    machine({}, {})
    assert place_crew("auto", None, 1, per_gpu=2) == ("cuda:0", "cuda:1", "cuda:0", "cuda:1")
    assert place_crew("cuda", 3, 1) == ("cuda:0", "cuda:1", "cuda:0")
    assert place_crew("cpu", 2, 1) == ("cpu", "cpu")
    assert place_crew("cuda:1", None, 1) == ("cuda:1",)


def test_a_gpu_that_is_not_there_cannot_be_named(machine: Machine) -> None:
    """An unknown GPU is refused with the list of existing ones."""
    machine({})
    with pytest.raises(UserError, match=r"no GPU 7.*cuda:0 \(a card, 60 GB free\)"):
        place_crew("auto", None, 1, devices=("7",))


def test_a_claimed_gpu_is_left_out(machine: Machine) -> None:
    """A GPU claimed by another crew on this host is skipped, with a message."""
    first, _ = machine({}, {})
    claims = Claims.of([first])
    told: list[str] = []
    assert place_crew("auto", None, 1, tell=told.append) == ("cuda:1",)
    assert f"launched by process {os.getpid()}" in told[0]
    claims.close()
    assert place_crew("auto", None, 1) == ("cuda:0", "cuda:1")


HOLD = (
    "import sys, time; from tuner.fleet.gpus import Claims; claims = Claims.of(sys.argv[1:]); "
    "print('held', flush=True); time.sleep(600)"
)


@pytest.mark.processes
def test_a_claim_ends_with_its_process() -> None:
    """Until then no one else gets the GPU; all are claimed or none, and kill -9 leaves no claim."""
    first, second = (f"GPU-{uuid.uuid4()}" for _ in range(2))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, second], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match=f"launched by process {holder.pid}"):
            Claims.of([first, second])
        assert claimant(first) is None
        holder.kill()
    until(lambda: claimant(second) is None, "the claim has ended")
    Claims.of([first, second]).close()


def test_a_claim_answers_any_number_of_questions() -> None:
    """Each question gets the claimant's name, as long as the holder answers regularly."""
    card = f"GPU-{uuid.uuid4()}"
    claims = Claims.of([card])
    try:
        for _ in range(3):
            said = {claimant(card) for _ in range(gpus.QUESTIONS)}
            assert said == {
                f"workers of {name_of(os.getuid())} (launched by process {os.getpid()})"
            }
            claims.answer()
    finally:
        claims.close()


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPUs workers train on the cores, unless a GPU is requested."""
    monkeypatch.setattr(devices, "find_gpus", list)
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(devices, "cores", lambda: 3)
    assert place_crew("auto", None, 1) == ("cpu",) * 3
    with pytest.raises(UserError, match="no usable NVIDIA GPU"):
        place_crew("cuda", None, 1)


def test_uuids_are_found_by_device() -> None:
    """The claim is on the card, by whichever name it was given."""
    here = [Gpu("cuda:0", "GPU-a", "a card", 1, 1, (Occupant(1, "x", "y", None),))]
    assert gpus.uuid_of("cuda:0", here) == gpus.uuid_of("cuda", here) == "GPU-a"
    assert gpus.uuid_of("MIG-b", here) == "MIG-b"
    assert gpus.uuid_of("cpu", here) is gpus.uuid_of("cuda:3", here) is None
