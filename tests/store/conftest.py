"""Fixtures of the store's tests: a small study with its ledger; another user's Python."""

import os
import subprocess
import sys

import pytest

from tests.store.embedded_clients import CODE, NOBODY
from tests.store.specs import Bench, make_spec
from tuner.store.database import Database


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a grid of three learning rates."""
    return Bench.launch(database, make_spec())


@pytest.fixture(scope="module")
def nobodys_python() -> tuple[str, dict[str, str]]:
    """A Python in which the user nobody can run our code."""
    if os.geteuid() != 0:
        pytest.skip("running as another user needs root")
    paths = [str(CODE), *(path for path in sys.path if path.endswith("-packages"))]
    environ = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            done = subprocess.run(
                [python, "-c", "import psutil, psycopg2, tuner.store.embedded.keeper"],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env=environ,
                cwd="/",
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python, environ
    pytest.skip(f"no {version} that the user nobody could run {CODE} with")
