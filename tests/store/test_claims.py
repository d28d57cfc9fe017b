"""Claims: adoption, expiry, interruptions, and what ends a study."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    limited,
    make_curve,
    make_epoch,
    make_ranged,
    make_result,
    make_spec,
    optuna_trials,
)
from tuner.records import Value
from tuner.store import control, studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import claims, endings, workers
from tuner.store.ledger.leases import (
    Claimed,
    Ended,
    Lease,
    LeaseLostError,
    NeedsProposal,
    Proposal,
    Wait,
)
from tuner.store.ledger.ledger import Ledger
from tuner.store.spending import Used


def stale_and_new(bench: Bench) -> tuple[Ledger, Lease, Ledger, Lease]:
    """Let one worker lose its trial to another, with two epochs recorded."""
    slow, quick = bench.worker(), bench.worker()
    old = claim_trial(slow)
    slow.record(old, make_curve(0.6, 0.5))
    bench.expire(old)
    new = claim_trial(quick)
    assert new.trial_id == old.trial_id
    return slow, old, quick, new


def test_adoption_gives_the_next_token(bench: Bench) -> None:
    """An adopter continues the same trial, number and parameters under a new token.

    It is trained alone, since the trial itself may have caused the interruption.
    """
    _, old, _, new = stale_and_new(bench)
    assert new.alone
    assert replace(new, token=old.token, stored_epochs=old.stored_epochs, alone=False) == old
    assert (old.token, new.token) == (1, 2)
    assert new.stored_epochs == 2


def test_expired_leases_are_adopted_only_when_allowed(bench: Bench) -> None:
    """Without `adopt` a silent peer keeps its trial, and the next one is created."""
    slow, quick = bench.worker(), bench.worker()
    old = claim_trial(slow)
    bench.expire(old)
    assert claim_trial(quick, adopt=False).number == 1
    assert claim_trial(bench.worker(), adopt=True).number == 0


def test_a_lease_that_has_not_expired_is_not_adopted(bench: Bench) -> None:
    """A holder within its time keeps its trial."""
    claim_trial(bench.worker())
    assert claim_trial(bench.worker(), adopt=True).number == 1


def test_released_trials_are_adopted_at_once(bench: Bench) -> None:
    """A trial that was given back goes to the next claim, before new ones and without a strike."""
    first, second = bench.worker(), bench.worker()
    held = claim_trial(first)
    first.give_back(held, "a test")
    again = claim_trial(second, adopt=False)
    assert (again.number, again.token) == (0, 2)
    assert bench.lease_row(held).strikes == 0


def test_an_expired_lease_nobody_adopted_is_renewed(bench: Bench) -> None:
    """Only another token takes a trial away: its holder may return late."""
    late = bench.worker()
    held = claim_trial(late)
    bench.expire(held)
    with bench.database.transaction() as connection:
        post = workers.Post(bench.study.study_id, late.worker_id)
        workers.renew(connection, post, [held], late.timing, Used())
    assert claim_trial(bench.worker(), adopt=True).number == 1
    finish(late, held)


@pytest.mark.parametrize("deed", ["record", "complete", "prune", "fail", "give_back"])
def test_a_stale_holder_writes_nothing(bench: Bench, deed: str) -> None:
    """Without the newest token nothing reaches our tables or Optuna's."""
    slow, old, quick, _ = stale_and_new(bench)
    before = bench.contents()
    deeds: dict[str, Callable[[], object]] = {
        "record": lambda: slow.record(old, [make_epoch(3)]),
        "complete": lambda: slow.complete(old, SETUP, DATASET, make_result(make_curve(0.6, 0.5))),
        "prune": lambda: slow.prune(old, SETUP, "median at epoch 2"),
        "fail": lambda: slow.fail(old, "broken"),
        "give_back": lambda: slow.give_back(old, "tired"),
    }
    with pytest.raises(LeaseLostError):
        deeds[deed]()
    assert bench.contents() == before
    assert [one.state for one in optuna_trials(quick)] == [TrialState.RUNNING]


@pytest.mark.parametrize("deed", ["record", "complete"])
def test_the_holder_of_a_trial_failed_by_a_peer_writes_nothing(
    bench: Bench, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that a peer failed for its interruptions stays failed when its holder returns."""
    monkeypatch.setattr(endings, "INTERRUPTIONS", 1)
    fragile = Bench.launch(bench.database, make_spec("fragile"))
    slow, quick = fragile.worker(), fragile.worker()
    old = claim_trial(slow)
    slow.record(old, make_curve(0.6, 0.5))
    fragile.expire(old)
    assert claim_trial(quick).number == 1
    before = fragile.contents()
    deeds: dict[str, Callable[[], object]] = {
        "record": lambda: slow.record(old, [make_epoch(3)]),
        "complete": lambda: slow.complete(old, SETUP, DATASET, make_result(make_curve(0.6, 0.5))),
    }
    with pytest.raises(LeaseLostError):
        deeds[deed]()
    assert fragile.contents() == before


def test_an_unchanged_clock_of_a_worker_does_not_matter(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases use the server's clock: a worker whose clock is a day off adopts nothing."""
    import time

    claim_trial(bench.worker())
    day = 86_400.0
    monkeypatch.setattr(time, "time", lambda: day * 40_000)
    assert claim_trial(bench.worker(), adopt=True).number == 1


def lose(bench: Bench, times: int, hosts: int = 1) -> None:
    """Claim the first trial and fall silent, repeatedly, on this many machines in turn."""
    for attempt in range(times):
        holder = bench.worker()
        with bench.database.transaction() as connection:
            connection.execute(
                sa.update(t.worker)
                .where(t.worker.c.worker_id == holder.worker_id)
                .values(host=f"machine-{attempt % hosts}")
            )
        answer = holder.claim(None, adopt=True)
        assert isinstance(answer, Claimed), answer
        bench.expire(answer.lease)


def test_a_trial_whose_workers_die_is_not_failed(database: Database) -> None:
    """40 losses in a row by preemption cost the trial no attempt; it completes."""
    bench = Bench.launch(database, limited(make_spec(dimensions=()), attempts=1))
    lose(bench, 40, hosts=4)
    held = claim_trial(last := bench.worker())
    row = bench.lease_row(held)
    assert (row.strikes, row.interruptions, len(row.hosts)) == (0, 40, 4)
    finish(last, held)
    assert [one.state for one in bench.rows(t.outcome)] == ["COMPLETE"]


@pytest.mark.parametrize(("limit", "hosts"), [("INTERRUPTIONS", 1), ("HOSTS", 99)])
def test_a_trial_that_takes_its_workers_with_it_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: str, hosts: int
) -> None:
    """Beyond what preemption explains it is FAILED in both schemas, with a reason and advice."""
    monkeypatch.setattr(endings, limit, 6)
    bench = Bench.launch(database, make_spec(dimensions=()))
    lose(bench, 6, hosts)
    watcher = bench.worker()
    assert isinstance(watcher.claim(None, adopt=True), Wait | Ended)
    (row,) = bench.rows(t.outcome)
    machines = "one machine" if hosts == 1 else "6 machines"
    assert row.state == "FAILED"
    assert row.reason.startswith(f"interrupted 6 times in a row on {machines}, without a new epoch")
    assert [one.state for one in optuna_trials(watcher)] == [TrialState.FAIL]
    assert isinstance(watcher.claim(None, adopt=True), Ended)
    assert bench.state() == "complete"


def test_a_trial_that_is_often_interrupted_lets_others_go_first(bench: Bench) -> None:
    """It may be killing its workers: new trials come first, and then it is tried again."""
    lose(bench, claims.YIELDS + 1)  # the last loss is counted when the trial is adopted
    peers = [bench.worker() for _ in range(3)]
    assert [claim_trial(peer).number for peer in peers] == [1, 2, 0]


def test_a_trainer_killed_from_outside_costs_no_attempt(database: Database) -> None:
    """Its trial is given back at once, and the interruption is in the history."""
    bench = Bench.launch(database, limited(make_spec(dimensions=()), attempts=1))
    first = bench.worker()
    held = claim_trial(first)
    assert first.interrupt(held, "the trainer was killed from outside (SIGKILL)") == "again"
    with pytest.raises(LeaseLostError):
        first.interrupt(held, "the same again, its answer being lost")
    again = claim_trial(bench.worker(), adopt=False)
    row = bench.lease_row(again)
    assert (again.token, row.strikes, row.interruptions, row.hosts) == (2, 0, 1, ["here"])
    assert [row.kind for row in bench.rows(t.event)][-2:] == ["interrupted", "adopted"]


def test_a_new_epoch_wipes_out_the_interruptions(database: Database) -> None:
    """A trial with progress between its losses never fails, however often it is lost."""
    bench = Bench.launch(database, make_spec(dimensions=(), epochs=9))
    for number in range(1, 9):
        holder = bench.worker()
        held = claim_trial(holder)
        assert held.stored_epochs == number - 1
        holder.record(held, [make_epoch(number)])
        bench.expire(held)
    row = bench.lease_row(held)
    assert (row.interruptions, row.hosts) == (0, [])
    assert bench.rows(t.outcome) == []


def test_an_old_epoch_again_is_no_progress(database: Database) -> None:
    """An attempt that only repeats stored epochs counts as one without progress."""
    bench = Bench.launch(database, make_spec(dimensions=()))
    first = bench.worker()
    first.record(claim_trial(first), make_curve(0.6))
    for _ in range(2):
        bench.expire(bench_lease(bench))
        holder = bench.worker()
        holder.record(claim_trial(holder), make_curve(0.6))
    assert bench.lease_row(bench_lease(bench)).interruptions == 2


def bench_lease(bench: Bench) -> Lease:
    """Return the only lease, with what identifies its row."""
    (row,) = bench.rows(t.lease)
    return Lease(row.trial_id, 0, 0, 0, {}, row.token, 0)


def test_the_least_interrupted_orphan_goes_first(bench: Bench) -> None:
    """A trial that keeps killing its workers does not delay the adoption of others."""
    first, second = bench.worker(), bench.worker()
    cursed, sound = claim_trial(first), claim_trial(second)
    bench.expire(cursed)
    cursed = claim_trial(bench.worker())
    bench.expire(cursed)
    second.give_back(sound, "a test")
    assert claim_trial(bench.worker()).number == sound.number


def test_the_budget_of_hours_stops_the_study(database: Database) -> None:
    """Once the workers' active hours are used up no trial is assigned, and the reason is stored."""
    bench = Bench.launch(database, make_spec(hours=2.0))
    with database.transaction() as connection:
        connection.execute(
            sa.insert(t.worker).values(
                study_id=bench.study.study_id, host="h", pid=1, device="cpu", active_seconds=7199
            )
        )
    claim_trial(bench.worker())
    with database.transaction() as connection:
        connection.execute(sa.update(t.worker).values(active_seconds=7201))
    answer = bench.worker().claim(None, adopt=True)
    assert answer == Ended("spent", "The budget of 2 hours is spent.")
    assert bench.state() == "spent"
    assert len(bench.rows(t.trial)) == 1


def test_a_stopped_study_gives_out_nothing(bench: Bench) -> None:
    """After `tuner stop` a claim ends the worker with the reason."""
    control.stop(bench.database, bench.study)
    answer = bench.worker().claim(None, adopt=True)
    assert isinstance(answer, Ended)
    assert answer.state == "stopped"
    assert bench.rows(t.trial) == []


def test_learning_samplers_ask_for_a_proposal_first(database: Database) -> None:
    """TPE's proposal is made outside the lock; one for another configuration is not used."""
    bench = Bench.launch(database, make_ranged(trials=4, sampler="tpe"))
    holder = bench.worker()
    assert holder.claim(None, adopt=True) == NeedsProposal(0)
    chosen: dict[str, Value] = {"lr": 0.01, "width": 16, "optimizer": "adam"}
    assert holder.claim(Proposal(3, chosen), adopt=True) == NeedsProposal(0)
    answer = holder.claim(Proposal(0, chosen), adopt=True)
    assert isinstance(answer, Claimed)
    assert answer.lease.chosen == chosen
    assert optuna_trials(holder)[0].params == chosen


def test_a_proposal_for_any_configuration_is_never_made_again(database: Database) -> None:
    """Workers that propose at the same time all get a trial, each with its own parameters."""
    bench = Bench.launch(database, make_ranged(trials=3, sampler="tpe"))
    holders = [bench.worker() for _ in range(3)]
    assert [one.claim(None, adopt=True) for one in holders] == [NeedsProposal(0)] * 3
    rates = [0.01, 0.02, 0.03]
    for place, (holder, lr) in enumerate(zip(holders, rates, strict=True)):
        proposal = Proposal(None, {"lr": lr, "width": 16, "optimizer": "adam"})
        answer = holder.claim(proposal, adopt=True)
        assert isinstance(answer, Claimed)
        assert (answer.lease.configuration, answer.lease.chosen["lr"]) == (place, lr)
        # Repeated because its answer was lost, the claim returns the same trial and uses nothing
        # twice.
        assert holder.claim(proposal, adopt=True) == answer
    assert [one.params["lr"] for one in optuna_trials(holders[0])] == rates


def test_replicates_repeat_the_stored_parameters(database: Database) -> None:
    """A learning sampler is not asked for seeds 1, 2, …: they get the parameters of seed 0."""
    bench = Bench.launch(database, make_ranged(trials=2, sampler="tpe"))
    stored = bench.study.spec
    spec = replace(stored, replicates=replace(stored.replicates, seeds=2))
    bench = Bench.launch(database, replace(spec, name="twice"))
    holder = bench.worker()
    first = claim_trial(holder)
    finish(holder, first)
    second = claim_trial(holder)
    assert (second.configuration, second.seed) == (0, 1)
    assert second.chosen == first.chosen


def test_an_extended_study_is_seen_by_workers_that_run(database: Database) -> None:
    """A worker that joined before an extension continues with the new trials."""
    bench = Bench.launch(database, make_ranged(trials=1, sampler="random"))
    holder = bench.worker()
    finish(holder, claim_trial(holder))
    more = make_ranged(trials=3, sampler="random")
    studies.launch(database, bench.binding, more, {}, new_version=False)
    assert [claim_trial(bench.worker() if n else holder).number for n in range(2)] == [1, 2]
    assert isinstance(bench.worker().claim(None, adopt=True), Wait)


def test_the_history_tells_of_losses_and_adoptions(bench: Bench) -> None:
    """The history has who lost a trial and who adopted it."""
    stale_and_new(bench)
    kinds = [row.kind for row in bench.rows(t.event)]
    assert kinds == ["launched", "created", "lost", "adopted"]
    assert [row.token for row in bench.rows(t.epoch)] == [1, 1]
