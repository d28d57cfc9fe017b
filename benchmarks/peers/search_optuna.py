"""Optuna with TPE and hyperband over the notebook loop: one process per core, one journal."""

import multiprocessing
import os
import warnings
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks.peers import search_loop
from benchmarks.peers import setting as peers
from benchmarks.peers.search_loop import Search, train


def main() -> None:
    """Search, and report the trials' results."""
    given = Search.given()
    context = multiprocessing.get_context("spawn")
    _study(given, 0)
    crew = [context.Process(target=work, args=(given, one)) for one in range(os.cpu_count() or 1)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    peers.tell([trial.user_attrs for trial in _study(given, 0).trials if trial.user_attrs])


def work(given: Search, worker: int) -> None:
    """Train trials until there are enough, in one process."""
    torch.set_num_threads(1)

    def objective(trial: optuna.Trial) -> float:
        chosen = {
            "scheduler": trial.suggest_categorical("scheduler", search_loop.SCHEDULERS),
            "lr": trial.suggest_float("lr", *search_loop.RATES, log=True),
            "batch_size": trial.suggest_categorical("batch_size", search_loop.BATCHES),
            "weight_decay": trial.suggest_float("weight_decay", *search_loop.DECAYS, log=True),
            "depth": trial.suggest_int("depth", *search_loop.DEPTHS),
        }
        losses: list[float] = []
        stopped = False
        for epoch, loss in enumerate(train(given, chosen), 1):
            losses.append(loss)
            trial.report(loss, epoch)
            stopped = trial.should_prune()
            if stopped:
                break
        for name, value in search_loop.told(losses, given).items():
            trial.set_user_attr(name, value)
        if stopped:
            raise optuna.TrialPruned
        return min(losses)

    enough = MaxTrialsCallback(given.trials, states=(TrialState.COMPLETE, TrialState.PRUNED))
    _study(given, worker).optimize(objective, callbacks=[enough])


def _study(given: Search, worker: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=given.seed + worker, multivariate=True, constant_liar=True
        )
    path = Path(given.folder) / "optuna.log"
    return optuna.create_study(
        study_name="search",
        storage=JournalStorage(JournalFileBackend(str(path))),
        sampler=sampler,
        pruner=optuna.pruners.HyperbandPruner(min(5, given.epochs), given.epochs, 3),
        load_if_exists=True,
    )


if __name__ == "__main__":
    main()
