"""Small studies, trials' figures and workers for the tests of the store and the workers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import QUICK
from tuner.records import Dataset, Epoch, Figures, Labels, Predictions, Result, Setup, Value
from tuner.settings import Timing
from tuner.spec.space import Choice, Dimension, Range, Space
from tuner.spec.study import Budget, Limits, Replicates, Search, Spec
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.leases import Claimed, Lease, NeedsProposal, Proposal
from tuner.store.ledger.ledger import Ledger
from tuner.store.optuna_storage import Binding
from tuner.store.studies import Study

RATES = (1e-4, 1e-3, 1e-2)
SETUP = Setup("a test", 7, "w" * 8, "data-1", {"precision": "fp32"})
DATASET = Dataset(
    "data-1",
    ("no", "yes"),
    {"train": 8, "val": 2, "test": 2},
    (Labels("val", ("a", "b"), np.array([0, 1])),),
)


def make_spec(
    name: str = "small",
    *,
    trials: int | Literal["grid"] = "grid",
    dimensions: tuple[Dimension, ...] = (Choice("lr", RATES),),
    seeds: int = 1,
    epochs: int = 3,
    hours: float | None = None,
    money: float | None = None,
    price: float | None = None,
    budget_epochs: int | None = None,
    full: float | None = None,
    **search: Any,
) -> Spec:
    """Build a study of three learning rates, or of the given dimensions."""
    return Spec(
        name=name,
        question="Which?",
        objective="chest_xray",
        budget=Budget(trials, hours, money, price, budget_epochs, full),
        limits=Limits(silence_seconds=30.0),
        search=Search(**search),
        replicates=Replicates(seeds),
        space=Space(dimensions),
        fixed={"epochs": epochs},
        data={},
        defaults={"lr": 1e-3, "width": 64, "optimizer": "adam", "momentum": 0.9},
        data_defaults={"image_size": 32},
    )


def make_ranged(name: str = "ranged", trials: int = 10, **search: Any) -> Spec:
    """Build a study over ranges with a condition, for samplers other than grid."""
    return make_spec(
        name,
        trials=trials,
        dimensions=(
            Range("lr", 1e-5, 1e-1, log=True),
            Range("width", 8, 64, step=8, integer=True),
            Range("momentum", 0.0, 0.9, when={"optimizer": ("sgd",)}),
            Choice("optimizer", ("adam", "sgd")),
        ),
        **search,
    )


def limited(spec: Spec, **limits: Any) -> Spec:
    """Return the study with other limits."""
    return replace(spec, limits=replace(spec.limits, **limits))


def make_epoch(number: int, val_loss: float = 0.5, **figures: float) -> Epoch:
    """Make one epoch's figures."""
    plain = {
        "train_loss": 0.6,
        "train_nll": 0.6,
        "train_acc": 0.7,
        "val_acc": 0.8,
        "val_auc": 0.9,
        "val_balanced_acc": 0.8,
        "lr": 1e-3,
        "seconds": 0.01,
        "val_sensitivity": 0.7,
        "val_specificity": 0.9,
        "val_seconds": 0.002,
    }
    return Epoch(number, val_loss=val_loss, **{**plain, **figures})  # type: ignore[arg-type]


def make_curve(*losses: float) -> list[Epoch]:
    """Make a curve from its validation losses, from epoch 1 on."""
    return [make_epoch(place, loss) for place, loss in enumerate(losses, start=1)]


def make_result(curve: list[Epoch]) -> Result:
    """Make the result of a trial with this curve."""
    best = min(curve, key=lambda one: one.val_loss)
    scores = np.log(np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32))
    return Result(
        _figures(best),
        _figures(curve[-1]),
        (Predictions("val", "best", scores), Predictions("val", "last", scores)),
    )


def _figures(one: Epoch) -> Figures:
    return Figures(
        one.epoch,
        one.train_loss,
        one.train_nll,
        one.train_acc,
        one.val_loss,
        one.val_acc,
        test_loss=0.7,
        test_acc=0.75,
    )


@dataclass
class Bench:
    """One stored study, and as many workers on it as a test needs."""

    database: Database
    binding: Binding
    study: Study

    @classmethod
    def launch(cls, database: Database, spec: Spec, *, new_version: bool = False) -> "Bench":
        """Store a study and open it."""
        binding = Binding(database)
        launched = studies.launch(database, binding, spec, {}, new_version=new_version)
        return cls(database, binding, launched.study)

    def worker(self, timing: Timing = QUICK, *, database: Database | None = None) -> Ledger:
        """Join a worker, with its own Optuna storage as a process would have."""
        used = self.database if database is None else database
        with used.transaction() as connection:
            who = workers.Worker("here", 1, "cpu")
            post = workers.join(connection, self.study.study_id, who)
        return Ledger(used, Binding(used), self.study, post.worker_id, timing)

    def expire(self, held: Lease) -> None:
        """Let a lease expire, as if its holder had been silent for long."""
        with self.database.transaction() as connection:
            connection.execute(
                sa.update(t.lease)
                .where(t.lease.c.trial_id == held.trial_id)
                .values(expires=sa.func.clock_timestamp() - sa.text("interval '1 hour'"))
            )

    def lease_row(self, held: Lease) -> Any:
        """Return a trial's lease from the database."""
        with self.database.transaction() as connection:
            return connection.execute(
                sa.select(t.lease).where(t.lease.c.trial_id == held.trial_id)
            ).one()

    def rows(self, table: sa.Table) -> list[Any]:
        """Return all rows of one of our tables."""
        with self.database.transaction() as connection:
            return list(connection.execute(sa.select(table)))

    def state(self) -> str:
        """Return the study's state as stored."""
        with self.database.transaction() as connection:
            return studies.find(connection, self.study.ref).state

    def contents(self) -> dict[str, list[str]]:
        """Return every row of both schemas except when workers were last seen, to compare later."""
        with self.database.transaction() as connection:
            return {
                str(table): sorted(map(as_text, connection.execute(sa.select(table))))
                for table in (*t.metadata.sorted_tables, *optuna_tables())
                if table.name != "worker"
            }


def as_text(row: sa.Row[Any]) -> str:
    """Return a row as text that distinguishes bits and makes NaN equal to itself."""
    return repr([bytes(value) if isinstance(value, memoryview) else value for value in row])


def optuna_tables() -> list[sa.Table]:
    """Return Optuna's own tables."""
    from optuna.storages._rdb import models

    return list(models.BaseModel.metadata.sorted_tables)


def claim_trial(worker: Ledger, *, adopt: bool = True) -> Lease:
    """Claim a trial that must exist; a learning sampler's proposals are made up."""
    answer = worker.claim(None, adopt=adopt)
    if isinstance(answer, NeedsProposal):
        chosen = made_up(worker.study.spec, answer.configuration)
        answer = worker.claim(Proposal(answer.configuration, chosen), adopt=adopt)
    assert isinstance(answer, Claimed), answer
    return answer.lease


def optuna_trials(worker: Ledger) -> list[FrozenTrial]:
    """Return Optuna's stored trials, after checking that our observations are the same."""
    with worker._transaction() as transaction:
        trials: list[FrozenTrial] = transaction.storage.get_all_trials(
            worker.study.study_id, deepcopy=False
        )
    assert [*map(as_observed, worker.observations())] == [*map(as_observed, trials)]
    return trials


def as_observed(trial: FrozenTrial) -> object:
    """Return all that a sampler reads of a trial, so that NaN equals itself."""
    last = trial.last_step if trial.state == TrialState.PRUNED else None
    return (
        trial.number,
        trial._trial_id,
        trial.state,
        repr(trial.value),
        trial.params,
        trial.distributions,
        trial.user_attrs["seed"],
        bool(trial.user_attrs.get("diverged")),
        None if last is None else (last, repr(trial.intermediate_values[last])),
    )


def made_up(spec: Spec, configuration: int) -> Mapping[str, Value]:
    """Return some parameters within the space."""
    from tuner.store import sampling

    random = replace(spec, search=replace(spec.search, sampler="random", sampler_options={}))
    return sampling.choose(random, configuration)


def finish(worker: Ledger, held: Lease, *losses: float) -> None:
    """Train a claimed trial to its end in no time."""
    curve = make_curve(*(losses or (0.6, 0.5, 0.55)))
    worker.record(held, curve)
    worker.complete(held, SETUP, DATASET, make_result(curve))


def same_float(left: float, right: float) -> bool:
    """Compare figures so that NaN equals NaN."""
    return left == right or (math.isnan(left) and math.isnan(right))
