"""The small storm: nothing lost, nothing twice, and every bit as in an undisturbed run."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.faults import storm, verdict
from tests.faults.weather import Report, Weather
from tests.harness.postgres import run_server
from tests.store.specs import Bench
from tuner.store import tables as t

GRID = Weather(
    "small_grid",
    trials=16,
    workers=3,
    kills=8,
    restarts=1,
    freezes=1,
    epochs=16,
    images=600,
    hidden=64,
    pause_seconds=0.06,
)
PACKS = Weather(
    "small_packs",
    trials=16,
    workers=2,
    kills=6,
    restarts=1,
    freezes=1,
    epochs=30,
    pack=4,
    plain=True,
    images=2000,
    hidden=256,
)


@dataclass(frozen=True)
class Days:
    """One study, twice: in a storm and undisturbed."""

    report: Report
    bench: Bench
    quiet: Report
    undisturbed: Bench


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    """Train the small study both ways, on a server that may be stopped."""
    folder = tmp_path_factory.mktemp("storm")
    with run_server() as server:
        report, bench = storm.run(GRID, server, folder / "storm")
        quiet, undisturbed = storm.run(storm.calm(GRID), server, folder / "calm")
        yield Days(report, bench, quiet, undisturbed)
        bench.database.close()
        undisturbed.database.close()


def test_a_storm_changes_nothing_but_time(days: Days) -> None:
    """Kills, a freeze and a restart of PostgreSQL: all trials, whole curves, the same bits."""
    verdict.check_whole(days.report, days.bench)
    verdict.check_equal(days.report, days.bench, days.undisturbed)
    assert days.report.faults == [], "\n".join(days.report.lines())
    assert sum(days.report.blows.values()) == len(GRID.blows())
    assert days.report.events["adopted"] > 0


@pytest.mark.processes
def test_a_storm_over_packs_changes_nothing_either(tmp_path: Path) -> None:
    """Trials trained four at a time with interruptions have the same bits as one after another."""
    alone = replace(storm.calm(PACKS), pack=1, name="small_alone")
    with run_server() as server:
        report, bench = storm.run(PACKS, server, tmp_path / "storm")
        _, undisturbed = storm.run(alone, server, tmp_path / "calm")
        with closing(bench.database), closing(undisturbed.database):
            verdict.check_whole(report, bench)
            verdict.check_equal(report, bench, undisturbed)
    assert report.faults == [], "\n".join(report.lines())
    assert sum(report.blows.values()) == len(PACKS.blows())
    assert report.events["adopted"] > 0
    assert report.events["joined"] > 0


def test_a_quiet_day_trains_nothing_twice(days: Days) -> None:
    """In an undisturbed run no epoch counts as trained twice."""
    assert (days.quiet.twice, days.quiet.faults) == (0, [])
    assert days.quiet.epochs_begun == GRID.trials * GRID.epochs


def test_the_verdict_sees_a_single_bit(days: Days) -> None:
    """A figure that is off by its last bit, a missing epoch and a failed trial are reported."""
    with days.bench.database.transaction() as connection:
        first = connection.execute(sa.select(sa.func.min(t.epoch.c.trial_id))).scalar_one()
        here = (t.epoch.c.trial_id == first) & (t.epoch.c.epoch == 2)
        nearly = t.epoch.c.val_loss * (1 + 2.0**-52)
        connection.execute(sa.update(t.epoch).where(here).values(val_loss=nearly))
    told = Report(GRID)
    verdict.check_equal(told, days.bench, days.undisturbed)
    assert [fault.split(":")[0] for fault in told.faults] == ["2 rows of epoch differ"]
    with days.bench.database.transaction() as connection:
        connection.execute(sa.delete(t.epoch).where(here))
        connection.execute(
            sa.update(t.outcome).where(t.outcome.c.trial_id == first).values(state="X")
        )
    told = Report(GRID)
    verdict.check_whole(told, days.bench)
    assert any("has gaps" in fault for fault in told.faults)
