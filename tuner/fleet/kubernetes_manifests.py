"""A fleet's Kubernetes manifests as pure functions: a Job, its password, its objectives.

The Job is a work queue: `parallelism` workers and no `completions`. A pod that exits with 0 means
that the study has ended: Kubernetes starts no more, and the Job is complete when the others end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from tuner.errors import EXIT_FAILURES, EXIT_SIGTERM, EXIT_USER, UserError
from tuner.fleet.contract import epoch_seconds
from tuner.fleet.options import STRICT, Seconds, Text, Words
from tuner.fleet.replacements import HOPELESS
from tuner.settings import GIVE_BACK

HOME = "/var/lib/tuner"
SECRETS = "/run/secrets/tuner"
OBJECTIVES = "/run/objectives"
DATA = "/data"
CONFIGMAP_BYTES = 900_000
"""Kubernetes stores at most 1 MiB in a ConfigMap."""

Manifest = dict[str, Any]


def _pairs(value: Any) -> Any:
    """Read `key=value` words as a table."""
    if not isinstance(value, str):
        return value
    return dict(word.split("=", 1) for word in value.split() if "=" in word)


@dataclass(frozen=True)
class KubernetesOptions:
    """The keys of [fleet.kubernetes]."""

    __pydantic_config__ = ConfigDict(**STRICT)

    image: str = "tuner"
    namespace: str = "default"
    context: str = ""
    """A context of the kubeconfig; its current one by default."""
    cpu: Text = "1"
    memory: str = "4Gi"
    gpus: int = 0
    grace: Seconds = 120.0
    """How long a pod may take to finish its epoch and give its trial back."""
    secret: str = ""
    """An existing Secret with the key database_password; by default one is created."""
    environment_secret: str = ""
    """An existing Secret whose keys become variables, such as the credentials of an S3 store."""
    home_claim: str = ""
    """A PersistentVolumeClaim (ReadWriteMany) for caches and checkpoints, instead of a folder that
    is deleted with its pod."""
    data_claim: str = ""
    """A PersistentVolumeClaim with the images, mounted read-only at /data."""
    queue: str = ""
    """A LocalQueue of Kueue, which then decides when the Job starts."""
    elastic: bool = False
    """Lets Kueue admit fewer workers now and more later."""
    node_selector: Annotated[Mapping[str, str], BeforeValidator(_pairs)] = field(
        default_factory=dict
    )
    tolerate: Words = ()
    """Taints that pods tolerate, such as nvidia.com/gpu."""
    keep: Seconds = 24 * 3600.0
    """How long a finished Job is kept, with its pods' logs."""


@dataclass(frozen=True)
class Names:
    """The names of one fleet's objects."""

    job: str
    study: str

    @property
    def secret(self) -> str:
        """The Secret with the password, if the fleet creates one."""
        return f"{self.job}-database"

    @property
    def objectives(self) -> str:
        """The ConfigMap with the folders of objectives."""
        return f"{self.job}-objectives"


def job(
    names: Names,
    arguments: Sequence[str],
    workers: int,
    *,
    options: KubernetesOptions,
    environment: Mapping[str, str],
    files: Mapping[str, str],
    secret: str | None,
) -> Manifest:
    """Return the Job of a fleet; `files` are its objectives by their paths."""
    annotations = {"tuner/study": names.study}
    labels = {"app.kubernetes.io/name": "tuner", "tuner/fleet": names.job}
    if options.queue:
        labels["kueue.x-k8s.io/queue-name"] = options.queue
        if options.elastic:
            annotations["kueue.x-k8s.io/elastic-job"] = "true"
    spec: Manifest = {
        "parallelism": workers,
        "backoffLimit": crashes(workers),
        "ttlSecondsAfterFinished": int(options.keep),
        "podFailurePolicy": {
            "rules": [
                # Drained, preempted or evicted pods are replaced without being counted.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                _on_exit("Ignore", EXIT_SIGTERM),
                # Exit codes with which every other worker would end as well. Not that of a
                # machine's error: FailJob would end the others in the middle of a trial.
                _on_exit("FailJob", EXIT_FAILURES, EXIT_USER),
            ]
        },
        "template": {
            "metadata": {"labels": labels},
            "spec": _pod(names, arguments, options, environment, files, secret=secret),
        },
    }
    if options.queue:
        spec["suspend"] = True  # until Kueue admits it
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": names.job, "labels": labels, "annotations": annotations},
        "spec": spec,
    }


def crashes(workers: int) -> int:
    """Return the number of crashes after which a fleet is given up.

    It counts crashes and machine errors of the whole fleet over its whole lifetime, but neither
    disruptions nor requests to leave. Kubernetes waits longer before each new pod.
    """
    return HOPELESS * workers


def probe_job(manifest: Manifest) -> Manifest:
    """Return the Job that runs the probe once, in a pod like a worker's."""
    spec = dict(manifest["spec"])
    for key in ("podFailurePolicy", "suspend"):
        spec.pop(key, None)
    return {**manifest, "spec": {**spec, "parallelism": 1, "completions": 1, "backoffLimit": 0}}


def password_secret(names: Names, password: str) -> Manifest:
    """Return the Secret with the database's password."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.secret, "labels": {"tuner/fleet": names.job}},
        "type": "Opaque",
        "stringData": {"database_password": password},
    }


def objectives_map(names: Names, files: Mapping[str, str]) -> Manifest:
    """Return the ConfigMap with the files of objectives."""
    size = sum(len(text.encode()) for text in files.values())
    if size > CONFIGMAP_BYTES:
        raise UserError(
            f"The folders of objectives hold {size / 1e6:.1f} MB of Python files, more than a "
            "ConfigMap may have. Build them into the image and leave --objectives out."
        )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.objectives, "labels": {"tuner/fleet": names.job}},
        "data": {f"file-{place}": text for place, text in enumerate(files.values())},
    }


def read_objectives(folders: Sequence[Path]) -> dict[str, str]:
    """Return the Python files of folders of objectives by their paths in a pod."""
    return {
        f"{place}/{path.relative_to(folder).as_posix()}": path.read_text(encoding="utf-8")
        for place, folder in enumerate(folders)
        for path in sorted(folder.rglob("*.py"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _on_exit(action: str, *codes: int) -> Manifest:
    condition = {"containerName": "worker", "operator": "In", "values": sorted(codes)}
    return {"action": action, "onExitCodes": condition}


def _pod(
    names: Names,
    arguments: Sequence[str],
    options: KubernetesOptions,
    environment: Mapping[str, str],
    files: Mapping[str, str],
    *,
    secret: str | None,
) -> Manifest:
    # TUNER_GIVE_BACK_SECONDS in the environment takes precedence.
    wait = f"{epoch_seconds(options.grace):g}"
    variables = {GIVE_BACK: wait, **environment, "TUNER_HOME": HOME}
    home = (
        {"persistentVolumeClaim": {"claimName": options.home_claim}}
        if options.home_claim
        else {"emptyDir": {}}
    )
    volumes: list[Manifest] = [{"name": "home", **home}]
    mounts: list[Manifest] = [{"name": "home", "mountPath": HOME}]
    if secret is not None:
        variables["TUNER_DATABASE_PASSWORD_FILE"] = f"{SECRETS}/database_password"
        # 0440: the file is root's, and the pod's group (fsGroup) may read it.
        volumes.append({"name": "secret", "secret": {"secretName": secret, "defaultMode": 0o440}})
        mounts.append({"name": "secret", "mountPath": SECRETS, "readOnly": True})
    if files:
        items = [{"key": f"file-{place}", "path": path} for place, path in enumerate(files)]
        volumes.append(
            {"name": "objectives", "configMap": {"name": names.objectives, "items": items}}
        )
        mounts.append({"name": "objectives", "mountPath": OBJECTIVES, "readOnly": True})
    if options.data_claim:
        claim = {"claimName": options.data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": True})
    resources = {"cpu": options.cpu, "memory": options.memory}
    if options.gpus:
        resources["nvidia.com/gpu"] = str(options.gpus)
    container: Manifest = {
        "name": "worker",
        "image": options.image,
        "command": ["tuner", "worker", *arguments],
        "env": [{"name": name, "value": value} for name, value in sorted(variables.items())],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if options.environment_secret:
        container["envFrom"] = [{"secretRef": {"name": options.environment_secret}}]
    pod: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(options.grace),
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    if options.tolerate:
        pod["tolerations"] = [{"key": key, "operator": "Exists"} for key in options.tolerate]
    return pod
