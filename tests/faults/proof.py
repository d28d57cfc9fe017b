"""What must hold after every fault: the exact trials, each complete and once, bit for bit."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.store.specs import Bench, as_text, optuna_tables, optuna_trials, same_float
from tests.train.blobs import Blobs, nothing
from tuner.records import Epoch
from tuner.store import tables as t

COMPARED = ("epoch", "train_loss", "train_nll", "train_acc", "val_loss", "val_acc", "val_auc")


def assert_whole(bench: Bench, states: Mapping[str, int] | None = None) -> None:
    """Show that a study ended with exactly its trials, each complete and recorded exactly once."""
    total = bench.study.spec.total_trials
    trials = {row.trial_id: row for row in bench.rows(t.trial)}
    assert sorted(row.number for row in trials.values()) == list(range(total))
    assert len({(row.configuration, row.seed) for row in trials.values()}) == total
    outcomes = {row.trial_id: row for row in bench.rows(t.outcome)}
    assert Counter(row.state for row in outcomes.values()) == (states or {"COMPLETE": total})
    assert {row.state for row in bench.rows(t.lease)} == {"ended"}
    assert bench.state() == "complete"
    _assert_curves(bench, outcomes)
    _assert_predictions(bench, outcomes)
    _assert_optuna_agrees(bench, trials, outcomes)
    _assert_told_once(bench, trials)


def assert_as_undisturbed(bench: Bench, blobs: Blobs) -> None:
    """Show that every epoch and prediction has the bits of a training without any fault."""
    workbench = blobs.workbench()
    predictions = bench.rows(t.prediction)
    epochs = bench.rows(t.epoch)
    for row in bench.rows(t.trial):
        run = workbench.begin(bench.study.spec.job(row.chosen, row.seed))
        wanted = [_compared(one) for one in run.epochs(nothing)]
        mine = sorted((e for e in epochs if e.trial_id == row.trial_id), key=lambda e: e.epoch)
        assert [_compared(one) for one in mine] == wanted, f"trial {row.number}"
        kept = {
            (p.split, p.moment): p.log_probabilities
            for p in predictions
            if p.trial_id == row.trial_id
        }
        for one in run.result().predictions:
            bits = np.ascontiguousarray(one.log_probabilities, dtype="<f4").tobytes()
            assert bytes(kept[one.split, one.at]) == bits, f"trial {row.number}"


def resumptions(bench: Bench) -> list[tuple[int, int]]:
    """Return (epochs stored, epoch resumed at) of every adoption that recorded something.

    0 stands for a training that started from scratch.
    """
    found = []
    for row in bench.rows(t.trial):
        told = events_of(bench, row.trial_id)
        stored = [one for one in bench.rows(t.epoch) if one.trial_id == row.trial_id]
        adoptions = [one for one in told if one.kind == "adopted"]
        for place, adopted in enumerate(adoptions):
            token = place + 2
            if not any(one.token == token for one in stored):
                continue
            until = adoptions[place + 1].event_id if place + 1 < len(adoptions) else float("inf")
            at = [
                int(one.text.split()[2].rstrip(","))
                for one in told
                if one.kind == "resumed" and adopted.event_id < one.event_id < until
            ]
            assert len(at) <= 1, "an attempt resumes once, and says so once"
            found.append((sum(one.token < token for one in stored), at[0] if at else 0))
    return found


def events_of(bench: Bench, trial_id: int | None = None) -> list[Any]:
    """Return the events in order, of one trial or of all."""
    rows = [row for row in bench.rows(t.event) if trial_id in (None, row.trial_id)]
    return sorted(rows, key=lambda row: row.event_id)


def kinds(bench: Bench) -> Counter[str]:
    """Count the events by kind."""
    return Counter(row.kind for row in bench.rows(t.event))


def rows_of_trial(bench: Bench, trial_id: int) -> dict[str, list[str]]:
    """Return every row that either schema has for a trial, including its history."""
    found = {}
    with bench.database.transaction() as connection:
        for table in (*t.metadata.sorted_tables, *optuna_tables()):
            if "trial_id" in table.c and table.name != "output":
                query = sa.select(table).where(table.c.trial_id == trial_id)
                found[str(table)] = sorted(map(as_text, connection.execute(query)))
    return found


def _compared(one: Epoch | Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in COMPARED)


def _assert_curves(bench: Bench, outcomes: Mapping[int, Any]) -> None:
    whole = int(bench.study.spec.fixed["epochs"])
    curves: dict[int, list[int]] = {}
    for row in bench.rows(t.epoch):
        curves.setdefault(row.trial_id, []).append(row.epoch)
    for trial_id, ended in outcomes.items():
        curve = sorted(curves.get(trial_id, []))
        assert curve == list(range(1, len(curve) + 1)), f"trial {trial_id} has a gap"
        assert ended.last_epoch == (len(curve) or None)
        assert ended.state != "COMPLETE" or len(curve) == whole


def _assert_predictions(bench: Bench, outcomes: Mapping[int, Any]) -> None:
    kept = Counter((row.trial_id, row.split, row.moment) for row in bench.rows(t.prediction))
    assert set(kept.values()) <= {1}
    splits = {split for _, split, _ in kept}
    complete = {trial_id for trial_id, row in outcomes.items() if row.state == "COMPLETE"}
    moments = ("best", "last")
    assert set(kept) == {(one, split, at) for one in complete for split in splits for at in moments}
    assert not complete or "val" in splits


def _assert_optuna_agrees(
    bench: Bench, trials: Mapping[int, Any], outcomes: Mapping[int, Any]
) -> None:
    names = {"COMPLETE": TrialState.COMPLETE, "PRUNED": TrialState.PRUNED}
    metric = bench.study.spec.search.metric
    stored = {(row.trial_id, row.epoch): getattr(row, metric) for row in bench.rows(t.epoch)}
    seen = optuna_trials(bench.worker())
    assert [one.number for one in seen] == list(range(len(trials)))
    for one in seen:
        ended = outcomes[one._trial_id]
        assert one.state == names.get(ended.state, TrialState.FAIL)
        assert one.params == trials[one._trial_id].chosen
        curve = {at: value for (trial_id, at), value in stored.items() if trial_id == one._trial_id}
        assert one.intermediate_values.keys() == curve.keys()
        assert all(same_float(value, curve[at]) for at, value in one.intermediate_values.items())


def _assert_told_once(bench: Bench, trials: Mapping[int, Any]) -> None:
    told = Counter((row.trial_id, row.kind) for row in bench.rows(t.event))
    for trial_id in trials:
        assert told[trial_id, "created"] == 1
        ends = [told[trial_id, kind] for kind in ("complete", "pruned", "failed")]
        assert sum(ends) == 1
    decided = Counter((row.trial_id, row.epoch) for row in bench.rows(t.decision))
    assert set(decided.values()) <= {1}
