"""Optuna's grid over the schedules and seeds, on SQLite: code shared by two competitors."""

from collections.abc import Callable
from typing import Any

import optuna

from benchmarks.peers import setting as peers
from benchmarks.peers.setting import Setting

Train = Callable[[Setting, str, int], dict[str, Any]]


def run(train: Train) -> None:
    """Run the grid in this process and report the trials' results."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = Setting.given()
    space: dict[str, Any] = {"schedule": list(given.schedules), "seed": list(range(given.seeds))}
    study = optuna.create_study(
        storage=f"sqlite:///{given.folder}/optuna.db",
        sampler=optuna.samplers.GridSampler(space),
        direction="maximize",
    )
    results = []

    def objective(trial: optuna.Trial) -> float:
        schedule = trial.suggest_categorical("schedule", space["schedule"])
        seed = trial.suggest_categorical("seed", space["seed"])
        results.append(train(given, str(schedule), int(seed)))
        return float(results[-1]["val"])

    study.optimize(objective, n_trials=len(given.trials()))
    peers.tell(results)
