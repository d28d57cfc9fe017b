"""Trials that pause: what a claim decides, what is stored, and what changes nothing."""

import math
import random
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    limited,
    make_curve,
    make_epoch,
    make_result,
    optuna_trials,
)
from tests.store.test_promotion import promoting
from tuner.records import Epoch, Moment
from tuner.results.rows import trial_rows
from tuner.spec.study import Spec
from tuner.store import control, identities, studies, turns
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import claims
from tuner.store.ledger.leases import (
    Claimed,
    Company,
    Ended,
    Lease,
    LeaseLostError,
    NeedsProposal,
    Wait,
)
from tuner.store.ledger.ledger import Ledger
from tuner.store.ledger.promotion import Climber, rungs_of
from tuner.store.ledger.transactions import Transaction
from tuner.store.overview import overview
from tuner.store.sampling import as_seen

EPOCHS = 9


def small(trials: int = 6, **options: float) -> Spec:
    """Build a study with rungs at epochs 1 and 3 of 9."""
    return promoting(trials, EPOCHS, **{"first": 1.0, "finish": 1, **options})


@pytest.fixture
def paused(database: Database) -> Bench:
    """Store a study of six settings whose trials pause."""
    return Bench.launch(database, small())


def curve_of(held: Lease, until: int, loss: float | None = None) -> list[Epoch]:
    """Return a trial's epochs; by default settings with higher numbers are worse."""
    value = float(held.configuration) / 10 if loss is None else loss
    return make_curve(*[value + 1 / epoch for epoch in range(1, until + 1)])


def train(worker: Ledger, held: Lease, loss: float | None = None) -> None:
    """Train a claimed trial until it pauses or ends, in no time."""
    until = held.until or EPOCHS
    curve = curve_of(held, until, loss)
    worker.record(held, curve[held.stored_epochs :])
    if held.until is None:
        worker.complete(held, SETUP, DATASET, make_result(curve))
    else:
        worker.pause(held, SETUP, f"key-{held.number}-{until}")


def go(worker: Ledger, limit: int = 200) -> list[tuple[int, int, int | None]]:
    """Train a study to its end; return number, first and last epoch of each stretch."""
    told: list[tuple[int, int, int | None]] = []
    for _ in range(limit):
        answer = worker.claim(None, adopt=True)
        if not isinstance(answer, Claimed):
            assert isinstance(answer, Ended), answer
            return told
        held = answer.lease
        told.append((held.number, held.stored_epochs, held.until))
        train(worker, held)
    raise AssertionError("the study does not end")


def decisions(bench: Bench) -> list[tuple[int, str]]:
    """Return epoch and reason of every decision in order."""
    return [(row.start, row.why) for row in sorted(bench.rows(t.stretch), key=lambda r: r[0])]


def test_a_study_is_trained_by_the_rule(paused: Bench) -> None:
    """Who is promoted, from which epoch to which; the last three settings stay paused."""
    assert go(paused.worker()) == [
        *[(number, 0, 1) for number in (0, 1, 2)],
        (0, 1, 3),
        # The first one at the last rung.
        (0, 3, None),
        *[(number, 0, 1) for number in (3, 4, 5)],
        (1, 1, 3),
    ]
    assert paused.state() == "complete"
    leases = [row.state for row in sorted(paused.rows(t.lease), key=lambda row: row.trial_id)]
    assert leases == ["ended", *["paused"] * 5]
    assert decisions(paused) == [
        *[(0, "begun")] * 3,
        (1, "promoted"),
        (3, "first to finish"),
        *[(0, "begun")] * 3,
        (1, "promoted"),
    ]
    saw = max(paused.rows(t.stretch), key=lambda row: row.stretch_id).saw
    rungs = {"1": {"reached": 6, "paused": 5}, "3": {"reached": 1, "paused": 0}}
    assert saw == {"rank": 2, "rungs": rungs, "complete": 1, "finishing": 0}
    first = min(paused.rows(t.stretch), key=lambda row: row.stretch_id).saw
    assert first == {"rungs": {}, "complete": 0, "finishing": 0}
    assert len(paused.rows(t.epoch)) == 4 * 1 + 3 + EPOCHS


def test_optuna_sees_a_paused_trial_as_pruned_until_it_goes_on(paused: Bench) -> None:
    """Its value is that of its last epoch, for every worker, whatever it has in memory."""
    worker, peer = paused.worker(), paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    seen = optuna_trials(peer)
    assert [one.state for one in seen] == [TrialState.PRUNED] * 3
    assert [one.value for one in seen] == pytest.approx([1.0, 1.1, 1.2])
    assert as_seen(paused.study.spec, seen) == seen
    held = claim_trial(worker)
    assert (held.number, held.until, held.stored_epochs) == (0, 3, 1)
    assert optuna_trials(peer)[0].state == TrialState.RUNNING
    train(worker, held)
    again = optuna_trials(peer)[0]
    assert again.state == TrialState.PRUNED
    assert again.value == pytest.approx(1 / 3)
    assert sorted(again.intermediate_values) == [1, 2, 3]


def test_a_trial_that_goes_on_is_read_again_and_no_other(
    paused: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others stay in a worker's memory; reading all of a large study takes seconds."""
    worker, peer = paused.worker(), paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    optuna_trials(peer)
    read: list[int] = []
    build = RDBStorage._build_frozen_trial_from_trial_model

    def noted(storage: RDBStorage, row: models.TrialModel) -> FrozenTrial:
        read.append(int(row.number))
        return build(storage, row)

    monkeypatch.setattr(RDBStorage, "_build_frozen_trial_from_trial_model", noted)
    train(worker, claim_trial(worker))
    # It has been resumed and paused again, so only its token differs.
    assert sorted(optuna_trials(peer)[0].intermediate_values) == [1, 2, 3]
    assert read == [0]
    assert [one.number for one in optuna_trials(peer)] == [0, 1, 2]
    assert read == [0]


@pytest.mark.parametrize("seed", range(2))
def test_no_worker_remembers_a_trial_as_it_was(database: Database, seed: int) -> None:
    """Whatever happens to trials, and whenever workers read: they see what is stored."""
    bench = Bench.launch(database, limited(small(8, finish=3), attempts=1))
    chance = random.Random(seed)
    held: dict[int, Lease] = {}
    workers = [bench.worker() for _ in range(3)]
    for _ in range(60):
        worker = chance.choice(workers)
        lease = held.pop(worker.worker_id, None)
        if lease is None:
            answer = worker.claim(None, adopt=True)
            if isinstance(answer, Claimed):
                held[worker.worker_id] = answer.lease
        else:
            with suppress(LeaseLostError):
                act(bench, worker, lease, chance)
        if chance.random() < 0.3:
            control.retry(database, bench.binding, bench.study, [])
        if chance.random() < 0.5:
            assert optuna_trials(chance.choice(workers)) == optuna_trials(bench.worker())
    assert bench.rows(t.study)[0].reopenings > 3


def act(bench: Bench, worker: Ledger, lease: Lease, chance: random.Random) -> None:
    """Do one of the things that may happen to a claimed trial."""
    match chance.choice(["train", "train", "fail", "fall silent", "give back"]):
        case "train":
            train(worker, lease)
        case "fail":
            worker.fail(lease, "bad luck")
        case "fall silent":
            bench.expire(lease)
        case _:
            worker.give_back(lease, "asked to")


def test_a_stretch_survives_its_workers(paused: Bench) -> None:
    """If a worker dies, or its answers are lost, no decision changes."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    # The answer to its claim was lost: it claims again and gets the same trial.
    assert claim_trial(worker) == held
    worker.record(held, curve_of(held, 2)[1:])
    paused.expire(held)
    peer = paused.worker()
    adopted = claim_trial(peer)
    assert (adopted.number, adopted.until, adopted.stored_epochs) == (0, 3, 2)
    with pytest.raises(LeaseLostError):
        worker.record(held, [make_epoch(3)])
    train(peer, adopted)
    # The answer to its pause was lost as well.
    before = paused.contents()
    peer.pause(adopted, SETUP, "key")
    assert paused.contents() == before
    for deed in (
        lambda: peer.record(adopted, [make_epoch(4)]),
        lambda: peer.complete(adopted, SETUP, DATASET, make_result(make_curve(0.5))),
        lambda: peer.give_back(adopted, "tired"),
    ):
        with pytest.raises(LeaseLostError):
            deed()
    assert paused.contents() == before
    assert [row for row in decisions(paused) if row[0]] == [(1, "promoted")]


def test_a_paused_trial_costs_no_attempt_and_no_interruption(paused: Bench) -> None:
    """Resuming is not another attempt."""
    go(paused.worker())
    with paused.database.transaction() as connection:
        seen = overview(connection, paused.study)
        rows = trial_rows(connection, paused.study)
    assert [row["attempts"] for row in rows] == [1] * 6
    assert [row["state"] for row in rows] == ["COMPLETE", *["PAUSED"] * 5]
    assert [row.lost for row in rows] == [False, *[True] * 5], "they are in no mean"
    assert seen.adopted == ()
    assert (seen.counts.complete, seen.counts.paused, seen.counts.waiting) == (1, 5, 0)
    assert seen.eta_seconds is None
    assert all(row.interruptions == row.strikes == 0 for row in paused.rows(t.lease))


def test_more_budget_goes_on_where_it_stopped(paused: Bench) -> None:
    """More settings allow more promotions; more to finish resumes paused ones."""
    worker = paused.worker()
    go(worker)
    longer = replace(paused.study.spec, budget=replace(paused.study.spec.budget, trials=9))
    launched = studies.launch(paused.database, paused.binding, longer, {}, new_version=False)
    assert launched.what == "extended"
    more = replace(paused, study=launched.study).worker()
    assert go(more) == [(6, 0, 1), (7, 0, 1), (8, 0, 1), (2, 1, 3)]
    options = {**longer.search.allocator_options, "finish": 9}
    all_of_them = replace(longer, search=replace(longer.search, allocator_options=options))
    launched = studies.launch(paused.database, paused.binding, all_of_them, {}, new_version=False)
    assert launched.what == "extended"
    told = go(replace(paused, study=launched.study).worker())
    assert all(start > 0 for _, start, _ in told)
    assert {row.state for row in paused.rows(t.outcome)} == {"COMPLETE"}
    assert len(paused.rows(t.outcome)) == 9
    assert len(paused.rows(t.epoch)) == 9 * EPOCHS


def test_what_was_retrained_elsewhere_counts_by_its_new_values(paused: Bench) -> None:
    """Epochs that differ replace the rung's value; the decision stands."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    worker.record(held, make_curve(5.0, 4.0, 3.0))
    rungs = {row.epoch: row.value for row in paused.rows(t.rung) if row.trial_id == held.trial_id}
    assert rungs == {1: 5.0, 3: 3.0}
    worker.pause(held, SETUP, "")
    assert (1, "promoted") in decisions(paused)
    # It ranks last of three now, so another is in the best third; but it is the first to finish.
    assert claim_trial(worker).number == 0
    assert claim_trial(paused.worker()).number == 1
    assert decisions(paused).count((1, "promoted")) == 2


def test_the_metric_at_a_rung_is_that_of_a_trial_that_ended_there(database: Database) -> None:
    """The best epoch so far, or the last, as the study judges; for val_acc larger is better."""
    judged: list[tuple[Moment, float]] = [("best", 0.9), ("last", 0.7)]
    for at, expected in judged:
        spec = replace(small(), name=f"judged-{at}")
        spec = replace(spec, search=replace(spec.search, at=at, metric="val_acc"))
        bench = Bench.launch(database, spec)
        worker = bench.worker()
        for accuracy in (0.5, 0.9, 0.6):
            held = claim_trial(worker)
            worker.record(held, [make_epoch(1, val_acc=accuracy)])
            worker.pause(held, SETUP, "")
        held = claim_trial(worker)
        assert held.number == 1, "the largest is promoted"
        worker.record(held, [make_epoch(2, val_acc=0.8), make_epoch(3, val_acc=0.7)])
        values = {row.epoch: row.value for row in bench.rows(t.rung) if row.epoch == 3}
        assert values == {3: expected}


@pytest.mark.parametrize("metric", ["val_loss", "val_acc"])
def test_the_server_counts_rungs_as_the_rule_does(database: Database, metric: str) -> None:
    """With ties, NaN, ended trials, and one that the budget paused between rungs."""
    spec = replace(small(40), search=replace(small(40).search, metric=metric))
    bench, chance = Bench.launch(database, spec), random.Random(5)
    worker = bench.worker()
    for _ in range(40):
        claim_trial(worker)
        # Otherwise the worker would get its own trials again.
        with database.transaction() as connection:
            connection.execute(sa.update(t.lease).values(worker_id=0))
    climbers, sign = [], 1 if metric == "val_loss" else -1
    with database.transaction() as connection:
        for number, trial_id in enumerate(sorted(row.trial_id for row in bench.rows(t.trial))):
            values = [chance.choice([0.1, 0.2, 0.3, math.nan]) for _ in range(chance.randint(0, 2))]
            state = chance.choice(["held", "paused", "paused", "ended"])
            granted = chance.choice([None, None, 2])
            rungs = dict(zip((1, 3), values, strict=False))
            connection.execute(
                sa.update(t.lease)
                .where(t.lease.c.trial_id == trial_id)
                .values(state=state, granted=granted)
            )
            for epoch, value in rungs.items():
                row = {"trial_id": trial_id, "epoch": epoch, "value": value}
                connection.execute(sa.insert(t.rung).values(row))
            if rungs:
                signed = {epoch: sign * value for epoch, value in rungs.items()}
                rests = state == "paused" and granted is None
                climbers.append(Climber(number, signed, rests))
        storage = bench.binding.storage
        transaction = Transaction(connection, lambda: storage, bench.study, 0)
        counted = claims._rungs(transaction, spec)
    assert counted == rungs_of(climbers)
    assert {rung.rank > 0 for rung in counted.values()} == {True}


def test_a_diverged_trial_leaves_the_ladder(paused: Bench) -> None:
    """It has reached no rung beyond its last valid epoch, and no one waits for it."""
    worker = paused.worker()
    held = claim_trial(worker)
    answer = worker.record(held, [make_epoch(1, float("nan"))])
    assert answer.diverged
    worker.prune(held, SETUP, "diverged at epoch 1")
    told = go(worker)
    assert 0 not in {number for number, _, _ in told}
    assert paused.state() == "complete"
    assert not [row for row in paused.rows(t.rung) if row.trial_id == held.trial_id]


def test_two_workers_share_the_ladder_and_the_last_waits(paused: Bench) -> None:
    """If enough trials are being finished another worker waits, and both end with the study."""
    idle = [paused.worker(), paused.worker()]
    held: list[tuple[Ledger, Lease]] = []
    waited = 0
    while True:
        for worker in tuple(idle):
            answer = worker.claim(None, adopt=True)
            if isinstance(answer, Claimed):
                held.append((worker, answer.lease))
                idle.remove(worker)
            elif isinstance(answer, Wait):
                assert answer.reason == "the last trials are running"
                waited += 1
        if not held:
            break
        worker, lease = held.pop(0)
        train(worker, lease)
        idle.append(worker)
    assert waited
    assert paused.state() == "complete"
    assert len({(row.trial_id, row.start) for row in paused.rows(t.stretch)}) == len(
        paused.rows(t.stretch)
    )
    assert [row.state for row in paused.rows(t.outcome)] == ["COMPLETE"]


def test_contenders_are_those_that_were_trained_to_their_end(database: Database) -> None:
    """With of = "top" complete trials race, and their further seeds never pause."""
    spec = small(trials=6 + 2, finish=2)
    spec = replace(spec, replicates=replace(spec.replicates, seeds=2, of="top", top=2))
    assert (spec.configurations, spec.total_trials) == (6, 8)
    bench = Bench.launch(database, spec)
    told = go(bench.worker())
    assert told[-2:] == [(6, 0, None), (7, 0, None)]
    contenders = [row.configuration for row in bench.rows(t.trial) if row.seed == 1]
    assert contenders == [0, 1]
    assert bench.state() == "complete"


def test_a_pack_takes_paused_trials_of_its_kind(paused: Bench) -> None:
    """Trials of its kind are resumed beside others; with another kind next it runs out."""
    worker, peer = paused.worker(), paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    first = claim_trial(peer)
    assert (first.number, first.stored_epochs) == (0, 1)
    for _ in range(2):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    train(worker, held)
    company = Company([first], lambda *_: False)
    assert isinstance(peer.claim(None, adopt=True, company=company), Wait)
    fitting = Company([first], lambda *_: True)
    answer = peer.claim(None, adopt=True, company=fitting)
    assert isinstance(answer, Claimed)
    assert (answer.lease.number, answer.lease.stored_epochs) == (1, 1)


def test_a_learning_sampler_is_asked_only_for_new_settings(database: Database) -> None:
    """A promotion comes before a proposal, even if it became possible during the proposal."""
    spec = replace(small(), name="learning")
    spec = replace(spec, search=replace(spec.search, sampler="tpe"))
    bench = Bench.launch(database, spec)
    worker, peer = bench.worker(), bench.worker()
    for _ in range(2):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    assert isinstance(peer.claim(None, adopt=True), NeedsProposal)
    train(worker, held)
    answer = peer.claim(None, adopt=True)
    assert isinstance(answer, Claimed)
    assert answer.lease.stored_epochs == 1


def test_stopping_keeps_paused_trials_and_going_on_resumes_them(paused: Bench) -> None:
    """Trials given back are adopted first; paused ones wait for the rule."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    control.stop(paused.database, paused.study)
    worker.give_back(held, "the study is stopped")
    assert isinstance(worker.claim(None, adopt=True), Ended)
    control.go_on(paused.database, paused.study)
    with paused.database.transaction() as connection:
        assert identities.is_settled(connection, paused.study.study_id)
    again = claim_trial(worker)
    assert (again.number, again.until) == (0, 3)


def test_a_failed_trial_that_is_retried_goes_on_with_its_stretch(paused: Bench) -> None:
    """A retry continues its promoted stretch, without a second decision."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    held = claim_trial(worker)
    while worker.fail(held, "broken") == "again":
        held = claim_trial(worker)
    assert control.retry(paused.database, paused.binding, paused.study, []) == [0]
    again = claim_trial(worker)
    assert (again.number, again.until, again.stored_epochs) == (0, 3, 1)
    assert len([row for row in decisions(paused) if row == (1, "promoted")]) == 1


def test_a_study_with_nothing_but_paused_trials_has_work(paused: Bench) -> None:
    """A worker on any study visits it: only a claim knows whether one is promoted."""
    worker = paused.worker()
    for _ in range(3):
        train(worker, claim_trial(worker))
    with paused.database.transaction() as connection:
        (turn,) = turns.read(connection)
    assert turn.has_work
