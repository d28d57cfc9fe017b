"""Fleets in Kubernetes: the requests to a cluster, and how its answers are interpreted.

No cluster runs here. Manifests are checked against the typed models of the client package, and the
engine talks to a fake server that stores objects.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.fleet.kubernetes_server import Kubernetes, run_kubernetes
from tests.store.specs import Bench, make_spec
from tests.train.blobs import write_blobs
from tuner.errors import MachineError, UserError
from tuner.fleet import kubernetes
from tuner.fleet.contract import Crew
from tuner.fleet.kubernetes import ENGINE, job_name
from tuner.fleet.kubernetes_manifests import (
    KubernetesOptions,
    Manifest,
    Names,
    job,
    objectives_map,
    password_secret,
    probe_job,
)
from tuner.fleet.replacements import HOPELESS
from tuner.settings import Settings
from tuner.store import tables as t
from tuner.store.database import Database

EXPECTED = Path(__file__).parent / "expected" / "kubernetes.json"
NAMES = Names("tuner-lr-1-0a1b", "lr@1")
OPTIONS = KubernetesOptions(
    image="registry.lab/tuner:1",
    cpu="4",
    memory="16Gi",
    gpus=1,
    environment_secret="s3",
    home_claim="scratch",
    data_claim="images",
    queue="lab",
    elastic=True,
    node_selector={"gpu": "a100"},
    tolerate=("nvidia.com/gpu",),
)
FILES = {"0/blobs/__init__.py": "A = 1\n", "0/blobs/models.py": "B = 2\n"}
PASSWORD = "not to be seen"
MODELS = {"Job": "V1Job", "Secret": "V1Secret", "ConfigMap": "V1ConfigMap"}


def manifests() -> list[Manifest]:
    """Return all manifests of a fleet with all options."""
    whole = job(
        NAMES,
        ("lr@1", "--device", "auto", "--objectives", "/run/objectives/0"),
        8,
        options=OPTIONS,
        environment={"TUNER_DATABASE_URL": "postgresql://ada@db.lab/tuner"},
        files=FILES,
        secret=NAMES.secret,
    )
    return [whole, probe_job(whole), objectives_map(NAMES, FILES), password_secret(NAMES, PASSWORD)]


def test_manifests_are_as_they_were() -> None:
    """Manifests are a function of the options; review any change of them."""
    text = json.dumps(manifests(), indent=2) + "\n"
    if os.environ.get("GOLDEN") == "write":
        EXPECTED.write_text(text)
    assert text == EXPECTED.read_text()


@pytest.mark.parametrize("place", range(4))
def test_manifests_fit_the_typed_models(place: int) -> None:
    """The client reads each manifest without losing a key: every name and type is valid."""
    from kubernetes.client import ApiClient

    one = manifests()[place]
    api = ApiClient()
    model = api.deserialize(json.dumps(one), MODELS[one["kind"]], "application/json")
    assert api.sanitize_for_serialization(model) == one


def test_a_job_is_a_work_queue_whose_disruptions_do_not_count() -> None:
    """No completions: the first worker that finds nothing left ends the Job."""
    spec = manifests()[0]["spec"]
    assert "completions" not in spec
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    rules = spec["podFailurePolicy"]["rules"]
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


def test_the_password_is_in_the_secret_alone() -> None:
    """Neither the Job nor the ConfigMap contains the password."""
    *others, secret = manifests()
    assert secret["stringData"] == {"database_password": PASSWORD}
    assert PASSWORD not in json.dumps(others)


@pytest.mark.parametrize(("state", "workers"), [("open", 8), ("paused", 0)])
def test_the_query_for_keda_counts_workers(database: Database, state: str, workers: int) -> None:
    """The query that docs/fleet.md gives KEDA runs, and asks for workers while a study is open."""
    bench = Bench.launch(database, make_spec())
    text = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    (query,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    with database.transaction() as connection:
        mine = t.study.c.study_id == bench.study.study_id
        connection.execute(sa.update(t.study).where(mine).values(state=state))
        assert connection.execute(sa.text(query)).scalar_one() == workers


def test_objectives_that_are_too_large_are_refused() -> None:
    """Objectives too large for a ConfigMap are refused before anything is created."""
    with pytest.raises(UserError, match="Build them into the image"):
        objectives_map(NAMES, {"a.py": "x" * 1_000_000})


@pytest.mark.parametrize("study", ["lr@1", "A_Long.Name" * 9 + "@12", "ä@1"])
def test_names_are_what_dns_allows(study: str) -> None:
    """Names are lower case, digits and dashes, and short enough for the derived names."""
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,53}[a-z0-9])?", job_name(study))
    assert job_name(study) != job_name(study)


@pytest.fixture
def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """Run the fake API server, found as kubectl would find it."""
    monkeypatch.setattr(kubernetes, "LOOK_SECONDS", 0.0)
    with run_kubernetes(tmp_path) as (served, config):
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(config)
        )
        yield served


@pytest.fixture
def crew(tmp_path: Path) -> Crew:
    """Return a crew with a user's objective."""
    return Crew("lr@1", workers=3, folders=(write_blobs(tmp_path / "project").folder,))


@pytest.fixture
def secretive(tmp_path: Path) -> Settings:
    """Return settings whose database requires a password."""
    url = f"postgresql://ada:{PASSWORD.replace(' ', '%20')}@db.lab/tuner"
    return Settings(home=tmp_path / "home", database_url=url)


def test_a_fleet_lives_and_ends(kube: Kubernetes, crew: Crew, secretive: Settings) -> None:
    """It is created, counted, scaled from elsewhere and stopped; its objects go with it."""
    started = ENGINE.fleet(secretive, crew)
    started.start()
    assert kube.kinds() == ["ConfigMap", "Job", "Secret"]
    assert kube.job()["spec"]["parallelism"] == 3
    assert PASSWORD not in json.dumps(kube.job())
    kube.status(active=2)
    assert started.running() == 3
    handle = json.loads(json.dumps(started.handle()))
    fleet = ENGINE.again(secretive, crew, handle)
    fleet.scale(5)
    assert kube.job()["spec"]["parallelism"] == 5
    assert kube.job()["spec"]["backoffLimit"] == 5 * HOPELESS
    fleet.scale(4)
    assert kube.job()["spec"]["backoffLimit"] == 5 * HOPELESS, "so many may have crashed by now"
    kube.status(active=2, succeeded=1)
    assert fleet.running() == 2
    fleet.ask_to_stop()
    kube.status()
    assert fleet.running() == 0
    fleet.close()
    assert kube.objects == {}
    assert fleet.running() == 0


@pytest.mark.parametrize("uid", ["cluster-1", None])
def test_a_fleet_of_another_cluster_is_refused(
    kube: Kubernetes, crew: Crew, secretive: Settings, uid: str | None
) -> None:
    """A missing Job counts as the fleet's end only on the fleet's own cluster."""
    kube.uid = uid
    fleet = ENGINE.fleet(secretive, crew)
    fleet.start()
    handle = fleet.handle()
    there = {**handle["cluster"], "server": "https://elsewhere:6443"}
    # A cluster with another address is the same one if it has the same Job.
    assert ENGINE.again(secretive, crew, {**handle, "cluster": there}).running() == 3
    kube.objects.clear()
    assert ENGINE.again(secretive, crew, handle).running() == 0
    far = {"uid": "cluster-2", "server": "https://elsewhere:6443"}
    for act in ("running", "ask_to_stop"):
        with pytest.raises(UserError, match="created at https://elsewhere:6443"):
            getattr(ENGINE.again(secretive, crew, {**handle, "cluster": far}), act)()
    moved = ENGINE.again(secretive, crew, {**handle, "cluster": there})
    if uid is not None:
        assert moved.running() == 0


def test_pods_share_a_place(kube: Kubernetes, crew: Crew, secretive: Settings) -> None:
    """Pods differ each time, so replacements in vain are counted by their Job."""
    ENGINE.fleet(secretive, crew).start()
    command = kube.job()["spec"]["template"]["spec"]["containers"][0]["command"]
    name = kube.job()["metadata"]["name"]
    assert command[-4:] == ["--place", name, "--place-workers", "3"]


def test_a_complete_job_is_no_failure(kube: Kubernetes, crew: Crew, secretive: Settings) -> None:
    """When the study has ended no worker runs and none failed."""
    fleet = ENGINE.fleet(secretive, crew)
    fleet.start()
    kube.status(succeeded=3, conditions=[{"type": "Complete", "status": "True"}])
    assert fleet.running() == 0
    assert fleet.failures() == []


def test_a_failed_job_is_told_with_its_log(
    kube: Kubernetes, crew: Crew, secretive: Settings
) -> None:
    """A failed Job is reported with its reason and a pod's last output."""
    fleet = ENGINE.fleet(secretive, crew)
    fleet.start()
    kube.log = "Error: no such objective"
    failed = {"type": "Failed", "status": "True", "message": "Container failed with exit code 2"}
    kube.status(failed=1, conditions=[failed])
    assert fleet.running() == 0
    assert fleet.failures() == ["Container failed with exit code 2", "Error: no such objective"]


def test_what_the_server_refuses_is_told_and_nothing_stays(
    kube: Kubernetes, crew: Crew, secretive: Settings
) -> None:
    """A Secret over quota is a MachineError in the server's words; the Job is deleted."""
    kube.quota = True
    with pytest.raises(MachineError, match=r"exceeded quota: secrets \(403\)"):
        ENGINE.fleet(secretive, crew).start()
    assert kube.objects == {}


def test_a_probe_is_a_job_of_its_own(
    kube: Kubernetes, crew: Crew, secretive: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe's Job runs once, prints JSON, and is deleted."""
    kube.log = '{"faults": []}'
    monkeypatch.setattr(kubernetes, "_finished", lambda _: True)
    assert ENGINE.probe(secretive, crew) == '{"faults": []}'
    assert kube.objects == {}


def test_a_machine_without_a_cluster_is_told(
    crew: Crew, secretive: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a kubeconfig the message says what to check."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    with pytest.raises(MachineError, match="No Kubernetes cluster is configured"):
        ENGINE.fleet(secretive, crew).start()


def test_options_that_make_no_sense_are_told() -> None:
    """A misspelt option is a UserError that names it; text is parsed as TOML."""
    with pytest.raises(UserError, match="did you mean namespace"):
        ENGINE.options({"namspace": "lab"})
    read: Any = ENGINE.options({"gpus": "1", "node_selector": "gpu=a100", "cpu": 4})
    assert read == {"gpus": 1, "node_selector": {"gpu": "a100"}, "cpu": "4"}
