"""What sharing first epochs saved, and what was trained twice all the same."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.results.results import Results
from tuner.results.rows import TrialRow
from tuner.spec.study import Spec
from tuner.train.checkpoints.keys import shared_epochs_of_jobs

COMPARED = 1_000
"""Trials of one seed that are compared with each other; beyond, the excess is not counted."""


@dataclass(frozen=True)
class Reuse:
    """Epochs and seconds of a study, as spent and as they would have been."""

    epochs: int
    reused: int
    seconds: float
    seconds_without: float
    excess: int | None
    """Epochs that were trained although another trial has them too; None if not counted."""


def reuse(results: Results) -> Reuse:
    """Sum up the epochs that a study's trials trained and those that they reused."""
    rows = results.rows
    return Reuse(
        epochs=sum(row["epochs_run"] for row in rows),
        reused=sum(row["epochs_reused"] for row in rows),
        seconds=sum(row["seconds"] for row in rows),
        seconds_without=sum(row.seconds_alone for row in rows),
        excess=_excess(rows, results.spec),
    )


def _excess(rows: Sequence[TrialRow], spec: Spec) -> int | None:
    by_seed: dict[int, list[TrialRow]] = defaultdict(list)
    for row in rows:
        by_seed[row["seed"]].append(row)
    if any(len(group) > COMPARED for group in by_seed.values()):
        return None
    return sum(_excess_of_seed(group, spec) for group in by_seed.values())


def _excess_of_seed(rows: Sequence[TrialRow], spec: Spec) -> int:
    """Count epochs that a trial trained itself though one of an earlier number has them too."""
    chosen = [{n: row[n] for n in spec.varied if row[n] is not None} for row in rows]
    jobs = [spec.job(one, row["seed"]) for one, row in zip(chosen, rows, strict=True)]
    excess = 0
    for place, row in enumerate(rows):
        shared = max(
            (
                min(shared_epochs_of_jobs(jobs[place], jobs[earlier]), rows[earlier]["epochs_run"])
                for earlier in range(place)
            ),
            default=0,
        )
        excess += max(0, min(shared, row["epochs_run"]) - row["epochs_reused"])
    return excess
