"""Workers: joining, renewing, leaving, and the hours they spend."""

import pytest
import sqlalchemy as sa

from tests.conftest import QUICK
from tests.store.specs import Bench, claim_trial, finish
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Lease, Renewed
from tuner.store.ledger.ledger import Ledger
from tuner.store.spending import Used


def renew(bench: Bench, who: Ledger, *held: Lease, active: float = 0.0) -> Renewed:
    """Renew as the worker's thread does."""
    post = workers.Post(bench.study.study_id, who.worker_id)
    with bench.database.transaction() as connection:
        return workers.renew(connection, post, held, QUICK, Used(active, active))


def test_renewing_moves_the_end_of_the_lease(bench: Bench) -> None:
    """The lease runs from now by the server's clock, and the worker counts as seen."""
    worker = bench.worker()
    held = claim_trial(worker)
    bench.expire(held)
    assert renew(bench, worker, held, active=12.5) == Renewed("open")
    row = bench.lease_row(held)
    assert (row.expires - row.renewed).total_seconds() == pytest.approx(QUICK.lease, abs=0.1)
    (me,) = bench.rows(t.worker)
    assert me.active_seconds == 12.5
    assert me.seen > me.started


def test_a_lease_with_another_token_is_lost(bench: Bench) -> None:
    """After adoption the old holder's renewal reports it, and leaves the new lease alone."""
    slow, quick = bench.worker(), bench.worker()
    old = claim_trial(slow)
    bench.expire(old)
    claim_trial(quick)
    before = bench.lease_row(old)
    assert renew(bench, slow, old).lost == (old,)
    assert bench.lease_row(old) == before


def test_the_lease_of_a_deleted_trial_is_lost(bench: Bench) -> None:
    """A deleted trial's lease is lost; without any lease the study counts as stopped."""
    worker = bench.worker()
    held = claim_trial(worker)
    with bench.database.transaction() as connection:
        studies.delete(connection, bench.study)
    assert renew(bench, worker, held) == Renewed("stopped", (held,))
    assert renew(bench, worker) == Renewed("stopped")


@pytest.mark.parametrize("deed", ["finish", "give back"])
def test_a_renewal_that_comes_late_is_no_loss(bench: Bench, deed: str) -> None:
    """A renewal after the trial's end, before the thread knows of it, changes nothing."""
    worker = bench.worker()
    held = claim_trial(worker)
    if deed == "finish":
        finish(worker, held)
    else:
        worker.give_back(held, "a test")
    before = bench.lease_row(held)
    renew(bench, worker, held)
    assert bench.lease_row(held) == before


def test_leaving_is_noted(bench: Bench) -> None:
    """A worker that left has its end and its active time."""
    worker = bench.worker()
    post = workers.Post(bench.study.study_id, worker.worker_id)
    with bench.database.transaction() as connection:
        workers.leave(connection, post, Used(3.5, 1.75))
    (row,) = bench.rows(t.worker)
    assert (row.active_seconds, row.device_seconds) == (3.5, 1.75)
    assert row.ended >= row.started


def test_renewing_waits_for_no_other_trial(bench: Bench) -> None:
    """A peer in the middle of a transaction does not delay other leases' renewals."""
    first, second = bench.worker(), bench.worker()
    mine, theirs = claim_trial(first), claim_trial(second)
    with Database(bench.database.address) as other, other.transaction() as connection:
        connection.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        connection.execute(
            sa.text("SELECT 1 FROM tuner.lease WHERE trial_id = :id FOR UPDATE"),
            {"id": theirs.trial_id},
        )
        assert renew(bench, first, mine) == Renewed("open")
