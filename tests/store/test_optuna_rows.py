"""Rows that we write into Optuna's tables are those that its own storage would write."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    make_curve,
    make_result,
    make_spec,
    optuna_tables,
    optuna_trials,
)
from tuner.records import Value
from tuner.spec.space import Choice
from tuner.store import optuna_storage
from tuner.store.database import Database

SPACE: Mapping[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "momentum": FloatDistribution(0.0, 0.9, step=0.1),
    "width": IntDistribution(8, 64, step=8),
    "scheduler": CategoricalDistribution(("step", "cosine", "constant")),
    "batch_norm": CategoricalDistribution((True, False)),
}
CHOSEN: Mapping[str, Value] = {
    "lr": 3e-4,
    "momentum": 0.3,
    "width": 24,
    "scheduler": "cosine",
    "batch_norm": False,
}
ATTRIBUTES: Mapping[str, Value] = {"seed": 3, "configuration": 7}
ENDED: Mapping[str, Value] = {"seconds": 1.25, "device": "a »test«", "seed": 4}
IDS = {"trial_id", "study_id", "param_id", "trial_user_attribute_id", "trial_value_id"}
TIMES = {"datetime_start", "datetime_complete"}


def rows(connection: sa.Connection, trial_id: int) -> dict[str, list[dict[str, Any]]]:
    """Return a trial's rows in Optuna's tables, without ids, and times only as set or not."""
    found = {}
    for table in optuna_tables():
        if "trial_id" in table.c:
            mine = connection.execute(sa.select(table).where(table.c.trial_id == trial_id))
            plain = [
                {k: v is not None if k in TIMES else v for k, v in row.items() if k not in IDS}
                for row in mine.mappings()
            ]
            found[table.name] = sorted(plain, key=repr)
    return found


@pytest.mark.parametrize(
    ("state", "value"),
    [
        (TrialState.COMPLETE, 0.25),
        (TrialState.COMPLETE, float("inf")),
        (TrialState.PRUNED, 0.5),
        (TrialState.FAIL, None),
    ],
)
def test_a_trial_is_written_as_optuna_would(
    database: Database, state: TrialState, value: float | None
) -> None:
    """The rows are the same at its beginning and end, and Optuna reads the same trial."""
    ours, theirs = (Bench.launch(database, make_spec(name)) for name in ("ours", "theirs"))
    storage = theirs.binding.storage
    template = create_trial(
        state=TrialState.RUNNING,
        params=dict(CHOSEN),
        distributions=dict(SPACE),
        user_attrs=dict(ATTRIBUTES),
    )
    for number in range(2):
        with database.transaction() as connection:
            trial_id, own = optuna_storage.add_trial(
                connection, ours.study.study_id, CHOSEN, SPACE, ATTRIBUTES, number=number
            )
        other_id = storage.create_new_trial(theirs.study.study_id, template)
        assert own == number == storage.get_trial_number_from_id(other_id)
        with database.transaction() as connection:
            assert rows(connection, trial_id) == rows(connection, other_id)
            optuna_storage.end_trial(connection, trial_id, state, value, ENDED)
        for name, attribute in ENDED.items():
            storage.set_trial_user_attr(other_id, name, attribute)
        storage.set_trial_state_values(other_id, state, None if value is None else [value])
        with database.transaction() as connection:
            assert rows(connection, trial_id) == rows(connection, other_id)
    for one, other in zip(
        *(bench.binding.storage.get_all_trials(bench.study.study_id) for bench in (ours, theirs)),
        strict=True,
    ):
        for name in ("number", "state", "values", "params", "distributions", "user_attrs"):
            assert getattr(one, name) == getattr(other, name)


def test_an_attribute_without_value_is_not_written(database: Database) -> None:
    """An unknown value of a trial leaves no column `null` in the dashboard."""
    bench = Bench.launch(database, make_spec())
    with database.transaction() as connection:
        study_id = bench.study.study_id
        trial_id, _ = optuna_storage.add_trial(connection, study_id, {}, {}, {}, number=0)
        optuna_storage.end_trial(
            connection, trial_id, TrialState.PRUNED, None, {"reason": None, "epoch": 3}
        )
    study = optuna.load_study(study_name=bench.study.optuna_name, storage=bench.binding.storage)
    assert study.trials[0].user_attrs == {"epoch": 3}


def test_no_statement_is_sent_row_by_row(database: Database) -> None:
    """However many epochs are stored at once, one message per table is sent."""
    spec = make_spec(dimensions=(Choice("lr", (1e-3, 1e-2)), Choice("width", (8, 16))), epochs=30)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    one_by_one: list[str] = []

    def look(_cursor: Any, statement: str, *_: Any) -> None:
        one_by_one.append(statement)  # the driver sends one message per row

    sa.event.listen(database.engine, "do_executemany", look)
    try:
        held = claim_trial(worker)
        curve = make_curve(*(1 / number for number in range(1, 31)))
        worker.record(held, curve)
        worker.complete(held, SETUP, DATASET, make_result(curve))
    finally:
        sa.event.remove(database.engine, "do_executemany", look)
    assert one_by_one == []
    assert optuna_trials(worker)[0].intermediate_values == {
        one.epoch: one.val_loss for one in curve
    }
