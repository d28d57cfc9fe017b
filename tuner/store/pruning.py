"""Whether a trial should be stopped: Optuna's pruners, asked epoch by epoch.

Steps are epochs, counted from 1. A decision and its inputs are stored before it
takes effect, and are never revised.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.records import Value
from tuner.spec.study import Spec
from tuner.store.ledger.leases import Lease
from tuner.store.optuna_storage import RUNG, TrialsInMemory

OWN_CURVE = frozenset({"none", "threshold", "patient"})
"""Pruners that look only at the trial's own curve and so need nothing from the database."""
RUNGS = frozenset({"asha", "hyperband"})
"""Pruners that keep notes (rungs) in the trial's system attributes."""


@dataclass(frozen=True)
class Decision:
    """The pruner's decision about one epoch, and the inputs that it was based on."""

    epoch: int
    prune: bool
    saw: Mapping[str, Value]


def build_pruner(spec: Spec) -> BasePruner:
    """Build Optuna's pruner for the study."""
    options = spec.search.pruner_options
    warmup = {
        # Optuna prunes from step n_warmup_steps on; our steps begin with 1.
        "n_warmup_steps": int(options.get("warmup", 0)) + 1,
        "interval_steps": int(options.get("interval", 1)),
    }
    startup = {"n_startup_trials": int(options.get("startup", 5))}
    match spec.search.pruner:
        case "median":
            return MedianPruner(**startup, **warmup)
        case "percentile":
            return PercentilePruner(float(options.get("percentile", 25.0)), **startup, **warmup)
        case "threshold":
            return ThresholdPruner(
                lower=_bound(options.get("lower")), upper=_bound(options.get("upper")), **warmup
            )
        case "patient":
            return _patient(options)
        case "asha":
            return SuccessiveHalvingPruner(
                min_resource=int(options["min_resource"]),
                reduction_factor=int(options.get("reduction_factor", 4)),
                min_early_stopping_rate=int(options.get("min_early_stopping_rate", 0)),
                bootstrap_count=int(options.get("bootstrap_count", 0)),
            )
        case "hyperband":
            return HyperbandPruner(
                min_resource=int(options["min_resource"]),
                max_resource=int(options["max_resource"]),
                reduction_factor=int(options.get("reduction_factor", 3)),
                bootstrap_count=int(options.get("bootstrap_count", 0)),
            )
    return NopPruner()


class Pruner:
    """The study's pruner, as used by one worker."""

    def __init__(self, spec: Spec, title: str) -> None:
        self.kind = spec.search.pruner
        self._pruner = build_pruner(spec)
        self._title = title
        self._direction = spec.direction
        self._warmup = int(spec.search.pruner_options.get("warmup", 0))
        # The contenders' further seeds measure selection bias. A pruner that compared them with
        # the lucky seeds by which they were chosen would leave only lucky ones.
        compares = self.kind not in OWN_CURVE
        self._spares_replicates = compares and spec.replicates.of == "top"

    def asks(self, seed: int, epoch: int) -> bool:
        """Return whether the pruner decides about a trial with this seed at this epoch."""
        spared = self._spares_replicates and seed > 0
        return self.kind != "none" and epoch > self._warmup and not spared

    def panel(self, storage: BaseStorage, study_id: int) -> "EpochJudge":
        """Return the pruner bound to one transaction."""
        return EpochJudge(self, storage, study_id)

    def study(self, storage: BaseStorage) -> optuna.Study:
        """Return Optuna's study object over a storage."""
        return optuna.study.Study(self._title, storage, pruner=self._pruner)

    def view(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        """Return Optuna's study object over a snapshot of trials."""
        return self.study(TrialsInMemory(trials, self._direction))

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask Optuna's pruner."""
        return self._pruner.prune(study, trial)


class EpochJudge:
    """Decides about epochs within one transaction; the peers' trials are read once."""

    def __init__(self, pruner: Pruner, storage: BaseStorage, study_id: int) -> None:
        self._pruner = pruner
        self._storage = storage
        self._study_id = study_id

    def decide(self, lease: Lease, curve: Mapping[int, float], epoch: int) -> Decision:
        """Decide about one epoch, as if later epochs of the curve did not exist yet.

        A resumed trial goes through its stored epochs again, and must get the
        decisions that it would have got at the time.
        """
        seen = {step: value for step, value in curve.items() if step <= epoch}
        trial = self._trial(lease, seen)
        prune = self._pruner.prune(self._study, trial)
        saw: dict[str, Value] = {"value": curve[epoch]}
        if self._pruner.kind in RUNGS:
            # How many rungs it had completed before: these stay if this epoch is removed.
            saw["rungs"] = sum(name.startswith(RUNG) for name in trial.system_attrs)
        if self._pruner.kind not in OWN_CURVE:
            saw["complete"] = len(self._complete)
        return Decision(epoch, prune, saw)

    @cached_property
    def _complete(self) -> list[FrozenTrial]:
        return self._storage.get_all_trials(
            self._study_id, deepcopy=False, states=(TrialState.COMPLETE,)
        )

    @cached_property
    def _study(self) -> optuna.Study:
        if self._pruner.kind in RUNGS:
            return self._pruner.study(self._storage)
        peers = [] if self._pruner.kind in OWN_CURVE else self._complete
        return self._pruner.view(peers)

    def _trial(self, lease: Lease, curve: Mapping[int, float]) -> FrozenTrial:
        notes: Mapping[str, object] = {}
        if self._pruner.kind in RUNGS:
            notes = self._storage.get_trial(lease.trial_id).system_attrs
        trial = create_trial(
            state=TrialState.RUNNING, intermediate_values=dict(curve), system_attrs=dict(notes)
        )
        trial.number = lease.number
        trial._trial_id = lease.trial_id  # Optuna has no public way to name it
        return trial


def _patient(options: Mapping[str, Value]) -> PatientPruner:
    with warnings.catch_warnings():
        # The pruner has been "experimental" for years; keep the warning off the terminal.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PatientPruner(
            None,
            patience=int(options["patience"]),
            min_delta=float(options.get("min_delta", 0.0)),
        )


def _bound(value: Value | None) -> float | None:
    return None if value is None else float(value)
