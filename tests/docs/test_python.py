"""docs/python.md works: its code runs, in order, on a trained study."""

import re
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import STUDY, make_project
from tuner.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs_as_it_stands(tmp_path: Path, settings: Settings) -> None:
    """Every block of the page runs in one session, and the verdicts are printed."""
    project = make_project(tmp_path, {"TUNER_DATABASE_URL": str(settings.database_url)})
    text = STUDY.replace("lr = [1e-3, 1e-2]", 'scheduler = ["cosine", "step"]')
    project.write_study("lr_sched", text)
    project.run("launch", "--study", "lr_sched", "--workers", "1")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=project.folder,
        env=dict(project.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scheduler: " in done.stdout
    assert "cause" in done.stdout
    assert "cosine" in done.stdout
    assert "rates complete 2/2 trials" in done.stdout
    assert "Did you mean lr" in done.stdout or "did you mean lr" in done.stdout
    assert (project.folder / "curves.svg").read_bytes().startswith(b"<?xml")
    assert (project.folder / "report.html").read_text().startswith("<!doctype html>")
