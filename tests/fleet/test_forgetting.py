"""The message about a fleet whose cluster cannot be reached."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tuner.errors import UserError
from tuner.fleet.contract import Crew
from tuner.fleet.forgetting import refuse_present, remains
from tuner.store.fleets import StoredFleet

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


def stored(engine: str, handle: dict[str, Any], **options: Any) -> StoredFleet:
    """Return a fleet that was last seen an hour ago."""
    crew = Crew("small@1", options=options).to_json()
    seen = NOW - timedelta(hours=1)
    return StoredFleet(
        3, 1, engine, crew, handle, 4, "", "login1", 7, "ann@login1", seen, seen, 4, None, "", 3600
    )


@pytest.mark.parametrize(
    ("fleet", "words"),
    [
        (
            stored("slurm", {"jobs": list(range(30)), "cluster": "old", "folder": "/home/ann/f"}),
            ["jobs 0,1,2", "18,19,… on the Slurm cluster old", "in /home/ann/f"],
        ),
        (
            stored("ray", {"prefix": "s@1-0a", "made": 3, "cluster": {"address": "h:6379"}}),
            ["actors s@1-0a-0 to -2 on the Ray cluster at h:6379"],
        ),
        (stored("ray", {"prefix": "s@1-0a", "made": 1}, address="h:1"), ["s@1-0a-0 on", "at h:1"]),
        (
            stored("kubernetes", {"job": "tuner-s-0a"}, namespace="lab"),
            ["at its cluster", "kubectl delete job tuner-s-0a --namespace lab"],
        ),
        (stored("local", {}), ["workers of process 7 on login1"]),
    ],
)
def test_what_may_still_run_is_told_with_where(fleet: StoredFleet, words: list[str]) -> None:
    """It comes from stored data alone, also with handles of older versions."""
    said = "\n".join(remains(fleet))
    assert all(word in said for word in words), said


def test_a_fleet_that_was_just_seen_is_not_forgotten() -> None:
    """A fleet seen within a minute can be asked to stop, so forgetting it is refused."""
    fleet = stored("slurm", {})
    refuse_present(fleet)
    with pytest.raises(UserError, match=r"was seen 59 s ago.*tuner fleet stop"):
        refuse_present(replace(fleet, unseen=59.0))
