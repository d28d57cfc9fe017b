"""Studies that already hold many trials, for benchmarks of what a large database costs."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from tests.store.specs import SETUP, Bench, claim_trial, made_up, make_epoch, make_spec
from tuner.records import Dataset, Epoch, Figures, Labels, Predictions, Result, Value
from tuner.spec.search import SAMPLERS
from tuner.spec.space import Choice, Range
from tuner.spec.study import Spec
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.optuna_storage import TRIALS

SEEDS = 5
RANGES = (
    Range("lr", 1e-5, 1e-1, log=True),
    Range("width", 8, 64, integer=True),
    Range("dropout", 0.0, 0.7),
)
"""The space of studies with a learning sampler."""
PATTERN = 20
"""Trials that are stored through the ledger; the others are copies of them."""


def store(
    database: Database,
    name: str,
    *,
    stored: int,
    trials: int,
    epochs: int,
    pruner: str = "none",
    sampler: str = "grid",
    sampler_options: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
    images: int = 2,
) -> Bench:
    """Store a study with this many trials, of which some have been trained.

    The first are trained by the ledger, in no time, with predictions for this many images of each
    split; the others are copies of their rows, in Optuna's tables and ours, with separate numbers,
    configurations, seeds and parameters.
    """
    configurations = trials // seeds
    widths = max(n for n in range(1, 65) if configurations % n == 0)
    rates = tuple(float(f"{1e-5 * (1 + n):.6g}") for n in range(configurations // widths))
    choices = (Choice("lr", rates), Choice("width", tuple(range(8, 8 + widths))))
    spec = make_spec(
        name,
        trials="grid" if sampler == "grid" else trials,
        dimensions=RANGES if SAMPLERS[sampler].learns else choices,
        seeds=seeds,
        epochs=epochs,
        sampler=sampler,
        pruner=pruner,
    )
    spec = replace(spec, search=replace(spec.search, sampler_options=sampler_options or {}))
    assert spec.total_trials == trials, (spec.total_trials, trials)
    bench = Bench.launch(database, spec)
    if not stored:
        return bench
    assert stored % PATTERN == 0
    # The first trials are trained without the pruner, which would stop some of them.
    search = replace(spec.search, pruner="none", pruner_options={})
    unpruned = replace(bench.study, spec=replace(spec, search=search))
    ledger = replace(bench, study=unpruned).worker()
    dataset = make_dataset(images)
    rng = np.random.default_rng(0)
    for _ in range(PATTERN):
        held = claim_trial(ledger)
        curve, result = make_training(dataset, epochs, rng)
        ledger.record(held, curve)
        ledger.complete(held, SETUP, dataset, result)
    with database.transaction() as connection:
        _copy(connection, bench, stored)
    return bench


def _settings(spec: Spec) -> Iterable[Mapping[str, Value]]:
    """Return the parameters of every configuration; made up for a learning sampler."""
    if spec.search.sampler == "grid":
        return spec.grid
    return (made_up(spec, place) for place in range(spec.configurations))


def settle(database: Database) -> None:
    """Run the maintenance that the server would do by itself minutes after so many inserts."""
    with database.autocommit() as connection:
        connection.execute(sa.text("vacuum analyze"))


def make_dataset(images: int) -> Dataset:
    """Describe a data set with so many validation and test images, half of each class."""
    truth = (np.arange(images) % 2).astype(np.int64)
    return Dataset(
        SETUP.data_fingerprint,
        ("healthy", "ill"),
        {"train": 4 * images, "val": images, "test": images},
        (
            Labels("val", tuple(f"val-{n}" for n in range(images)), truth),
            Labels("test", tuple(f"test-{n}" for n in range(images)), truth),
        ),
    )


def make_training(
    dataset: Dataset, epochs: int, rng: np.random.Generator
) -> tuple[list[Epoch], Result]:
    """Make up a training of some quality: its curve, and predictions that match its end."""
    quality = rng.normal(1.0, 0.2)
    predictions: list[Predictions] = []
    ends: dict[str, tuple[float, float]] = {}
    for split in dataset.labels:
        sign = np.where(split.labels == 1, 1.0, -1.0)
        odds = sign * quality + rng.normal(0.0, 1.0, len(sign))
        # With two classes, minus log(1 + exp(x)) is the log-probability of the other class.
        scores = -np.log1p(np.exp(np.stack([odds, -odds], axis=1))).astype(np.float32)
        true = scores[np.arange(len(sign)), split.labels]
        ends[split.split] = (float(-true.mean()), float((odds * sign > 0).mean()))
        predictions += [Predictions(split.split, "best", scores)]
        predictions += [Predictions(split.split, "last", scores)]
    (val_loss, val_acc), (test_loss, test_acc) = ends["val"], ends["test"]
    left = np.exp(-np.arange(1, epochs + 1) / (epochs / 6))
    curve = [
        make_epoch(number, val_loss + 0.5 * above, val_acc=val_acc - 0.3 * above)
        for number, above in enumerate(map(float, left - left[-1]), start=1)
    ]
    figures = Figures.of(curve[-1], {"test_loss": test_loss, "test_acc": test_acc})
    return curve, Result(figures, figures, tuple(predictions))


def _copy(connection: sa.Connection, bench: Bench, stored: int) -> None:
    """Copy the rows of the pattern until this many trials are stored."""
    # Millions of rows take longer than the statement timeout allows.
    connection.execute(sa.text("set local statement_timeout = 0"))
    # Copies of checked rows need no foreign key checks, and nothing listens for them.
    connection.execute(sa.text("set local session_replication_role = replica"))
    study_id, spec = bench.study.study_id, bench.study.spec
    mine = t.trial.c.study_id == study_id
    first = connection.execute(sa.select(sa.func.min(t.trial.c.trial_id)).where(mine))
    low = int(first.scalar_one())
    shift = f"(row.trial_id + {PATTERN} * copy.n)"
    number = f"({shift} - {low})"
    configuration, seed = (f"({number} {sign} {spec.configurations})" for sign in "%/")
    connection.execute(
        sa.text("create temp table setting (configuration int, chosen jsonb) on commit drop")
    )
    connection.execute(
        sa.text("insert into setting values (:configuration, :chosen)"),
        [
            {"configuration": place, "chosen": json.dumps(dict(chosen))}
            for place, chosen in enumerate(_settings(spec))
        ],
    )
    chosen = f"(select chosen from setting where setting.configuration = {configuration})"
    ours = {"number": number, "configuration": configuration, "seed": seed, "chosen": chosen}
    of_key = f"case row.key when 'seed' then {seed}::text when 'configuration' then {configuration}"
    choices = "(row.distribution_json::jsonb -> 'attributes' -> 'choices')"
    # Optuna stores the index of a choice, and the number itself of a range.
    place = (
        f"coalesce((select at - 1 from jsonb_array_elements({choices})"
        f" with ordinality as c (value, at) where c.value = {chosen} -> row.param_name),"
        f" ({chosen} ->> row.param_name)::float8)"
    )
    changed: Mapping[str, Mapping[str, str]] = {
        "trial": ours,
        "trials": {"number": number},
        "trial_user_attributes": {"value_json": f"{of_key}::text else row.value_json end"},
        "trial_params": {"param_value": place},
    }
    tables = [TRIALS.metadata.tables[name] for name in sorted(TRIALS.metadata.tables)]
    tables = [one for one in [*t.metadata.sorted_tables, TRIALS, *tables] if "trial_id" in one.c]
    for table in dict.fromkeys(tables):
        own_key = [c.name for c in table.primary_key if c.name != "trial_id"]
        serial = own_key if len(table.primary_key) == 1 else []
        columns = [c.name for c in table.c if c.name not in serial]
        made = {"trial_id": shift} | dict(changed.get(table.name, {}))
        values = ", ".join(made.get(name, f'row."{name}"') for name in columns)
        named = ", ".join(f'"{name}"' for name in columns)
        connection.execute(
            sa.text(
                f"insert into {table.fullname} ({named}) select {values} from {table.fullname} row,"
                f" generate_series(1, {stored // PATTERN - 1}) copy (n)"
                f" where row.trial_id between {low} and {low + PATTERN - 1}"
            )
        )
    connection.execute(
        sa.text("select setval(pg_get_serial_sequence('trials', 'trial_id'), :last)"),
        {"last": low + stored},
    )
