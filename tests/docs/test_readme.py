"""README and tour can be followed from top to bottom: each command finds its files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
AFTER = "## Next steps"
NAMING = (
    "table",
    "compare",
    "show",
    "gap",
    "confusion",
    "influence",
    "diff",
    "run",
    "events",
    "export",
)
READING = ("validate", "check", "launch", "run")
"""Commands that read a study's file; the others need a stored study."""


def commands() -> Iterator[list[str]]:
    """Yield the words of every command of the tour's section, without its comment."""
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    section = tour.split(AFTER)[1].split("\n## ")[0]
    for line in re.findall(r"^    tuner (.+)$", section, re.MULTILINE):
        yield line.split("#")[0].split()


def named(words: list[str]) -> list[str]:
    """Return the studies that a command names."""
    if "--study" in words:
        return [words[words.index("--study") + 1]]
    return words[1 : 3 if words[0] == "diff" else 2] if words[0] in (*NAMING, *READING) else []


def test_each_command_finds_what_it_names() -> None:
    """A file is shipped or written by an earlier line; a stored study was launched before."""
    files = {path.stem for path in (ROOT / "studies").glob("*.toml")}
    stored = {"lr_sched"}
    followed = 0
    for words in commands():
        assert words[0] in COMMANDS
        if words[:2] == ["new", "study"]:
            assert words[2] not in files
            files.add(words[2])
        if words[0] == "worker":
            continue  # waits for its study
        for name in named(words):
            known = files if words[0] in READING else stored
            assert Path(name).stem in known, " ".join(words)
            followed += 1
        if words[0] == "launch":
            stored |= set(named(words))
    assert followed > 15


def linked(page: Path) -> list[str]:
    """Return the files that a page links to or shows."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [target for target in targets if "://" not in target]


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every file that a page links to or shows exists."""
    missing = [target for target in linked(page) if not (page.parent / target).exists()]
    assert missing == []


def test_links_are_found() -> None:
    """Links are found, so that the test above checks something."""
    assert len([target for page in PAGES for target in linked(page)]) > 30


def test_the_readme_names_commands_that_exist() -> None:
    """Each line of the README that calls tuner uses an existing command."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words = re.findall(r"(?:^ +|`|\$ )tuner ([a-z]+)", text, re.MULTILINE)
    assert len(words) > 10
    assert set(words) <= set(COMMANDS)


def test_the_readme_fits_three_screens() -> None:
    """The README stays short; the tour has the rest."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
