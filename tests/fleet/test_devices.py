"""The devices of this machine, and how workers are spread over them."""

import pytest

from tuner.errors import UserError
from tuner.fleet import devices
from tuner.fleet.devices import crew_devices


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> object:
    """Simulate a machine with this many GPUs and cores."""

    def pretend(gpus: int, cores: int) -> None:
        monkeypatch.setattr(devices, "gpus", lambda: gpus)
        monkeypatch.setattr(devices, "cores", lambda: cores)

    return pretend


@pytest.mark.parametrize(
    ("gpus", "cores", "wanted", "workers", "threads", "expected"),
    [
        (2, 8, "auto", None, 1, ("cuda:0", "cuda:1")),
        (2, 8, "auto", 5, 1, ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0")),
        (2, 8, "auto", 1, 1, ("cuda:0",)),
        (2, 8, "cuda", None, 1, ("cuda:0", "cuda:1")),
        (2, 8, "cuda:1", None, 1, ("cuda:1",)),
        (2, 8, "cuda:1", 2, 1, ("cuda:1", "cuda:1")),
        (2, 4, "cpu", None, 1, ("cpu",) * 4),
        (0, 4, "auto", None, 1, ("cpu",) * 4),
        (0, 4, "auto", None, 2, ("cpu",) * 2),
        (0, 4, "auto", None, 3, ("cpu",)),
        (0, 2, "auto", None, 8, ("cpu",)),
        (0, 2, "cpu", 7, 1, ("cpu",) * 7),
    ],
)
def test_a_worker_a_gpu_or_else_a_core(
    machine: object,
    gpus: int,
    cores: int,
    wanted: str,
    workers: int | None,
    threads: int,
    expected: tuple[str, ...],
) -> None:
    """Each GPU gets a worker; without GPUs, as many workers as fit on the cores."""
    machine(gpus, cores)  # type: ignore[operator]
    assert crew_devices(wanted, workers, threads) == expected


def test_gpus_that_are_not_there_cannot_be_asked_for(machine: object) -> None:
    """--device cuda without a GPU is refused with the reason."""
    machine(0, 4)  # type: ignore[operator]
    with pytest.raises(UserError, match="no usable NVIDIA GPU"):
        crew_devices("cuda", None, 1)


def test_this_machine_is_counted_without_torch() -> None:
    """Counting GPUs and cores answers here, and gives whole numbers."""
    assert devices.gpus() >= 0
    assert devices.cores() >= 1
