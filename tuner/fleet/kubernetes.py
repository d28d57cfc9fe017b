"""Workers as the pods of one Kubernetes Job, which `kubernetes_manifests` describes.

Kubernetes replaces pods that were evicted or crashed; the Job ends with the study. The fleet's
Secret and ConfigMap are owned by its Job, so that they are deleted with it.
"""

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from tuner.errors import MachineError, UserError
from tuner.fleet import kubernetes_manifests as manifests
from tuner.fleet import options as option_reader
from tuner.fleet.access import access
from tuner.fleet.contract import Crew, Fleet
from tuner.fleet.kubernetes_manifests import KubernetesOptions, Names
from tuner.forkserver import ForkServer
from tuner.settings import Settings

LOOK_SECONDS = 5.0
"""How long an answer of the API server is cached."""
PROBE_SECONDS = 600.0
GONE = 404
LOG_LINES = 12


@dataclass(frozen=True)
class KubernetesCluster:
    """The identity of a cluster, as far as it can be read."""

    uid: str = ""
    """The uid of its namespace kube-system, which lives as long as the cluster; reading it may be
    forbidden."""
    server: str = ""
    """The address of its API server, which may have several."""

    def refuse_elsewhere(self, here: "KubernetesCluster") -> None:
        """Raise if this is another cluster: a Job that it lacks need not have ended."""
        if not self.server or self.server == here.server:
            return
        if self.uid and self.uid == here.uid:
            return
        raise UserError(
            f"This fleet's Job is not on the Kubernetes cluster at {here.server}: it was created "
            f"at {self.server}. Switch kubectl to that cluster (`kubectl config use-context`) and "
            "try again. `tuner stop` ends the study for every worker."
        )


class KubernetesFleet:
    """The Job of one fleet."""

    def __init__(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> None:
        self._settings = settings
        self._crew = crew
        self._options = option_reader.read("kubernetes", KubernetesOptions, crew.options)
        self._names = Names(handle["job"], crew.study)
        self._cluster = KubernetesCluster(**handle.get("cluster", {}))
        self._looked = float("-inf")
        self._job: Any = None

    def start(self) -> None:
        """Create the Job and the objects that it owns."""
        self._cluster = _cluster_here(self._options)
        _create(self._settings, self._crew, self._options, self._names, probe=False)

    def running(self) -> int:
        """Return how many pods run or wait for room."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        if self._job is None or _finished(self._job):
            return 0
        # While Kueue has not admitted the Job, or its pods are being replaced, there are no pods.
        waits = 0 if self._stopped() or self._job.status.succeeded else self._job.spec.parallelism
        return max(int(self._job.status.active or 0), int(waits or 0))

    def scale(self, workers: int) -> None:
        """Change the number of pods; Kubernetes asks surplus ones to leave."""
        self._look()
        limit = manifests.crashes(workers)
        # Never lower than before: that many crashes may have been counted already.
        if self._job is not None:
            limit = max(limit, int(self._job.spec.backoff_limit or 0))
        self._patch({"spec": {"parallelism": workers, "backoffLimit": limit}})

    def ask_to_stop(self) -> None:
        """Let every pod leave within its grace period, without replacement."""
        self._look()
        # Not `suspend`, which Kueue reverts as soon as there is room.
        self._patch({"spec": {"parallelism": 0}})

    def stop_now(self) -> None:
        """End every pod, with just enough time to give its trial back."""
        self.ask_to_stop()
        grace = int(self._settings.timing.give_back)
        with _explained("end the pods"):
            _api(self._options).CoreV1Api.delete_collection_namespaced_pod(
                self._options.namespace,
                label_selector=f"tuner/fleet={self._names.job}",
                grace_period_seconds=grace,
            )

    def close(self) -> None:
        """Delete the Job and the objects that it owns; pods still have their grace period."""
        with _explained("delete the Job", missing=True):
            _api(self._options).BatchV1Api.delete_namespaced_job(
                self._names.job, self._options.namespace, propagation_policy="Background"
            )
        self._looked = float("-inf")

    def failures(self) -> list[str]:
        """Return why the Job failed, with the last output of a pod that did."""
        self._look()
        conditions = (self._job.status.conditions or []) if self._job is not None else []
        said = [one.message for one in conditions if one.type == "Failed" and one.status == "True"]
        if said:
            said += filter(None, [_log(self._options, self._names, "status.phase=Failed")])
        return [str(one) for one in said]

    def remarks(self) -> list[str]:
        """Return nothing: `running` and `failures` say everything."""
        return []

    def handle(self) -> dict[str, Any]:
        """Return the Job's name and its cluster; the namespace is in the crew's options."""
        return {"job": self._names.job, "cluster": asdict(self._cluster)}

    def _stopped(self) -> bool:
        return bool(self._job.spec.parallelism == 0)

    def _look(self) -> None:
        with _explained("read the Job", missing=True):
            self._job = None
            self._job = _api(self._options).BatchV1Api.read_namespaced_job(
                self._names.job, self._options.namespace
            )
        if self._job is None:
            # Its name is random, so a cluster that has it is the right one.
            self._cluster.refuse_elsewhere(_cluster_here(self._options))
        self._looked = time.monotonic()

    def _patch(self, body: Mapping[str, Any]) -> None:
        with _explained("change the Job"):
            _api(self._options).BatchV1Api.patch_namespaced_job(
                self._names.job, self._options.namespace, body
            )
        self._looked = float("-inf")


class KubernetesEngine:
    """A Kubernetes cluster, found in the same way as by kubectl."""

    name = "kubernetes"
    outlives = True

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check the options of [fleet.kubernetes] and return those that were given."""
        return option_reader.given_only(self.name, KubernetesOptions, given)

    def fleet(
        self,
        settings: Settings,
        crew: Crew,
        forks: ForkServer | None = None,  # noqa: ARG002  # the contract's; pods cannot fork from it
    ) -> Fleet:
        """Return a fleet that has no Job yet."""
        return KubernetesFleet(settings, crew, {"job": job_name(crew.study)})

    def again(self, settings: Settings, crew: Crew, handle: Mapping[str, Any]) -> Fleet:
        """Return the fleet of an existing Job."""
        return KubernetesFleet(settings, crew, handle)

    def probe(self, settings: Settings, crew: Crew) -> str:
        """Run the probe in a pod like a worker's, and return its log."""
        options = option_reader.read(self.name, KubernetesOptions, crew.options)
        names = Names(job_name(f"probe-{crew.study}"), crew.study)
        _create(settings, crew, options, names, probe=True)
        fleet = KubernetesFleet(settings, crew, {"job": names.job})
        deadline = time.monotonic() + PROBE_SECONDS
        try:
            while fleet.running():
                if time.monotonic() >= deadline:
                    raise MachineError(
                        f"The probe's pod has not ended within {PROBE_SECONDS:.0f} s; "
                        f"`kubectl describe job {names.job}` says what it waits for."
                    )
                time.sleep(1.0)
            return _log(options, names, "", lines=None)
        finally:
            fleet.close()


ENGINE = KubernetesEngine()


def job_name(study: str) -> str:
    """Return a new name for the Job of a study: valid in DNS, at most 63 characters."""
    plain = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")[:40].strip("-")
    return f"tuner-{plain}-{secrets.token_hex(4)}"


def _create(
    settings: Settings, crew: Crew, options: KubernetesOptions, names: Names, *, probe: bool
) -> None:
    found = access(settings)
    files = manifests.read_objectives(crew.folders)
    there = tuple(Path(manifests.OBJECTIVES, str(place)) for place in range(len(crew.folders)))
    arguments = replace(crew, folders=there).arguments()
    place = ("--place", names.job, "--place-workers", str(crew.size))
    makes_secret = found.password is not None and not options.secret
    secret = options.secret or (names.secret if makes_secret else None)
    body = manifests.job(
        names,
        (*arguments, "--probe", "--json") if probe else (*arguments, *place),
        crew.size,
        options=options,
        environment=found.environment,
        files=files,
        secret=secret,
    )
    others = [manifests.objectives_map(names, files)] if files else []
    if makes_secret:
        assert found.password is not None
        others.append(manifests.password_secret(names, found.password))
    api, space = _api(options), options.namespace
    with _explained("create the Job"):
        made = api.BatchV1Api.create_namespaced_job(
            space, manifests.probe_job(body) if probe else body
        )
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": names.job,
        "uid": made.metadata.uid,
    }
    make = {
        "Secret": api.CoreV1Api.create_namespaced_secret,
        "ConfigMap": api.CoreV1Api.create_namespaced_config_map,
    }
    try:
        for one in others:
            # The Job was created first, to own these objects; its pods wait for what they mount.
            one["metadata"]["ownerReferences"] = [owner]
            with _explained(f"create the {one['kind']}"):
                make[one["kind"]](space, one)
    except MachineError:
        KubernetesFleet(settings, crew, {"job": names.job}).close()
        raise


def _cluster_here(options: KubernetesOptions) -> KubernetesCluster:
    api = _api(options)
    try:
        uid = str(api.CoreV1Api.read_namespace("kube-system").metadata.uid)
    # People may be allowed to create Jobs in one namespace and nothing else.
    except ApiException:
        uid = ""
    except HTTPError as error:
        raise MachineError(f"The Kubernetes API server cannot be reached: {error}") from None
    return KubernetesCluster(uid, str(api.CoreV1Api.api_client.configuration.host))


class _Api:
    """The two parts of the API that fleets use."""

    def __init__(self, context: str) -> None:
        try:
            config.load_kube_config(context=context or None)
        except ConfigException as error:
            try:
                config.load_incluster_config()
            except ConfigException:
                raise MachineError(
                    f"No Kubernetes cluster is configured here: {error}. `kubectl config` shows "
                    "which contexts there are."
                ) from None
        self.BatchV1Api = client.BatchV1Api()
        self.CoreV1Api = client.CoreV1Api()


def _api(options: KubernetesOptions) -> _Api:
    return _Api(options.context)


@contextmanager
def _explained(what: str, *, missing: bool = False) -> Iterator[None]:
    """Turn an error of the API into one for people; with `missing`, ignore missing objects."""
    try:
        yield
    except ApiException as error:
        if missing and error.status == GONE:
            return
        said = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', error.body or "")
        detail = said[1] if said else error.reason
        raise MachineError(f"Kubernetes does not {what}: {detail} ({error.status}).") from None
    except HTTPError as error:
        raise MachineError(f"The Kubernetes API server cannot be reached: {error}") from None


def _finished(job: Any) -> bool:
    conditions = job.status.conditions or []
    ends = ("Complete", "Failed")
    return any(one.type in ends and one.status == "True" for one in conditions)


def _log(
    options: KubernetesOptions, names: Names, which: str, lines: int | None = LOG_LINES
) -> str:
    """Return the last lines of a pod's log, or all of them."""
    api, space = _api(options).CoreV1Api, options.namespace
    with _explained("show the pods"):
        chosen = {"field_selector": which} if which else {}
        pods = api.list_namespaced_pod(
            space, label_selector=f"tuner/fleet={names.job}", **chosen
        ).items
        if not pods:
            return ""
        kept = {} if lines is None else {"tail_lines": lines}
        return str(api.read_namespaced_pod_log(pods[-1].metadata.name, space, **kept)).strip()
