"""Divergence and the samplers: a diverged trial attracts no more than the worst finite one."""

import math
from collections.abc import Sequence

import pytest

from tests.store.specs import SETUP, Bench, claim_trial, finish, make_curve, make_spec
from tuner.records import Value
from tuner.spec.space import Range
from tuner.spec.study import Spec
from tuner.store import sampling
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Claimed, Lease, NeedsProposal, Proposal
from tuner.store.ledger.ledger import Ledger

PAIRS = 12
"""Trials on either side of the cliff."""
WORST = 2.0
"""The worst finite loss that any trial here ends with."""


def cliff(name: str, sampler: str) -> Spec:
    """Build a study over one learning rate, above whose middle trainings go wrong."""
    return make_spec(name, trials=64, dimensions=(Range("lr", 0.0, 1.0),), sampler=sampler)


def diverge(worker: Ledger, held: Lease) -> None:
    """End a trial whose second epoch is NaN, as a supervisor would."""
    worker.record(held, make_curve(0.6, math.nan))
    worker.prune(held, SETUP, "diverged at epoch 2")


def end_badly(worker: Ledger, held: Lease) -> None:
    """End a trial with the worst finite loss."""
    finish(worker, held, WORST, WORST, WORST)


def stop_early(worker: Ledger, held: Lease, loss: float) -> None:
    """End a trial that the pruner stopped at its first epoch."""
    worker.record(held, make_curve(loss))
    worker.prune(held, SETUP, "median at epoch 1")


def claim_at(worker: Ledger, lr: float) -> Lease:
    """Claim the next trial, with a given value."""
    needs = worker.claim(None, adopt=False)
    assert isinstance(needs, NeedsProposal)
    answer = worker.claim(Proposal(needs.configuration, {"lr": lr}), adopt=False)
    assert isinstance(answer, Claimed)
    return answer.lease


def past_the_cliff(database: Database, spec: Spec, *, diverging: bool, early: bool) -> Bench:
    """Store trials on both sides: falling losses before the cliff, diverged or worst beyond.

    With `early` the pruner stopped all finite ones sooner than others diverge.
    """
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    for place in range(PAIRS):
        lr = 0.5 * (place + 0.5) / PAIRS
        for at, loss in ((lr, 1.0 - lr), (0.5 + lr, WORST)):
            held = claim_at(worker, at)
            if diverging and loss == WORST:
                diverge(worker, held)
            elif early:
                stop_early(worker, held, loss)
            else:
                finish(worker, held, loss, loss)
    return bench


def proposed(bench: Bench, count: int) -> list[float]:
    """Return the rates that the study's sampler proposes, over the trials as stored."""
    spec, trials = bench.study.spec, bench.worker().observations()
    first = len(trials)
    return [
        float(sampling.propose(spec, bench.study.title, trials, first + place)["lr"])
        for place in range(count)
    ]


def test_tpe_keeps_away_from_divergence(database: Database) -> None:
    """No more proposals fall beyond the cliff if the trials there diverged.

    TPE by itself ranks pruned trials by their last epoch, whatever was measured there.
    """
    told = past_the_cliff(database, cliff("diverged", "tpe"), diverging=True, early=True)
    worst = past_the_cliff(database, cliff("finite", "tpe"), diverging=False, early=True)
    beyond = [sum(lr > 0.5 for lr in proposed(one, 48)) for one in (told, worst)]
    assert beyond[0] <= beyond[1]
    assert beyond[0] <= 48 // 3


def test_gp_is_told_the_very_same(database: Database) -> None:
    """GP proposes, bit by bit, what it would if diverged trials had ended with the worst loss."""
    told = past_the_cliff(database, cliff("diverged", "gp"), diverging=True, early=False)
    worst = past_the_cliff(database, cliff("finite", "gp"), diverging=False, early=False)
    for bench in (told, worst):
        worker = bench.worker()
        # The worst finite loss must be that of a stored trial.
        finish(worker, claim_at(worker, 0.99), WORST)
    assert proposed(told, 2) == proposed(worst, 2)


def chosen_after(database: Database, spec: Spec, *, diverging: bool) -> Sequence[dict[str, Value]]:
    """Return all parameters of a study whose every second trial goes wrong in one of two ways."""
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    for place in range(16):
        held = claim_trial(worker)
        if place % 2:
            (diverge if diverging else end_badly)(worker, held)
        else:
            finish(worker, held)
    rows = sorted(bench.rows(t.trial), key=lambda row: (row.study_id, row.number))
    return [dict(row.chosen) for row in rows if row.study_id == bench.study.study_id]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_other_samplers_never_look(database: Database, sampler: str) -> None:
    """Random and quasi-random draws are the same, whether trials diverged or ended badly."""
    told = chosen_after(database, cliff("diverged", sampler), diverging=True)
    worst = chosen_after(database, cliff("finite", sampler), diverging=False)
    assert told == worst
    assert len({str(one) for one in told}) == 16
