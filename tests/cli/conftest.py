"""Fixtures of the command line's tests: a user's project folder, and a way to run commands."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import own_database
from tests.harness import warm
from tests.harness.commands import Done, answer, needs_a_process
from tests.harness.warm import Started
from tests.train.blobs import write_blobs
from tuner.settings import Settings
from tuner.store.address import Address

STUDY = """
[study]
name = "small"
question = "Which rate?"
objective = "blobs"

[budget]
trials = "grid"

[replicates]
seeds = 2

[space]
lr = [1e-3, 1e-2]

[fixed]
epochs = 3
hidden = 4
"""

QUICK = {
    "TUNER_LEASE_SECONDS": "5",
    "TUNER_RENEW_SECONDS": "0.5",
    "TUNER_GRACE_SECONDS": "1",
    "TUNER_POLL_SECONDS": "0.1",
}


@dataclass
class Project:
    """A folder with an objective and a study, and the command `tuner` in it."""

    folder: Path
    environment: Mapping[str, str]

    def start(self, *arguments: str, **more: str) -> Started:
        """Start `tuner` with arguments; forked, unless the start of Python matters."""
        environment = {**self.environment, **more}
        if warm.possible(environment):
            return warm.start(arguments, self.folder, environment)
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner", *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        warm.running.append(process)
        return process

    def run(self, *arguments: str, code: int = 0, environ: Mapping[str, str] | None = None) -> str:
        """Run a command that prints JSON, and parse it."""
        done = self._ended(arguments, environ or {})
        assert done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
        return done.out + done.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command that prints JSON, and read it."""
        done = self._ended(arguments, {})
        assert done.code == code, done.err
        return json.loads(done.out)

    def _ended(self, arguments: Sequence[str], environ: Mapping[str, str]) -> Done:
        if not needs_a_process(arguments, environ):
            return answer(arguments, self.folder, {**self.environment, **environ})
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=300)
        return Done(process.wait(), out, err)

    def write_study(self, name: str, text: str = STUDY) -> Path:
        """Write a study file."""
        path = self.folder / "studies" / f"{name}.toml"
        path.write_text(re.sub(r'^name = ".*"$', f'name = "{name}"', text, flags=re.MULTILINE))
        return path


@pytest.fixture
def project(tmp_path: Path, settings: Settings) -> Project:
    """Make a project on the test's own database."""
    return make_project(tmp_path / "project", {"TUNER_DATABASE_URL": str(settings.database_url)})


def make_project(folder: Path, environment: Mapping[str, str]) -> Project:
    """Write the objective and the study into a folder."""
    (folder / "studies").mkdir(parents=True)
    write_blobs(folder)
    made = Project(folder, {**os.environ, **QUICK, "COLUMNS": "120", **environment})
    made.write_study("small")
    return made


@pytest.fixture(scope="module")
def trained_once(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Train the small study once for all tests of a module that only look at it."""
    with own_database(server, template) as address:
        url = address.url(show_password=True)
        folder = tmp_path_factory.mktemp("trained") / "project"
        project = make_project(folder, {"TUNER_DATABASE_URL": url})
        project.run("launch", "--study", "small", "--workers", "1")
        yield project
