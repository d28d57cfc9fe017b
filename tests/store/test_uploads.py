"""Predictions in pieces: complete or not linked, fenced by the token, deleted with their trial."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    make_curve,
    make_result,
    make_spec,
)
from tuner.records import Predictions, Result
from tuner.results import MEASURES, Results, Source, predicted
from tuner.store import studies, uploads
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.leases import Lease, LeaseLostError
from tuner.store.ledger.ledger import Ledger

CURVE = make_curve(0.6, 0.5)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale sizes down: the usual two images of two classes are large, and make four pieces."""
    monkeypatch.setattr(uploads, "INLINE_BYTES", 8)
    monkeypatch.setattr(uploads, "PIECE_BYTES", 5)


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study of one trial."""
    return Bench.launch(database, make_spec(dimensions=()))


def complete(
    worker: Ledger, held: Lease, told: Callable[[int, int], None] = lambda *_: None
) -> None:
    """End a trial with its usual result."""
    worker.record(held, CURVE)
    worker.complete(held, SETUP, DATASET, make_result(CURVE), told)


class CutError(Exception):
    """The connection is cut."""


def cut_after(sent: int) -> Callable[[int, int], None]:
    """Return a hook that cuts the upload once this many bytes are stored."""

    def told(done: int, _total: int) -> None:
        if done >= sent:
            raise CutError

    return told


def test_every_reader_gets_the_array_back(bench: Bench) -> None:
    """Pieces are put together exactly, also for shapes that no piece divides."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, CURVE)
    logs = np.log(np.random.default_rng(1).random((2, 3), np.float32))
    made = make_result(CURVE)
    result = Result(made.best, made.last, (Predictions("val", "best", logs.T.copy().T),))
    worker.complete(held, SETUP, DATASET, result)
    (row,) = bench.rows(t.prediction)
    assert (row.log_probabilities, row.token) == (None, held.token)
    assert sorted(len(one.content) for one in bench.rows(t.piece)) == [4, 5, 5, 5, 5]
    with bench.database.snapshot() as connection:
        found = predicted(connection, bench.study, 0, "val", "best")
        assert np.array_equal(found.log_probabilities, logs)
        measure = MEASURES["val_loss"]
        ((number, split, values),) = Source(Results(connection, bench.study), measure).values([0])
    assert (number, split) == (0, "val")
    assert np.allclose(values, -logs[[0, 1], DATASET.labels[0].labels])


def test_a_small_array_stays_in_its_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of the usual size needs no further transaction."""
    monkeypatch.setattr(uploads, "INLINE_BYTES", 16)
    worker = bench.worker()
    complete(worker, claim_trial(worker))
    assert [row.token for row in bench.rows(t.prediction)] == [None, None]
    assert bench.rows(t.upload) == []


def test_only_what_is_missing_is_sent_again(bench: Bench) -> None:
    """After a cut only the rest is sent; after a lost final answer nothing is."""
    worker = bench.worker()
    held = claim_trial(worker)
    with pytest.raises(CutError):
        complete(worker, held, cut_after(10))
    assert len(bench.rows(t.piece)) == 2
    assert bench.rows(t.outcome) == []
    complete(worker, held)
    assert len(bench.rows(t.piece)) == 8
    before = bench.contents()
    complete_again = make_result(CURVE)
    worker.complete(held, SETUP, DATASET, complete_again)
    assert bench.contents() == before


def test_a_replaced_holder_links_nothing_and_leaves_nothing(bench: Bench) -> None:
    """Its pieces are deleted when the next attempt uploads; its own next piece is refused."""
    slow, quick = bench.worker(), bench.worker()
    held = claim_trial(slow)

    def replaced(done: int, _total: int) -> None:
        if done == 10:
            bench.expire(held)
            complete(quick, claim_trial(quick))

    with pytest.raises(LeaseLostError):
        complete(slow, held, replaced)
    assert {row.token for row in bench.rows(t.piece)} == {2}
    assert [row.token for row in bench.rows(t.upload)] == [2]
    assert [row.token for row in bench.rows(t.outcome)] == [2]


def test_pieces_of_a_failed_attempt_go_with_the_trials_end(bench: Bench) -> None:
    """However a trial ends, no unlinked pieces are left."""
    worker = bench.worker()
    held = claim_trial(worker)
    with pytest.raises(CutError):
        complete(worker, held, cut_after(10))
    worker.prune(held, SETUP, "median at epoch 2")
    assert {row.token for row in bench.rows(t.upload)} <= {held.token}
    assert bench.rows(t.prediction) == []


def test_pieces_are_deleted_with_their_study(bench: Bench) -> None:
    """Deleting a study deletes its pieces."""
    worker = bench.worker()
    complete(worker, claim_trial(worker))
    with bench.database.transaction() as connection:
        studies.delete(connection, bench.study)
    assert bench.rows(t.upload) == bench.rows(t.piece) == []


def test_large_labels_are_stored_once_and_before(bench: Bench) -> None:
    """Many images' ids are sent before the transaction, and only by the first trial."""
    worker = bench.worker()
    held = claim_trial(worker)
    worker.record(held, CURVE)
    assert uploads.has_large_labels(DATASET)
    worker.complete(held, SETUP, DATASET, make_result(CURVE))
    labels = replace(DATASET.labels[0], ids=("other", "names"))
    again = Bench.launch(bench.database, make_spec("again", dimensions=()))
    other = again.worker()
    held = claim_trial(other)
    other.record(held, CURVE)
    other.complete(held, SETUP, replace(DATASET, labels=(labels,)), make_result(CURVE))
    with bench.database.transaction() as connection:
        assert predicted(connection, again.study, 0, "val", "best").ids == ("a", "b")
