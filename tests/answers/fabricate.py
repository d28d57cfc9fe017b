"""Fabricates whole studies in the database, with any result and size, without training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tests.store.specs import Bench
from tuner.records import Value
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.train.metrics import balanced_accuracy, sensitivity_and_specificity

Logs = NDArray[np.float32]
RATES = ("sensitivity", "specificity", "balanced_acc")
EPOCH_SECONDS = 0.5


EPOCH_SECONDS = 0.5


@dataclass
class Told:
    """The fabricated outcome of one trial; predictions, if any, give its figures."""

    state: str = "COMPLETE"
    """DIVERGED is stored as a trainer stores it: PRUNED, with that reason."""
    logs: dict[str, Logs] = field(default_factory=dict)
    """Log-probabilities by split."""
    epochs: int = 3
    train_acc: float = 0.97
    val_loss: float | None = None
    """The last epoch's, of a trial without predictions."""
    fingerprint: str = "data-0"


Teller = Callable[[dict[str, Value], int], Told | None]
"""Returns the outcome of a configuration under a seed; None if it was never begun."""


@dataclass(frozen=True)
class Images:
    """The ids, labels and patients of a data set's images."""

    labels: dict[str, NDArray[np.int64]]
    ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ("normal", "pneumonia")
    patients: dict[str, tuple[str, ...]] | None = field(default_factory=dict)
    """Patients by split; None for labels stored before patients were."""


def images(val: int = 200, test: int = 200, *, each: int = 0) -> Images:
    """Return this many images, every other one of class 1; `each` is the number per patient."""
    labels = {"val": np.arange(val) % 2}
    if test:
        labels["test"] = np.arange(test) % 2
    if not each:
        return Images(labels)
    patients = {
        split: tuple(f"{split} {at // each}" for at in range(len(of)))
        for split, of in labels.items()
    }
    return Images(labels, patients=patients)


def hits(right: NDArray[np.bool_], labels: NDArray[np.int64], sure: float = 0.8) -> Logs:
    """Return two-class log-probabilities whose predictions are correct exactly where requested."""
    taken = np.where(right, labels, 1 - labels)
    first = np.where(taken == 0, sure, 1 - sure)
    return np.asarray(np.log(np.column_stack([first, 1 - first])), np.float32)


def fabricate(
    database: Database,
    spec: Spec,
    tell: Teller,
    *,
    data: dict[str, Images] | None = None,
    configurations: Sequence[dict[str, Value]] | None = None,
    seeds: int | None = None,
) -> Bench:
    """Store a study with all its trials, as if it had been trained."""
    bench = Bench.launch(database, spec)
    data = {"data-0": images()} if data is None else data
    settings = list(configurations if configurations is not None else spec.grid)
    rows: dict[sa.Table, list[dict[str, Any]]] = {
        one: [] for one in (t.trial, t.lease, t.outcome, t.epoch, t.prediction)
    }
    number = 0
    for seed in range(seeds or spec.replicates.seeds):
        for place, chosen in enumerate(settings):
            told = tell(chosen, seed)
            if told is not None:
                _add(rows, bench, (number, place, seed), chosen, told, data)
                number += 1
    with database.transaction() as connection:
        for fingerprint, one in data.items():
            _store_data(connection, fingerprint, one)
        for table, values in rows.items():
            for start in range(0, len(values), 5000):
                connection.execute(sa.insert(table), values[start : start + 5000])
    return bench


def _add(
    rows: dict[sa.Table, list[dict[str, Any]]],
    bench: Bench,
    at: tuple[int, int, int],
    chosen: dict[str, Value],
    told: Told,
    data: dict[str, Images],
) -> None:
    number, place, seed = at
    trial_id = bench.study.study_id * 1_000_000 + number
    mine = {"trial_id": trial_id, "study_id": bench.study.study_id}
    rows[t.trial].append(
        {**mine, "number": number, "configuration": place, "seed": seed, "chosen": chosen}
    )
    running = told.state == "RUNNING"
    rows[t.lease].append(
        {**mine, "state": "held" if running else "ended", "worker_id": 1, "token": 1}
        | dict.fromkeys(("claimed", "renewed"), bench.study.created)
        | {"expires": bench.study.created + timedelta(days=36_500)}
    )
    figures = _figures(told, data[told.fingerprint])
    rows[t.epoch] += [_epoch(trial_id, at, told, figures) for at in range(1, told.epochs + 1)]
    if running:
        return
    setup = {
        "device": "a test",
        "parameter_count": 7,
        "initial_weights": "w",
        "data_fingerprint": told.fingerprint,
    }
    kept = {f"{moment}_{k}": v for moment in ("best", "last") for k, v in figures.items()}
    ends: dict[str, float] = dict.fromkeys(("best_epoch", "last_epoch", "epochs_run"), told.epochs)
    ends |= dict.fromkeys(("seconds", "seconds_alone"), told.epochs * EPOCH_SECONDS)
    ending = {"state": told.state, "reason": ""}
    if told.state == "DIVERGED":
        ending = {"state": "PRUNED", "reason": f"diverged at epoch {told.epochs}"}
    rows[t.outcome].append(
        {"trial_id": trial_id, "token": 1, "setup": setup, **ending, **kept, **ends}
    )
    for split, logs in told.logs.items():
        rows[t.prediction] += [
            {
                "trial_id": trial_id,
                "split": split,
                "moment": moment,
                "classes": logs.shape[1],
                "log_probabilities": np.ascontiguousarray(logs, "<f4").tobytes(),
            }
            for moment in ("best", "last")
        ]


def _figures(told: Told, data: Images) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        "train_loss": 0.1,
        "train_nll": 0.1,
        "train_acc": told.train_acc,
        "val_loss": told.val_loss,
        "val_acc": 0.5 if told.val_loss is not None else None,
        "test_loss": None,
        "test_acc": None,
        **dict.fromkeys(f"{split}_{name}" for split in ("val", "test") for name in RATES),
    }
    for split, logs in told.logs.items():
        labels = data.labels[split]
        taken = logs.shape[1] - 1 - logs[:, ::-1].argmax(axis=1)
        found[f"{split}_acc"] = float((taken == labels).mean())
        true = logs[np.arange(len(labels)), labels]
        found[f"{split}_loss"] = -float(true.mean(dtype=np.float64))
        rates = sensitivity_and_specificity(logs, labels)
        balanced = balanced_accuracy(logs, labels)
        found |= {
            f"{split}_{name}": None if np.isnan(rate) else rate
            for name, rate in zip(RATES, (*rates, balanced), strict=True)
        }
    return found


def _epoch(
    trial_id: int, at: tuple[int, ...] | int, told: Told, figures: dict[str, float | None]
) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "epoch": at,
        "token": 1,
        **{name: figures[name] for name in ("train_loss", "train_nll", "train_acc")},
        "val_loss": figures["val_loss"] or 0.5,
        "val_acc": figures["val_acc"] or 0.5,
        "val_auc": 0.9,
        "val_balanced_acc": 0.9,
        "lr": 1e-3,
        "seconds": EPOCH_SECONDS,
        "reused": False,
    }


def _store_data(connection: sa.Connection, fingerprint: str, data: Images) -> None:
    sizes = {split: len(labels) for split, labels in data.labels.items()}
    connection.execute(
        sa.insert(t.dataset).values(
            fingerprint=fingerprint, classes=list(data.classes), sizes={"train": 1000, **sizes}
        )
    )
    for split, labels in data.labels.items():
        ids = data.ids.get(split) or tuple(f"{split}-{n}" for n in range(len(labels)))
        connection.execute(
            sa.insert(t.label).values(
                fingerprint=fingerprint,
                split=split,
                ids=list(ids),
                labels=np.ascontiguousarray(labels, "<i8").tobytes(),
                patients=sa.null() if data.patients is None else list(data.patients.get(split, ())),
            )
        )
