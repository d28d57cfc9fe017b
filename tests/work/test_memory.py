"""Whether the kernel killed a trainer for lack of memory, and whose fault a kill is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.specs import make_spec
from tests.work.conftest import Station
from tuner.store import tables as t
from tuner.work.memory import memory_kills

GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT = 700_000_000
"""Enough for a worker and a trainer that does not allocate much."""


def write(path: Path, text: str) -> None:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_group_of_the_process_is_counted_before_the_machine(tmp_path: Path) -> None:
    """If our own control group is counted, kills elsewhere on the machine are ignored."""
    write(tmp_path / "proc/vmstat", "nr_free_pages 5\noom_kill 7\n")
    assert memory_kills(tmp_path) == 7
    write(tmp_path / "proc/self/cgroup", "0::/user.slice/session-1.scope\n")
    folder = tmp_path / "sys/fs/cgroup/user.slice/session-1.scope"
    write(folder / "memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n")
    assert memory_kills(tmp_path) == 1


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    """The path in /proc/self/cgroup may be the host's, of either version of control groups."""
    write(tmp_path / "proc/self/cgroup", "4:cpu,memory:/docker/abc\n0::/\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.oom_control", "under_oom 0\noom_kill 4\n")
    assert memory_kills(tmp_path) == 4


def test_nothing_to_read_is_no_kill(tmp_path: Path) -> None:
    """Without /proc no kill is attributed to memory."""
    assert memory_kills(tmp_path) == 0


@pytest.fixture
def small_group() -> Iterator[Path]:
    """Make a control group with little memory; skip if this user may not."""
    group = GROUPS / f"tuner-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        # Otherwise the memory would go to swap, and nothing would be killed.
        (group / "memory.swappiness").write_text("0")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def test_the_kernel_out_of_memory_is_the_trials_own_fault(
    station: Station, small_group: Path
) -> None:
    """A trainer that uses all memory of its group costs an attempt, with that reason."""
    bench = station.launch(make_spec(dimensions=(), epochs=2))
    process = station.start("small", "hoards:1", group=small_group)
    assert process.wait(120) == 0, station.said()
    told = [(row.kind, row.text) for row in bench.rows(t.event) if row.trial_id]
    reason = "the kernel killed the trainer: the machine ran out of memory"
    assert ("attempt failed", reason) in told
    assert [row.state for row in bench.rows(t.outcome)] == ["COMPLETE"]
