"""How many workers a GPU takes: with simulated readings, since no test has a GPU."""

import os
import sys
from functools import partial

import pytest

from tests.harness.processes import until
from tuner.errors import UserError
from tuner.fleet import filling, local
from tuner.fleet.contract import Crew
from tuner.fleet.devices import place_crew
from tuner.fleet.filling import SAMPLES, Advice, Filling, advise
from tuner.fleet.gpus import Gpu
from tuner.fleet.local import LocalFleet
from tuner.processes import Executed
from tuner.settings import Settings

GB = 10**9


class Driver:
    """A GPU with 80 GB, of which others use 10; its readings are set by the test."""

    def __init__(self) -> None:
        self.busy: float | None = 0.0
        self.taken: int | None = 10 * GB

    def read(self, _device: str) -> tuple[float | None, int | None, int | None]:
        """Answer as `gpu_load` does."""
        return self.busy, self.taken, 80 * GB


@pytest.mark.parametrize(
    ("busy", "peak", "workers", "why"),
    [
        (0.40, 10, 2, "busy 40% of the time and needs 10.0 of 70.0 GB, so 2 train"),
        (0.46, 10, 1, "no time"),
        (0.95, 1, 1, "no time"),
        (0.29, 10, 3, "so 3"),
        (0.01, 1, 4, "so 4"),
        (0.10, 27, 2, "so 2"),
        (0.10, 30, 1, "no memory"),
        (0.0, 1, 4, "so 4"),
        (None, 10, 1, "does not tell"),
        (0.10, 0, 1, "does not tell"),
    ],
)
def test_the_scarcer_of_time_and_memory_decides(
    busy: float | None, peak: int, workers: int, why: str
) -> None:
    """More workers are advised only if one leaves more than half of both, and at most four."""
    advice = advise(busy, peak * GB, 70 * GB)
    assert advice.workers == workers
    assert why in advice.reason


def look(gpu: Filling, seconds: int, *, start: int = 0) -> list[Advice]:
    """Sample a GPU twice a second, as a launch does, and return the advice."""
    moments = (start + half / 2 for half in range(2 * seconds))
    return [advice for now in moments if (advice := gpu.look(now)) is not None]


def test_nothing_is_advised_before_a_minute_of_training() -> None:
    """Loading does not count as idle, pauses between trials do; memory counts by its peak."""
    driver = Driver()
    gpu = Filling("cuda:0", driver.read)
    assert look(gpu, 300) == [], "still loading"
    driver.busy, driver.taken = 0.6, 40 * GB
    assert look(gpu, SAMPLES // 2, start=300) == []
    driver.busy, driver.taken = 0.0, 15 * GB
    (advice,) = look(gpu, SAMPLES // 2, start=300 + SAMPLES // 2)
    assert advice.workers == 1
    assert "busy 30% of the time and needs 30.0 of 70.0 GB" in advice.reason
    assert "no memory" in advice.reason
    assert look(gpu, 300, start=400) == [], "it is asked once"


def test_a_gpu_that_runs_short_of_memory_loses_a_worker() -> None:
    """Once only: a later trial may need more memory than the first one."""
    driver = Driver()
    gpu = Filling("cuda:0", driver.read)
    driver.busy, driver.taken = 0.29, 20 * GB
    assert [advice.workers for advice in look(gpu, SAMPLES + 1)] == [3]
    assert look(gpu, 60, start=100) == []
    driver.taken = 77 * GB
    (advice,) = look(gpu, 60, start=200)
    assert (advice.workers, advice.reason) == (-1, "only 3.0 GB are free; one worker leaves it")


def test_a_part_of_a_card_keeps_one_worker() -> None:
    """NVML gives no utilisation of MIG parts; without memory either there is never any advice."""
    driver = Driver()
    gpu = Filling("cuda:0", driver.read)
    driver.busy, driver.taken = None, 20 * GB
    (advice,) = look(gpu, 10)
    assert advice.workers == 1
    driver.taken = None
    assert look(Filling("cuda:0", driver.read), 300) == []


def test_auto_and_a_number_of_workers_contradict_each_other() -> None:
    """Giving both is refused."""
    with pytest.raises(UserError, match="--workers says how many"):
        place_crew("cpu", 2, 1, per_gpu="auto")


def test_a_crew_adds_the_workers_that_a_gpu_takes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It starts with one; each worker is told how many share its GPU."""
    driver, said = Driver(), tmp_path_factory.mktemp("heard")
    # Each writes the messages from its pipe, until that is closed.
    lines = (
        "import os, sys\n"
        "heard = open(os.path.join(sys.argv[1], str(os.getpid())), 'w')\n"
        "while said := os.read(0, 1):\n"
        "    print(said[0], file=heard, flush=True)\n"
    )
    program = (sys.executable, "-c", lines, str(said))
    monkeypatch.setattr(local, "starter", lambda *_: partial(Executed, program, os.environ))
    monkeypatch.setattr(
        local, "find_gpus", lambda: [Gpu("cuda:0", f"GPU-{os.getpid()}", "a", 1, 1)]
    )
    monkeypatch.setattr(local, "Filling", lambda device: Filling(device, driver.read))
    monkeypatch.setattr(filling, "SAMPLES", 2)
    monkeypatch.setattr(filling, "SAMPLE_SECONDS", 0.0)
    fleet = LocalFleet(settings, Crew("nowhere", ("cuda:0",), fill=True))

    def heard() -> list[list[int]]:
        return sorted([int(word) for word in path.read_text().split()] for path in said.iterdir())

    try:
        fleet.start()
        until(lambda: heard() == [[1]], "it has the GPU for itself")
        assert fleet.running() == 1
        driver.busy, driver.taken = 0.4, 20 * GB
        until(lambda: fleet.running() == 2, "a second one has joined")
        until(lambda: heard() == [[1, 2], [2]], "both hear that they are two")
        (remark,) = fleet.remarks()
        assert remark == (
            "cuda:0: one worker keeps it busy 40% of the time and needs 10.0 of 70.0 GB, so 2 "
            "train on it."
        )
        assert fleet.remarks() == []
        driver.taken = 79 * GB
        until(lambda: fleet.running() == 1, "one has left")
        until(lambda: heard() == [[1, 2, 1], [2]], "the other hears that it is alone again")
    finally:
        fleet.close()
