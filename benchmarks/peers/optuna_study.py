"""Optuna with the notebook loop as its objective: a grid on SQLite, one process."""

from typing import Any

import optuna

from benchmarks.peers import setting as peers
from benchmarks.peers.loop import train
from benchmarks.peers.setting import Setting


def main() -> None:
    """Run the grid and tell what its trials came to."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = Setting.given()
    space: dict[str, Any] = {"schedule": list(given.schedules), "seed": list(range(given.seeds))}
    study = optuna.create_study(
        storage=f"sqlite:///{given.folder}/optuna.db",
        sampler=optuna.samplers.GridSampler(space),
        direction="maximize",
    )
    found = []

    def objective(trial: optuna.Trial) -> float:
        name = trial.suggest_categorical("schedule", space["schedule"])
        seed = trial.suggest_categorical("seed", space["seed"])
        found.append(train(given, str(name), int(seed)))
        return float(found[-1]["val"])

    study.optimize(objective, n_trials=len(list(given.trials())))
    peers.tell(found)


if __name__ == "__main__":
    main()
