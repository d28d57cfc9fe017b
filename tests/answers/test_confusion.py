"""Confusion matrices: against scikit-learn, at the edges, and from the store."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    make_curve,
    make_result,
    make_spec,
)
from tuner.answers.confusion import confusion
from tuner.errors import UnknownStudyError, UserError
from tuner.records import Predictions
from tuner.results import Predicted, Results, predicted
from tuner.results.predictions import kept_splits
from tuner.store.database import Database
from tuner.train.metrics import is_right


def made(labels: list[int], rows: list[list[float]]) -> Predicted:
    """Return predictions with these labels and log-probabilities."""
    classes = tuple(f"class{k}" for k in range(len(rows[0])))
    ids = tuple(map(str, range(len(labels))))
    logs = np.array(rows, dtype=np.float32)
    return Predicted(0, "test", "best", 1, classes, ids, np.array(labels), logs)


def test_counts_are_scikit_learns() -> None:
    """Counts, recall and precision of four classes agree with scikit-learn's."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    logs = random.normal(size=(300, 4)) + 2 * np.eye(4)[labels]
    found = confusion(made(labels.tolist(), logs.tolist()))
    taken = logs.argmax(axis=1)
    assert np.array_equal(found.counts, confusion_matrix(labels, taken))
    assert found.recall == pytest.approx(recall_score(labels, taken, average=None))
    assert found.precision == pytest.approx(precision_score(labels, taken, average=None))
    assert found.accuracy == pytest.approx((labels == taken).mean())


LOG = st.sampled_from([-3.0, -1.0, -0.5, math.nan, -math.inf])


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(LOG, min_size=3, max_size=3)), min_size=1))
def test_what_is_right_is_what_the_stored_accuracy_counts(
    images: list[tuple[int, list[float]]],
) -> None:
    """With ties and NaN, the correct counts still agree with the trainer's accuracy."""
    found = made([label for label, _ in images], [row for _, row in images])
    counted = confusion(found)
    assert counted.right == is_right(found.log_probabilities, found.labels).sum()
    assert sum(counted.images) == len(images)


def test_what_is_no_number_is_of_no_class() -> None:
    """An image with a NaN prediction counts in its class's row and in no column."""
    found = confusion(made([0, 0, 1], [[-0.1, -2.0], [math.nan, -1.0], [-2.0, -0.1]]))
    assert found.counts == ((1, 0), (0, 1))
    assert found.undecided == (1, 0)
    assert found.recall == (0.5, 1.0)


def test_a_share_of_nothing_is_unknown() -> None:
    """A class without images has no recall, and one that is never predicted has no precision."""
    found = confusion(made([0, 0], [[-0.1, -3.0, -3.0], [-2.0, -0.1, -3.0]]))
    assert found.recall == (0.5, None, None)
    assert found.precision == (1.0, 0.0, None)


BEST = ((0.9, 0.1), (0.2, 0.8))
LAST = ((0.7, 0.3), (0.6, 0.4))


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study of two trials, of which the first is complete, without a test set."""
    bench = Bench.launch(database, make_spec(dimensions=(), seeds=2))
    worker, curve = bench.worker(), make_curve(0.5, 0.4, 0.6)
    held = claim_trial(worker)
    worker.record(held, curve)
    best, last = (np.log(np.array(shares, dtype=np.float32)) for shares in (BEST, LAST))
    kept = (Predictions("val", "best", best), Predictions("val", "last", last))
    worker.complete(held, SETUP, DATASET, replace(make_result(curve), predictions=kept))
    claim_trial(worker)
    return bench


def test_predictions_come_with_their_truth(bench: Bench) -> None:
    """A trial's predictions at its best and last epoch are read back with ids and labels."""
    with bench.database.transaction() as connection:
        number = Results(connection, bench.study).best
        assert kept_splits(connection, bench.study, number) == ("val",)
        best = predicted(connection, bench.study, number, "val", "best")
        last = predicted(connection, bench.study, number, "val", "last")
    assert (number, best.epoch, last.epoch) == (0, 2, 3)
    assert (best.classes, best.ids) == (("no", "yes"), ("a", "b"))
    assert best.labels.tolist() == [0, 1]
    assert np.exp(best.log_probabilities) == pytest.approx(np.array(BEST))
    assert np.exp(last.log_probabilities) == pytest.approx(np.array(LAST))
    assert (confusion(best).accuracy, confusion(last).accuracy) == (1.0, 0.5)


def test_missing_predictions_are_told(bench: Bench) -> None:
    """An unknown trial, a running one and a missing split each give their reason."""
    with bench.database.transaction() as connection:
        with pytest.raises(UnknownStudyError, match="small has no trial 7"):
            predicted(connection, bench.study, 7, "val", "best")
        with pytest.raises(UserError, match="Trial 1 of small is RUNNING"):
            predicted(connection, bench.study, 1, "val", "best")
        with pytest.raises(UserError, match="its data have no test split; use --split val"):
            predicted(connection, bench.study, 0, "test", "best")


def test_nothing_is_best_before_a_trial_is_complete(database: Database) -> None:
    """In a study without a complete trial, asking for the best says what to do."""
    bench = Bench.launch(database, make_spec())
    with (
        bench.database.transaction() as connection,
        pytest.raises(UserError, match="No trial of small is complete yet"),
    ):
        Results(connection, bench.study).best  # noqa: B018 (a property that raises)
