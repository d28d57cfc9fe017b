"""Ray Tune with ASHA over the notebook loop: random settings, as many at a time as CPUs."""

import os
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.peers import search_loop
from benchmarks.peers import setting as peers
from benchmarks.peers.search_loop import Search, train


def main() -> None:
    """Search, and report the trials' results."""
    given = Search.given()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(
        num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="error"
    )

    def trainable(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        losses: list[float] = []
        for loss in train(given, config):
            losses.append(loss)
            tune.report({"val_loss": loss, **search_loop.told(losses, given)})

    space = {
        "scheduler": tune.choice(search_loop.SCHEDULERS),
        "lr": tune.loguniform(*search_loop.RATES),
        "batch_size": tune.choice(search_loop.BATCHES),
        "weight_decay": tune.loguniform(*search_loop.DECAYS),
        "depth": tune.randint(search_loop.DEPTHS[0], search_loop.DEPTHS[1] + 1),
    }
    asha = ASHAScheduler(
        max_t=given.epochs, grace_period=max(1, given.epochs // 20), reduction_factor=3
    )
    found = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_loss", mode="min", scheduler=asha, num_samples=given.trials
        ),
        run_config=tune.RunConfig(storage_path=f"{given.folder}/ray", verbose=0),
    ).fit()
    names = ("ended", "complete", "epochs", "loss")
    trials = [{name: one.metrics[name] for name in names} for one in found if one.metrics]
    ray.shutdown()
    peers.tell(trials)


if __name__ == "__main__":
    main()
