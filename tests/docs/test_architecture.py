"""docs/architecture.md names every room, and every module of each room."""

import re
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
PAGE = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### `tuner/(\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
"""The text about each room's contents."""
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def parts(room: str) -> set[str]:
    """Return the contents of a room: its modules, and its packages as `name/`."""
    modules = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    return modules | {f"{path.parent.name}/" for path in (ROOT / room).glob("*/__init__.py")}


def test_every_package_has_a_section_and_no_section_is_of_another() -> None:
    """Packages and sections of the page correspond to each other."""
    assert sorted(SECTIONS) == PACKAGES


@pytest.mark.parametrize("room", PACKAGES)
def test_every_module_of_a_room_is_named_with_its_idea(room: str) -> None:
    """Each module and package is named in the section of its room."""
    named = {
        name
        for text in re.findall(r"`([^`\n]+)`", SECTIONS[room])
        for name in (text, f"{text.partition('/')[0]}/")
    }
    assert parts(room) - named == set()


def test_every_module_beside_the_packages_is_named() -> None:
    """Each module outside the packages is named on the page."""
    alone = {path.name for path in ROOT.glob("*.py")} - {"__init__.py", "__main__.py"}
    named = {text.removeprefix("tuner/") for text in re.findall(r"`([^`\n]+)`", PAGE)}
    assert alone - named == set()


def test_contents_lead_to_headings() -> None:
    """Each link of the table of contents is the anchor of a heading."""
    headings = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 _-]", "", one.lower()).replace(" ", "-") for one in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert links
    assert set(links) - anchors == set()
    large = [one for one in re.findall(r"^## (.+)$", PAGE, re.MULTILINE) if one != "Contents"]
    contents = PAGE.partition("## Contents")[2].partition("\n## ")[0]
    assert [one for one in large if f"[{one}]" not in contents] == []
