"""The queue: a setting that is trained next, once, and within the budget."""

import threading

import pytest

from tests.store.specs import Bench, claim_trial, finish, make_ranged, make_spec
from tuner.errors import UserError
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.spec.study import Replicates
from tuner.store import queue, sampling, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Ended, NeedsProposal, Proposal
from tuner.store.queue import QueuePlace

GOOD: dict[str, Value] = {"lr": 2e-3, "width": 24, "optimizer": "adam"}
GRID = (Choice("lr", (1e-4, 1e-3, 1e-2)), Choice("width", (8, 16)))


def put(bench: Bench, *settings: dict[str, Value]) -> list[QueuePlace]:
    """Queue settings."""
    with bench.database.transaction() as connection:
        return queue.enqueue(connection, bench.study, settings)


def trained(bench: Bench) -> list[dict[str, Value]]:
    """Train a study to its end with one worker; return each trial's parameters in order."""
    worker = bench.worker()
    found: list[dict[str, Value]] = []
    while not isinstance(answer := worker.claim(None, adopt=True), Ended):
        if isinstance(answer, NeedsProposal):
            chosen = sampling.propose(
                bench.study.spec, "study", worker.observations(), answer.configuration
            )
            answer = worker.claim(Proposal(answer.configuration, chosen), adopt=True)
        assert isinstance(answer, Claimed)
        found.append(dict(answer.lease.chosen))
        finish(worker, answer.lease)
    return found


def test_a_cell_of_a_grid_moves_to_the_front(database: Database) -> None:
    """The grid is trained once, as without the queue, but in another order."""
    bench = Bench.launch(database, make_spec(dimensions=GRID, seeds=2))
    put(bench, {"lr": 1e-2, "width": 8}, {"width": 16, "lr": 1e-3})
    found = trained(bench)
    cells = [(one["lr"], one["width"]) for one in found]
    assert cells[:2] == [(1e-2, 8), (1e-3, 16)]
    assert len(cells) == 12
    assert len(set(cells[:6])) == 6
    assert set(cells[:6]) == set(cells[6:])


def test_a_cell_beyond_the_budget_takes_the_place_of_the_last(database: Database) -> None:
    """If a grid is larger than the budget, the number of trials stays the budget's."""
    bench = Bench.launch(database, make_spec(dimensions=GRID, trials=3))
    put(bench, {"lr": 1e-2, "width": 16})
    cells = [(one["lr"], one["width"]) for one in trained(bench)]
    assert cells == [(1e-2, 16), (1e-4, 8), (1e-4, 16)]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_a_setting_begins_in_place_of_the_samplers_next(database: Database, sampler: str) -> None:
    """A queued setting comes next, once; the sampler fills the rest of the budget."""
    spec = make_ranged(trials=4, sampler=sampler)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    first = claim_trial(worker)
    finish(worker, first)
    (place,) = put(bench, GOOD)
    assert place == QueuePlace(GOOD, None, added=True)
    assert put(bench, GOOD) == [QueuePlace(GOOD, None)]
    found = trained(bench)
    assert len(found) == 3
    assert found[0] == GOOD
    assert GOOD not in found[1:]
    assert put(bench, GOOD) == [QueuePlace(GOOD, 1)]
    if sampler != "tpe":
        # The sampler's values depend on the place in the study, which the queue does not change.
        assert found[1:] == [sampling.choose(spec, place) for place in (2, 3)]


def test_its_seeds_have_its_parameters(database: Database) -> None:
    """A queued setting is replicated like any other."""
    spec = make_ranged(trials=4, sampler="random")
    bench = Bench.launch(database, spec.__class__(**{**vars(spec), "replicates": Replicates(2)}))
    put(bench, GOOD)
    found = trained(bench)
    assert found[0] == found[2] == GOOD
    assert found[1] == found[3] != GOOD


def test_a_proposal_for_a_place_that_was_queued_meanwhile_is_dropped(database: Database) -> None:
    """If a setting was queued during a proposal, the sampler proposes again for the next place."""
    bench = Bench.launch(database, make_ranged(trials=2, sampler="tpe"))
    worker = bench.worker()
    asked = worker.claim(None, adopt=True)
    assert asked == NeedsProposal(0)
    put(bench, GOOD)
    thought = Proposal(0, sampling.propose(bench.study.spec, "study", [], 0))
    answer = worker.claim(thought, adopt=True)
    assert isinstance(answer, Claimed)
    assert answer.lease.chosen == GOOD
    finish(worker, answer.lease)
    assert worker.claim(thought, adopt=True) == NeedsProposal(1)


def test_a_full_budget_has_no_place(database: Database) -> None:
    """Waiting and started trials count, and a refusal queues none of its settings."""
    bench = Bench.launch(database, make_ranged(trials=2, sampler="random"))
    claim_trial(bench.worker())
    other = {**GOOD, "width": 32}
    with pytest.raises(UserError, match=r"All 2 settings .* 1 of them queued"):
        put(bench, GOOD, other)
    assert bench.rows(t.queued) == []
    put(bench, GOOD)
    with pytest.raises(UserError, match="Increase `trials`"):
        put(bench, other)
    assert [place.chosen for place in put(bench, GOOD)] == [GOOD]


def test_many_who_queue_and_claim_at_once_keep_the_budget(database: Database) -> None:
    """Six workers and three users at once: each queued setting is one trial, and N is exact."""
    bench = Bench.launch(database, make_ranged(trials=12, sampler="random"))
    settings: list[dict[str, Value]] = [{**GOOD, "width": width} for width in (8, 16, 24, 32)]
    start = threading.Barrier(9)
    faults: list[BaseException] = []

    def run(what: "object") -> None:
        try:
            start.wait()
            what()  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001  # raised below
            faults.append(error)

    def work() -> None:
        worker = bench.worker()
        while not isinstance(answer := worker.claim(None, adopt=False), Ended):
            if isinstance(answer, Claimed):
                finish(worker, answer.lease)

    def person() -> None:
        for setting in settings:
            put(bench, setting)

    threads = [threading.Thread(target=run, args=(what,)) for what in (*[work] * 6, *[person] * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = bench.rows(t.trial)
    assert len(rows) == 12
    # A user who came when the budget was full was refused; there was no other error.
    assert all("Increase `trials`" in str(fault) for fault in faults)
    queued = [row.chosen for row in bench.rows(t.queued)]
    begun = [row.chosen for row in rows if row.chosen in settings]
    assert sorted(map(str, begun)) == sorted(map(str, queued))
    assert len(begun) == len(set(map(str, begun)))


def test_a_longer_version_has_the_queue_too(database: Database) -> None:
    """A new version with the same space trains the settings queued for the old one."""
    bench = Bench.launch(database, make_ranged(trials=3, sampler="random"))
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    put(bench, GOOD)
    found = trained(bench)
    longer = make_ranged(trials=3, sampler="random")
    longer = longer.__class__(**{**vars(longer), "fixed": {"epochs": 9}})
    again = Bench.launch(database, longer, new_version=True)
    assert again.study.version == 2
    assert trained(again) == [sampling.choose(longer, 0), *found]
    with database.transaction() as connection:
        study = studies.find(connection, again.study.ref)
        assert [place.trial for place in queue.places(connection, study)] == [1]
