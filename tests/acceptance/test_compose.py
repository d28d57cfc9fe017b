"""docker-compose.yml is valid by the schema, and the command of each service works, in order.

No Docker engine is needed: the commands run here, against a PostgreSQL on TCP that requires a
password, with the password in a file as the secret is.
"""

import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import STUDY, Project, make_project
from tests.harness import warm
from tests.harness.postgres import PASSWORD, Server

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Composition:
    """The compose file, and its services' commands adapted to run here."""

    services: dict[str, dict[str, Any]]
    project: Project
    environment: dict[str, str]

    def start(self, service: str, **changed: str) -> warm.Started:
        """Start a service's command; `changed` replaces some of its words."""
        program, *words = self.command(service)
        assert program == "tuner"
        words = [changed.get(word, word) for word in words]
        return self.project.start(*words, **self.environment)

    def execute(self, service: str) -> subprocess.Popen[str]:
        """Run a service's command as a process whose command line can be inspected."""
        return subprocess.Popen(
            [sys.executable, "-m", *self.command(service)],
            cwd=self.project.folder,
            env={**self.project.environment, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, service: str) -> list[str]:
        """Return a service's command."""
        words: list[str] = self.services[service]["command"]
        return words


@pytest.fixture
def composition(tcp_server: Server, tmp_path: Path) -> Composition:
    """Read the compose file and replace its environment's names by the local ones."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    secret = tmp_path / "database_password"
    secret.write_text(PASSWORD + "\n")
    given = dict(services["worker"]["environment"])
    environment = {
        "TUNER_HOME": str(tmp_path / "home"),
        "TUNER_DATABASE_URL": given["TUNER_DATABASE_URL"].replace(
            "postgres:5432", f"127.0.0.1:{tcp_server.port}"
        ),
        "TUNER_DATABASE_PASSWORD_FILE": str(secret),
    }
    assert set(environment) == set(given), "a variable of the compose file is not tried here"
    project = make_project(tmp_path / "project", {})
    # The services name the shipped study; here a quick one takes its name.
    project.write_study("lr_sched", STUDY)
    return Composition(services, project, environment)


def test_file_is_valid_by_the_compose_schema() -> None:
    """`docker compose config` accepts the file with every profile."""
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed, so the schema cannot be asked")
    arguments = [tool, "--file", "docker-compose.yml", "--profile", "gpu", "--profile", "launch"]
    done = subprocess.run(
        [*arguments, "config"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_services_wait_for_what_they_need() -> None:
    """init waits for a healthy server; everything else for init; the dashboard stays local."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["init"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("dashboard", "launch", "worker", "worker-gpu"):
        condition = services[name]["depends_on"]["init"]["condition"]
        assert condition == "service_completed_successfully", name
    assert services["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]
    # Plain http is allowed only because of the line above.
    assert "--insecure-http" in services["dashboard"]["command"]
    reserved = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved[0]["capabilities"] == ["gpu"]


def test_only_the_gpu_worker_carries_cuda() -> None:
    """Every image but that of worker-gpu is built for the CPU, the Dockerfile's default."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    gpu = services.pop("worker-gpu")
    assert gpu["build"]["args"]["TORCH"].startswith("cu1")
    ours = {name: one for name, one in services.items() if "build" in one}
    assert set(ours) >= {"init", "dashboard", "launch", "worker"}
    assert {(one["build"], one["image"]) for one in ours.values()} == {(".", "tuner")}
    assert gpu["image"] != "tuner"
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "ARG TORCH=cpu" in lines
    assert lines.index("USER tuner") > max(
        place for place, line in enumerate(lines) if line.startswith(("RUN", "COPY"))
    )


def test_password_is_nowhere_but_in_its_file() -> None:
    """No service has a password in its environment or command."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    secrets = [service["secrets"] for service in services.values()]
    assert secrets == [["database_password"]] * len(services)
    passwords = [
        key for service in services.values() for key in service["environment"] if "PASSWORD" in key
    ]
    assert len(passwords) >= len(services) > 0
    assert all(key.endswith("_FILE") for key in passwords)


def test_health_check_answers(composition: Composition, tcp_server: Server) -> None:
    """The health check's command succeeds on a running server."""
    words = composition.services["postgres"]["healthcheck"]["test"][1:]
    words = [tcp_server.programs.program(words[0]), *words[1:], "-p", str(tcp_server.port)]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_services_run_in_order(composition: Composition) -> None:
    """init ends with 0; the dashboard serves; launch and a worker complete the study."""
    init = composition.start("init")
    out, err = init.communicate(timeout=60)
    assert init.returncode == 0, out + err

    worker = composition.start("worker")
    launch = composition.start("launch")
    for process in (launch, worker):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        assert PASSWORD not in out + err

    dashboard = composition.start("dashboard", **{"--port=8080": "--port=0"})
    try:
        assert dashboard.stdout is not None
        url = dashboard.stdout.readline().split()[0]
        assert dashboard.stdout.readline().startswith("Nobody can log in yet. admin chooses")
        link = dashboard.stdout.readline().strip()
        assert link.startswith(url + "link/")
        _uses_the_first_link(url, link)
    finally:
        dashboard.send_signal(signal.SIGINT)
        dashboard.communicate(timeout=20)


def _uses_the_first_link(url: str, link: str) -> None:
    """Without a login nothing is shown; the link logs in; reading and acting work after it."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def ask(address: str, **fields: str) -> str:
        data = urllib.parse.urlencode(fields).encode() if fields else None
        headers = {"Origin": url.rstrip("/")}
        request = urllib.request.Request(address, data=data, headers=headers)
        with opener.open(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body.decode()

    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url + "studies.json")
    assert refused.value.code == 401
    assert "lr_sched" not in ask(url)
    assert "lr_sched" in ask(link, password="a new password", again="a new password")
    assert "lr_sched" in ask(url + "api/studies")
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url + "api/studies", some="thing")
    assert refused.value.code == 405
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(link)
    assert refused.value.code == 404


def test_secrets_are_no_part_of_any_command_line(composition: Composition) -> None:
    """While a worker waits for its study, no command line of its processes has the password."""
    init = composition.start("init")
    init.communicate(timeout=60)
    worker = composition.execute("worker")
    try:
        deadline = time.monotonic() + 20
        while not (shown := _command_lines(worker.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert shown
        assert all(PASSWORD not in line for line in shown)
    finally:
        worker.kill()
        worker.communicate()


def _command_lines(pid: int) -> list[str]:
    import psutil

    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return [" ".join(one.cmdline()) for one in family if one.cmdline()]
