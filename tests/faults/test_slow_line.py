"""Large results over a slow line: they arrive, and the trial is kept and watched meanwhile."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from tests.faults.proof import assert_whole, events_of, kinds
from tests.faults.proxy import Proxy
from tests.faults.scenery import Scene
from tests.harness.postgres import Server
from tests.harness.processes import until
from tests.store.specs import Bench, make_spec
from tests.work.trainer_double import large_scores
from tuner.cli.live import plain_line
from tuner.results import predicted
from tuner.settings import Timing
from tuner.store import database as stored
from tuner.store import tables as t
from tuner.store import uploads
from tuner.store.ledger.leases import Ended
from tuner.store.overview import Overview, overview
from tuner.work import training
from tuner.work.stopping import StopRequest
from tuner.work.worker import work

IMAGES = 2000
RATE = 400_000.0
"""Bytes per second. The 4 MB of predictions need 10 s: several times the server's timeout below,
and the lease. As hexadecimal text in one transaction, each array alone would need 10 s.
"""


@pytest.fixture
def slow(mortal: Scene, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Scale down sizes and timeouts alike, from a megabyte a piece and 10 s."""
    monkeypatch.setattr(uploads, "PIECE_BYTES", 2**17)
    monkeypatch.setattr(training, "SENDING_SECONDS", 0.0)
    for name in ("idle_in_transaction_session_timeout", "statement_timeout"):
        monkeypatch.setitem(stored.SERVER_SIDE, name, "2s")
    proxy.rate = RATE
    mortal.settings = replace(
        mortal.settings, timing=Timing(lease=6.0, renew=0.3, grace=2.0, poll=0.15, give_back=1.0)
    )
    return mortal


def working(scene: Scene, url: str, stop: StopRequest) -> Callable[[], Ended]:
    """Work through the proxy in a thread; return a function that waits for its end."""
    ended: list[Ended] = []
    orders = scene.orders(f"large:{IMAGES}")
    settings = replace(scene.settings, database_url=url)
    thread = threading.Thread(target=lambda: ended.append(work(settings, orders, stop)))
    thread.start()

    def wait() -> Ended:
        thread.join(120)
        assert ended, "the worker has not ended"
        return ended[0]

    return wait


def seen(bench: Bench) -> Overview:
    """Look at the study as `tuner status` does."""
    with bench.database.transaction() as connection:
        return overview(connection, bench.study)


def test_a_large_result_arrives_and_can_be_watched(
    slow: Scene, own_server: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload longer than the timeout and the lease succeeds; nothing is lost or repeated."""
    caplog.set_level(logging.INFO, "tuner")
    bench = Bench.launch(slow.database, make_spec(dimensions=(), epochs=1))
    wait = working(slow, own_server.url(port=proxy.port), StopRequest())
    looks: list[tuple[int, str]] = []

    def half() -> bool:
        now = seen(bench)
        looks.extend((line.bytes_sent, plain_line(now)) for line in now.workers if line.bytes_sent)
        return any(sent > IMAGES * 1000 for sent, _ in looks)

    until(half, "half of it is stored")
    assert wait().state == "complete"
    assert any("MB" in text and "trial 0: storing" in text for _, text in looks), looks
    assert "MB of its predictions are stored" in caplog.text
    assert "trying again" not in caplog.text
    assert not {"lost", "adopted", "attempt failed"} & set(kinds(bench)), events_of(bench)
    assert_whole(bench)
    with bench.database.transaction() as connection:
        found = predicted(connection, bench.study, 0, "val", "best")
    assert np.array_equal(found.log_probabilities, large_scores(IMAGES))


def test_a_cut_in_the_middle_sends_only_the_rest(
    slow: Scene, own_server: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Pieces stored before the cut are not sent again, and the result is complete."""
    bench = Bench.launch(slow.database, make_spec(dimensions=(), epochs=1))
    wait = working(slow, own_server.url(port=proxy.port), StopRequest())
    until(lambda: len(bench.rows(t.piece)) >= 5, "5 pieces")
    before = {
        (row.split, row.moment, row.number): written(bench, row) for row in bench.rows(t.piece)
    }
    proxy.cut()
    assert wait().state == "complete"
    assert "the database is away; trying again" in caplog.text
    after = {
        (row.split, row.moment, row.number): written(bench, row) for row in bench.rows(t.piece)
    }
    assert len(after) == 32
    assert {key: after[key] for key in before} == before
    assert {row.token for row in bench.rows(t.outcome)} == {1}


def written(bench: Bench, row: sa.Row[tuple[object, ...]]) -> object:
    """Return the transaction that wrote a piece."""
    mine = [t.piece.c[name] == getattr(row, name) for name in ("split", "moment", "number")]
    with bench.database.transaction() as connection:
        query = sa.select(sa.cast(sa.literal_column("xmin"), sa.Text)).select_from(t.piece)
        return connection.execute(query.where(*mine)).scalar_one()


def test_a_worker_that_is_to_leave_gives_the_trial_back(
    slow: Scene, own_server: Server, proxy: Proxy
) -> None:
    """A worker that is to exit does not upload for minutes: a peer evaluates again instead."""
    bench = Bench.launch(slow.database, make_spec(dimensions=(), epochs=1))
    stop = StopRequest()
    wait = working(slow, own_server.url(port=proxy.port), stop)
    until(lambda: bench.rows(t.piece), "a piece")
    stop._take(15, None)
    assert wait().state == "stopped"
    assert [row.state for row in bench.rows(t.lease)] == ["released"]
    proxy.rate = None
    assert working(slow, own_server.url(port=proxy.port), StopRequest())().state == "complete"
    assert [row.token for row in bench.rows(t.upload)] == [2]
    assert {row.token for row in bench.rows(t.piece)} == {2}
