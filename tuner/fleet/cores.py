"""Divides the cores of this machine among its workers (`--pin`)."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

SYSTEM = Path("/sys/devices/system")
CAN_PIN = hasattr(os, "sched_setaffinity")
"""Whether processes can be pinned to cores on this system; not on macOS."""


def neighbours(system: Path = SYSTEM) -> list[int]:
    """Return the cores that this process may use, ordered so that close ones are neighbours.

    Ordered by NUMA node, then socket, then core, with its hardware threads together. By number if
    the system does not tell, as in some containers.
    """
    return sorted(os.sched_getaffinity(0), key=lambda core: (*_place(core, system), core))


def divide(cores: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """Give each worker adjacent cores; if there are more workers than cores, share them evenly."""
    if workers >= len(cores):
        return [(cores[worker % len(cores)],) for worker in range(workers)]
    bounds = [len(cores) * worker // workers for worker in range(workers + 1)]
    return [tuple(cores[low:high]) for low, high in pairwise(bounds)]


def _place(core: int, system: Path) -> tuple[int, int, int]:
    folder = system / "cpu" / f"cpu{core}"
    nodes = [int(found[1]) for one in folder.glob("node*") if (found := _NODE.match(one.name))]
    topology = folder / "topology"
    return (
        min(nodes, default=0),
        _number(topology / "physical_package_id"),
        _number(topology / "core_id"),
    )


_NODE = re.compile(r"node(\d+)$")


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
