"""Exactly N trials with eight worker processes, even if some of them are killed."""

from collections import Counter

import pytest
from optuna.trial import TrialState

from tests.harness.processes import is_alive, until
from tests.store.specs import Bench, make_ranged, make_spec, optuna_trials
from tests.work.conftest import Station
from tuner.spec.study import Spec
from tuner.store import tables as t

WORKERS = 8


def assert_exact(bench: Bench, epochs: int) -> None:
    """Check that a study ended with its budget, complete curves, and Optuna in agreement."""
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
    seen = optuna_trials(bench.worker())
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
    """Eight processes started before their study appears train each trial once and exit."""
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


def test_hours_are_stored_with_the_epochs_that_they_paid_for(station: Station) -> None:
    """All hours are counted, though a worker is killed and the budget raised.

    A trial's time from its first to its last epoch is within its worker's used time.
    """
    bench = station.launch(make_spec("small", epochs=3, hours=100.0))
    crew = [station.start("small", "slow") for _ in range(2)]
    until(lambda: len(bench.rows(t.epoch)) >= 4, "some epochs were recorded")
    crew[0].kill()
    bench = station.launch(make_spec("small", epochs=3, hours=200.0))
    assert crew[1].wait(60) == 0, station.said()
    assert_exact(bench, 3)
    holders = {row.trial_id: row.worker_id for row in bench.rows(t.lease)}
    taken_over = {row.trial_id for row in bench.rows(t.event) if row.kind == "adopted"}
    for worker in bench.rows(t.worker):
        trained = 0.0
        for trial_id in {trial for trial, who in holders.items() if who == worker.worker_id}:
            moments = [row.recorded for row in bench.rows(t.epoch) if row.trial_id == trial_id]
            if trial_id not in taken_over:
                trained += (max(moments) - min(moments)).total_seconds()
        assert worker.active_seconds >= trained
        # The last one was joined by this test, and has never renewed.
        assert worker.device_seconds in (worker.active_seconds, None)


def test_a_worker_trains_without_loading_torch_or_scipy(station: Station) -> None:
    """An executed worker that loaded either would exit with 1."""
    bench = station.launch(make_spec("small", epochs=2))
    process = station.start("small", "quick", executed=True)
    assert process.wait(60) == 0, station.said()
    assert_exact(bench, 2)
