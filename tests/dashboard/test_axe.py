"""Every page as axe-core sees it: no serious finding, in light and in dark."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.test_browser import (  # noqa: F401  # fixtures are used by their names
    PAGES,
    Served,
    browser,
    pytestmark,
    served,
)

AXE = Path(__file__).parent / "axe"
GRAVE = ("serious", "critical")
SHORT = "violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.target.join(' '))])"


def test_the_tool_is_that_of_its_release() -> None:
    """The vendored files are those of the release, with its licence."""
    lines = (AXE / "SHA256SUMS").read_text().splitlines()[1:]
    sums = {name: expected for expected, name in (line.split("  ", 1) for line in lines)}
    assert set(sums) == {"axe.min.js", "LICENSE"}
    for name, expected in sums.items():
        assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == expected


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(browser: Any, served: Served, scheme: Any) -> None:  # noqa: F811
    """Names, roles, contrast and order of every page: nothing serious is found."""
    # The page's own policy allows no script but its files; the tool is none of them.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    found: dict[str, Any] = {}
    for path in (*PAGES, "/studies/digits/compare?settings=1,2"):
        page.goto(served.url + path)
        page.wait_for_function("document.querySelector('#live')?.dataset.state === 'live'")
        page.add_script_tag(path=AXE / "axe.min.js")
        violations = page.evaluate(f"axe.run().then(({{violations}}) => {SHORT})")
        grave = [one for one in violations if one[0] in GRAVE]
        if grave:
            found[path] = grave
    context.close()
    assert found == {}
