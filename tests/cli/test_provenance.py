"""A study's commit, read from a checkout that may not be trusted."""

import os
import subprocess
from pathlib import Path

import pytest

from tuner.cli.provenance import provenance

PLAIN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as a user without configuration."""
    who = ("-c", "user.name=A", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *who, *arguments],
        cwd=folder,
        env={**os.environ, **PLAIN},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, as the current folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "-qm", "one")
    monkeypatch.chdir(folder)
    return folder


def test_commit_and_changes_are_told(checkout: Path) -> None:
    """The commit is recorded, and whether the working tree differs from it."""
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance()["git"] == {"commit": commit, "dirty": False}
    (checkout / "code.py").write_text("x = 2\n")
    assert provenance()["git"] == {"commit": commit, "dirty": True}


def test_no_program_of_the_checkout_is_run(checkout: Path, tmp_path: Path) -> None:
    """No file monitor, hook or filter from the checkout's configuration is run."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 >> {ran}\ncat\n")
    program.chmod(0o755)
    (checkout / ".gitattributes").write_text("*.py filter=theirs\n")
    (checkout / "code.py").write_text("x = 2\n")
    git(checkout, "config", "filter.theirs.clean", str(program))
    git(checkout, "config", "filter.theirs.required", "true")
    hook = checkout / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(program)
    git(checkout, "config", "core.fsmonitor", str(program))
    git(checkout, "status", "--porcelain")
    assert ran.exists(), "git by itself runs them"
    ran.unlink()
    os.utime(checkout / "code.py")
    found = provenance()["git"]
    assert found["dirty"]
    assert not ran.exists(), ran.read_text()


def test_variables_of_a_hook_do_not_point_elsewhere(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launched from a hook of another checkout, the study still records this one."""
    commit = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    assert provenance()["git"] == {"commit": commit, "dirty": False}
