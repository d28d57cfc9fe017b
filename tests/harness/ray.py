"""A throw-away Ray of two nodes on this machine, with token login, as in newer versions."""

import importlib.util
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.train.blobs import PAUSE

REQUIRED = "TUNER_TEST_RAY"
"""Set to `required`, tests on Ray may not be skipped."""
NODE = {"object_store_memory": 80_000_000}
LOGIN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
AROUND = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
}
"""The environment of its processes, and so of the actors. At Ray's niceness of 15 they would starve
beside other tests. It does not start Python for tasks in advance either.
"""
DRIVER = """
import json, os, sys, time
from tuner.fleet.contract import Crew
from tuner.fleet.ray import ENGINE
from tuner.settings import from_environment
crew = Crew.from_json(json.loads(sys.argv[1]))
fleet = ENGINE.fleet(from_environment(os.environ), crew)
fleet.start()
print(json.dumps(fleet.handle()), flush=True)
time.sleep(3600)
"""
"""A program that starts a fleet, prints its handle, and waits until it is killed."""
STARTS = 3
"""How often starting a cluster is tried: on a busy machine a node may exceed Ray's 30 s."""


@dataclass
class Cluster:
    """A cluster whose head runs no work, so that any node with work can be killed."""

    cluster: Any
    nodes: list[Any]
    cpus: int
    """The CPUs of a node: how many workers fit on it."""

    @property
    def address(self) -> str:
        """The address for drivers."""
        return str(self.cluster.address)

    def add(self, cpus: int | None = None) -> Any:
        """Let a node join."""
        room = {**NODE, "num_cpus": cpus or self.cpus}
        self.nodes.append(_patiently(lambda: self.cluster.add_node(**room)))
        return self.nodes[-1]

    def kill(self, node: Any) -> None:
        """Kill a node, with all that runs on it."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


def why_not() -> str | None:
    """Return why Ray cannot run here, or None."""
    return None if importlib.util.find_spec("ray") else "ray is not installed (pip: tuner[ray])"


@contextmanager
def run_cluster(pause_seconds: float = 0.02, cpus: int = 1) -> Iterator[Cluster]:
    """Start a head and two nodes, and stop them at the end; each training step lasts this long."""
    before = dict(os.environ)
    # Ray reads them only from the environment, in every process of the cluster.
    os.environ.update({**LOGIN, **AROUND, PAUSE: str(pause_seconds)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray

        cluster = _started()
        try:
            made = Cluster(cluster, [], cpus)
            made.add()
            made.add()
            yield made
        finally:
            with suppress(Exception):  # a killed node logs errors
                ray.shutdown()
            cluster.shutdown()
            os.environ.clear()
            os.environ.update(before)


def _started() -> Any:
    from ray.cluster_utils import Cluster as RayCluster

    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    return _patiently(lambda: RayCluster(initialize_head=True, head_node_args=head))


def _patiently(start: Callable[[], Any]) -> Any:
    for _ in range(STARTS - 1):
        with suppress(Exception):  # Ray has no more specific exception for it
            return start()
    return start()
