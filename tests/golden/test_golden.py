"""Every reading command on the stored studies prints what its golden file contains.

A redesign must change none of these files by accident: a difference is either fixed or intended.
`make golden` writes the current output; git then shows what changed, to be read line by line.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tuner
from tests.conftest import own_database
from tests.golden.agreement import difference, json_difference
from tests.golden.cases import EXPECTED, NOTEBOOK, STUDIES, Case, cases
from tests.golden.page import page_text
from tests.golden.stored import load
from tests.harness.commands import answer
from tuner.store.address import Address

if TYPE_CHECKING:
    from pandas import DataFrame

WRITES = os.environ.get("GOLDEN") == "write"
"""Whether golden files are rewritten, instead of compared."""

DRAWN = re.compile(r"<!-- (.*?) -->")
"""A text in a picture: Matplotlib draws it as lines, and keeps it in a comment."""
STYLE = re.compile("\x1b\\[[0-9;]*m")
MOVING = {
    r"seen -?\d+ s ago": "seen … s ago",
    r"((?:lease expires|leases expire) in) \d+ s": r"\1 … s",
    r'"(seen_seconds|lease_seconds)": -?[\d.]+': r'"\1": 0.0',
    r"postgresql://\S+": "postgresql://…",
    r"tuner [\d.]+, \d{4}-\d\d-\d\d \d\d:\d\d UTC": "tuner …, … UTC",
}
"""Texts that depend on the time or the version, and their form in golden files."""


@dataclass(frozen=True)
class Shell:
    """Runs commands on the stored studies, in a folder that contains their files."""

    address: str
    """The address of the database, with its password."""
    folder: Path

    def ask(self, case: Case) -> str:
        """Return a command's output in the form of a golden file."""
        environment = {
            "TUNER_DATABASE_URL": self.address,
            "TUNER_HOME": str(self.folder / "home"),
            "HOME": str(self.folder),
            "TZ": "UTC",
        }
        if case.ending == "txt" and case.output is None:
            environment |= {"TTY_COMPATIBLE": "1", "COLUMNS": "100"}
        done = answer(case.arguments, self.folder, environment)
        written = self._written(case)
        if case.ending != "txt" and done.code == 0:
            return self._still(written or done.out)
        if case.ending == "json":
            failed = {"exit": done.code, "printed": done.out, "error": self._still(done.err)}
            return json.dumps(failed, indent=1, ensure_ascii=False) + "\n"
        parts = [f"$ tuner {case.command}", done.out]
        parts += ["--- standard error", done.err] if done.err else []
        parts += [f"--- exit {done.code}"] if done.code else []
        parts += [written]
        return self._still("\n".join(part.strip("\n") for part in parts if part) + "\n")

    def _written(self, case: Case) -> str:
        """Return the texts in a command's output file, and remove it; of pictures their words."""
        if case.output is None:
            return ""
        target = self.folder / case.output
        files = sorted(target.iterdir()) if target.is_dir() else [target]
        parts = []
        for file in filter(Path.is_file, files):
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".svg":
                text = f"--- {file.name}\n" + "\n".join(DRAWN.findall(text))
            elif file.suffix == ".html":
                text = page_text(text)
            parts.append(text)
            file.unlink()
        return "\n".join(parts)

    def _still(self, text: str) -> str:
        """Return a text without colours, and without what varies from run to run."""
        for pattern, replacement in MOVING.items():
            text = re.sub(pattern, replacement, text)
        text = text.replace(str(self.folder), "/home/reader")
        text = STYLE.sub("", text)
        return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def shell(server: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Load the stored studies once for all cases, read-only."""
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    with own_database(server, "template0") as address:
        load(address)
        folder = tmp_path_factory.mktemp("reader")
        shutil.copytree(STUDIES, folder / "studies")
        yield Shell(address.url(show_password=True), folder)
    os.environ.pop("TZ")
    if zone is not None:
        os.environ["TZ"] = zone
    time.tzset()


def name(case: Case) -> str:
    """Return the name of a case in pytest's output: its golden file."""
    return str(case.file.relative_to(EXPECTED))


@pytest.mark.parametrize("case", [case for case in cases() if not case.long], ids=name)
def test_command_prints_what_its_golden_file_holds(shell: Shell, case: Case) -> None:
    """A command's output is unchanged, except for last digits."""
    compare(case, shell.ask(case))


@pytest.mark.parametrize("case", [case for case in cases() if case.long], ids=name)
def test_document_holds_what_its_golden_file_holds(shell: Shell, case: Case) -> None:
    """Words and tables of a report, and the words in pictures, are unchanged."""
    compare(case, shell.ask(case))


def test_notebook_gives_what_its_golden_file_holds(shell: Shell) -> None:
    """Frames have the same columns and types, and verdicts the same words."""
    with tuner.open("lr_sched", database=shell.address) as study:
        compared, gapped = study.compare(), study.gap()
        frames = {
            "trials": study.trials,
            "epochs": study.epochs,
            "predictions": study.predictions,
            "compare().frame": compared.frame,
        }
        parts = [repr(study)]
        for called, frame in frames.items():
            parts += [f"--- {called}: {len(frame)} rows", types_of(frame)]
        parts += ["--- compare()", repr(compared), "--- gap()", repr(gapped)]
        parts += ["--- influence()", *(one.verdict for one in study.influence())]
    compare(NOTEBOOK, "\n".join(parts) + "\n")


def types_of(frame: "DataFrame") -> str:
    """Return a frame's columns with their types, as pandas 2 and 3 agree on them."""
    names = {"object": "text", "str": "text", "datetime64[ns, UTC]": "datetime64[us, UTC]"}
    return "\n".join(f"{column}: {names.get(str(of), of)}" for column, of in frame.dtypes.items())


def compare(case: Case, found: str) -> None:
    """Compare output with the golden file, or write that file."""
    if WRITES:
        case.file.parent.mkdir(parents=True, exist_ok=True)
        case.file.write_text(found, encoding="utf-8")
        return
    expected = case.file.read_text(encoding="utf-8")
    if case.ending == "json":
        differs = json_difference(expected, found)
    else:
        differs = difference(expected, found, rounded=case.ending != "csv")
    if differs is not None:
        pytest.fail(
            f"tuner {case.command}\ndoes not print what {case.file} holds:\n{differs}\n"
            "If that is wanted, write it by `make golden`.",
            pytrace=False,
        )


def test_every_golden_file_has_its_command() -> None:
    """Every golden file belongs to an existing case, and no two cases share one."""
    files = [case.file for case in (*cases(), NOTEBOOK)]
    assert len(files) == len(set(files))
    if WRITES:
        for file in set(EXPECTED.rglob("*.*")) - set(files):
            file.unlink()
    assert {file for file in EXPECTED.rglob("*") if file.is_file()} == set(files)
