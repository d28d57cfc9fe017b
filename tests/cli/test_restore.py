"""`tuner db restore` and earlier workers: refused while connected, fenced off afterwards."""

from pathlib import Path

import pytest

from tests.cli.test_db import tuner
from tests.store.embedded_clients import eventually
from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_curve,
    make_result,
    make_spec,
)
from tuner.errors import UserError
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Ended, Lease, LeaseLostError
from tuner.store.ledger.ledger import Ledger
from tuner.store.spending import Used


def restore_when_left(settings: Settings, dump: Path) -> None:
    """Restore once the server has noticed that the connections are closed."""

    def restored() -> bool:
        try:
            tuner(settings, "restore", str(dump), "--yes")
        except UserError as error:
            assert "are connected" in str(error)  # noqa: PT017 - tried again until they are not
            return False
        return True

    eventually(restored)


def assert_powerless(ledger: Ledger, held: Lease) -> None:
    """Check that with this lease a worker can write nothing and gets nothing."""
    curve = make_curve(0.5, 0.4, 0.3)
    for write in (
        lambda: ledger.record(held, curve),
        lambda: ledger.complete(held, SETUP, DATASET, make_result(curve)),
        lambda: ledger.fail(held, "a reason"),
        lambda: ledger.give_back(held, "a reason"),
    ):
        with pytest.raises(LeaseLostError):
            write()
    post = workers.Post(ledger.study.study_id, ledger.worker_id)
    with ledger.database.transaction() as connection:
        assert workers.renew(connection, post, [held], ledger.timing, Used()).lost == (held,)
    answer = ledger.claim(None, adopt=True)
    assert isinstance(answer, Ended)
    assert "restored" in answer.reason


def test_workers_of_before_a_restore_have_no_identity_after_it(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    """After a restore no earlier lease is valid, from before the dump or after; N is exact."""
    bench = Bench.launch(database, make_spec(seeds=2))
    early = bench.worker()
    in_dump = claim_trial(early)
    dump = tmp_path / "d"
    tuner(settings, "dump", "-o", str(dump))
    late = bench.worker()
    after_dump = claim_trial(late, adopt=False)

    with pytest.raises(UserError, match="are connected"):
        tuner(settings, "restore", str(dump), "--yes")
    database.engine.dispose()
    restore_when_left(settings, dump)

    new = bench.worker()
    assert new.worker_id not in (early.worker_id, late.worker_id)
    first = claim_trial(new, adopt=False)
    assert first.trial_id == in_dump.trial_id, "the trial of the dump is taken up"
    finish(new, first)
    second = claim_trial(new, adopt=False)
    assert (second.trial_id, second.token) == (after_dump.trial_id, after_dump.token), (
        "numbers are given out again: only the worker's tells the two leases apart"
    )
    assert_powerless(early, in_dump)
    assert_powerless(late, after_dump)
    finish(new, second)
    while not isinstance(new.claim(None, adopt=True), Ended):
        finish(new, claim_trial(new))
    assert len(bench.rows(t.trial)) == make_spec(seeds=2).total_trials
    assert {row.worker_id for row in bench.rows(t.worker)} == {early.worker_id, new.worker_id}
    told = [row for row in bench.rows(t.event) if "restored from a dump" in row.text]
    assert [row.trial_id for row in told] == [in_dump.trial_id]
