"""Ray Tune with the notebook loop as its trainable, on as many CPUs as there are."""

import os
from typing import Any

import ray
import torch
from ray import tune

from benchmarks.peers import setting as peers
from benchmarks.peers.loop import train
from benchmarks.peers.setting import Setting


def main() -> None:
    """Run the grid and report the trials' results."""
    given = Setting.given()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(
        num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="error"
    )

    def trainable(config: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        return train(given, *config["trial"])

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(given.trials())},
        run_config=tune.RunConfig(storage_path=f"{given.folder}/ray", verbose=0),
    )
    names = ("schedule", "seed", "began", "val", "test")
    results = [{name: one.metrics[name] for name in names} for one in tuner.fit() if one.metrics]
    ray.shutdown()
    peers.tell(results)


if __name__ == "__main__":
    main()
