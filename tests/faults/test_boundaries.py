"""A worker is killed at each boundary of the ledger's transactions, before or after the commit."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.faults.proof import assert_whole, kinds, rows_of_trial
from tests.faults.sabotage import Fault
from tests.faults.scenery import Scene
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, limited, make_spec, optuna_trials
from tuner.settings import Timing
from tuner.spec.study import Replicates, Spec
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import LeaseLostError

TIMING = Timing(lease=6.0, renew=0.5, grace=0.3, poll=0.15, give_back=0.1)
PRUNED = make_spec(
    epochs=6, pruner="threshold", pruner_options={"lower": 0.3, "upper": 1e9, "warmup": 0}
)
RACED = replace(make_spec(epochs=3), replicates=Replicates(4, "top", 2))
"""Three configurations, of which two race over three further seeds, with a look after two."""


@dataclass(frozen=True)
class Boundary:
    """One kind of transaction: a study in which it occurs, and the mark that it leaves."""

    name: str
    mark: Callable[[Bench], Any]
    """True if and only if the transaction's commit went through."""
    spec: Spec = field(default_factory=lambda: make_spec(epochs=3))
    behaviour: str = "quick"
    nth: int = 1
    states: Mapping[str, int] = field(default_factory=lambda: {"COMPLETE": 3})
    lost: Mapping[str, int] | None = None
    """How the trials end when the transaction is lost, if not as in `states`."""

    def __str__(self) -> str:
        return self.name


BOUNDARIES = [
    Boundary("create", lambda bench: len(bench.rows(t.trial)) == 2, nth=2),
    Boundary("adopt", lambda bench: any(row.token == 2 for row in bench.rows(t.lease))),
    Boundary("look", lambda bench: len(bench.rows(t.look)) == 1, RACED, states={"COMPLETE": 9}),
    Boundary("record", lambda bench: bench.rows(t.epoch)),
    Boundary(
        "decide",
        lambda bench: any(row.prune for row in bench.rows(t.decision)),
        PRUNED,
        states={"PRUNED": 3},
    ),
    Boundary("prune", lambda bench: bench.rows(t.outcome), PRUNED, states={"PRUNED": 3}),
    Boundary("complete", lambda bench: len(bench.rows(t.outcome)) == 2, nth=2),
    Boundary("strike", lambda bench: kinds(bench)["attempt failed"], behaviour="code3:1"),
    Boundary(
        "fail",
        lambda bench: bench.rows(t.outcome),
        limited(make_spec(epochs=3), attempts=1),
        behaviour="code3:1",
        states={"FAILED": 1, "COMPLETE": 2},
        # An unstored failure does not count: the worker's death is an interruption.
        lost={"COMPLETE": 3},
    ),
    Boundary("interrupt", lambda bench: kinds(bench)["interrupted"], behaviour="killed:1"),
    Boundary(
        "give back",
        lambda bench: kinds(bench)["given back"],
        make_spec(epochs=40),
        behaviour="slow",
    ),
    Boundary("close", lambda bench: bench.state() == "complete"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
def test_a_commit_is_all_or_nothing_and_a_peer_goes_on(
    scene: Scene, boundary: Boundary, when: str
) -> None:
    """A commit is all or nothing when a worker is killed around it; a peer completes the study."""
    scene.settings = replace(scene.settings, timing=TIMING)
    bench = Bench.launch(scene.database, boundary.spec)
    if boundary.name == "adopt":
        bench.expire(claim_trial(bench.worker()))
    die(scene, bench, boundary, when)
    assert bool(boundary.mark(bench)) == (when == "after")
    assert_both_schemas_agree(bench)
    ended_before = {
        row.trial_id: rows_of_trial(bench, row.trial_id) for row in bench.rows(t.outcome)
    }
    expire_all(bench)
    behaviour = "quick" if boundary.name == "give back" else boundary.behaviour
    assert scene.work(behaviour).state == "complete"
    lost = boundary.lost is not None and when == "before"
    assert_whole(bench, boundary.lost if lost else boundary.states)
    for trial_id, rows in ended_before.items():
        assert rows_of_trial(bench, trial_id) == rows, "what has ended is never touched again"


def die(scene: Scene, bench: Bench, boundary: Boundary, when: str) -> None:
    """Run a worker until it kills itself at the boundary."""
    trainer = scene.double(boundary.behaviour)
    process = scene.start(Fault(boundary.name, when, boundary.nth, trainer=trainer))
    if boundary.name == "give back":
        until(lambda: bench.rows(t.epoch), "an epoch was recorded")
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGKILL, scene.said()


def assert_both_schemas_agree(bench: Bench) -> None:
    """Check that Optuna's tables have exactly the trials, epochs and endings that ours have."""
    seen = {one._trial_id: one for one in optuna_trials(bench.worker())}
    ended = {row.trial_id for row in bench.rows(t.outcome)}
    assert seen.keys() == {row.trial_id for row in bench.rows(t.trial)}
    assert {one for one, found in seen.items() if found.state.is_finished()} == ended
    reported = {(one, at) for one, found in seen.items() for at in found.intermediate_values}
    assert reported == {(row.trial_id, row.epoch) for row in bench.rows(t.epoch)}


def expire_all(bench: Bench) -> None:
    """Expire the dead worker's lease now, to save time."""
    passed = sa.func.clock_timestamp() - sa.text("interval '1 s'")
    with bench.database.transaction() as connection:
        connection.execute(
            sa.update(t.lease).where(t.lease.c.state == "held").values(expires=passed)
        )


def test_a_line_of_the_history_is_told_once_and_only_by_the_holder(database: Database) -> None:
    """A repeated event is stored once; one from a former lease holder is refused."""
    bench = Bench.launch(database, make_spec())
    first, second = bench.worker(), bench.worker()
    held = claim_trial(first)
    for _ in range(2):
        first.add_event(held, "resumed", "at epoch 5, from a checkpoint")
    assert kinds(bench)["resumed"] == 1
    bench.expire(held)
    again = claim_trial(second)
    with pytest.raises(LeaseLostError):
        first.add_event(held, "resumed", "at epoch 5, from a checkpoint")
    second.add_event(again, "resumed", "at epoch 5, from a checkpoint")
    assert kinds(bench)["resumed"] == 2
