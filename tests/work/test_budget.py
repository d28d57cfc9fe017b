"""Exactly N trials with eight worker processes, also when some of them are killed."""

from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.harness.processes import is_alive, until
from tests.store.specs import Bench, make_ranged, make_spec
from tests.work.conftest import Station
from tuner.spec.study import Spec
from tuner.store import tables as t

WORKERS = 8


def assert_exact(bench: Bench, epochs: int) -> None:
    """Show that a study ended with its budget, whole curves, and Optuna in agreement."""
    total = bench.study.spec.total_trials
    trials = bench.rows(t.trial)
    assert sorted(row.number for row in trials) == list(range(total))
    pairs = {(row.configuration, row.seed) for row in trials}
    assert len(pairs) == total
    assert Counter(row.state for row in bench.rows(t.outcome)) == {"COMPLETE": total}
    assert {row.state for row in bench.rows(t.lease)} == {"ended"}
    curves = Counter(row.trial_id for row in bench.rows(t.epoch))
    assert set(curves.values()) == {epochs}
    assert len(curves) == total
    seen = bench.worker().trials()
    assert [one.state for one in seen] == [TrialState.COMPLETE] * total
    assert [one.number for one in seen] == list(range(total))
    assert all(list(one.intermediate_values) == [*range(1, epochs + 1)] for one in seen)
    stored = {row.number: row.chosen for row in trials}
    assert all(one.params == stored[one.number] for one in seen)
    assert bench.state() == "complete"


@pytest.mark.parametrize(
    "spec",
    [
        make_spec(seeds=7, epochs=2),
        make_ranged("small", trials=13, sampler="tpe", sampler_options={"n_startup_trials": 4}),
    ],
    ids=["a grid of 21", "13 of tpe"],
)
def test_eight_worker_processes_make_exactly_the_budget(station: Station, spec: Spec) -> None:
    """Eight processes started before their study appears train each trial once and leave."""
    crew = [station.start("small", "quick") for _ in range(WORKERS)]
    bench = station.launch(spec)
    codes = [process.wait(60) for process in crew]
    assert codes == [0] * WORKERS, station.said()
    assert [row.ended is None for row in bench.rows(t.worker)] == [False] * WORKERS
    assert_exact(bench, int(spec.fixed["epochs"]))
    until(lambda: not any(map(is_alive, station.trainer_pids())), "the trainers end too")


def test_killed_workers_are_replaced_by_their_peers(station: Station) -> None:
    """With three of eight killed midway the same trials end, none twice, none left RUNNING."""
    bench = station.launch(make_spec("small", seeds=7, epochs=3))
    crew = [station.start("small", "slow") for _ in range(WORKERS)]
    until(lambda: len(bench.rows(t.epoch)) >= 6, "some epochs were recorded")
    for process in crew[:3]:
        process.kill()
    codes = [process.wait(60) for process in crew]
    assert codes[3:] == [0] * 5, station.said()
    assert_exact(bench, 3)
    until(lambda: not any(map(is_alive, station.trainer_pids())), "orphaned trainers end too")


def test_a_worker_trains_without_loading_torch_or_scipy(station: Station) -> None:
    """Executed, it trains a study to its end; had it loaded either, it would end with 1."""
    bench = station.launch(make_spec("small", epochs=2))
    process = station.start("small", "quick", executed=True)
    assert process.wait(60) == 0, station.said()
    assert_exact(bench, 2)
