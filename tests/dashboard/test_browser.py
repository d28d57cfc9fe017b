"""The dashboard in Chromium, as a person uses it: with the mouse, and with only the keyboard."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import own_database
from tests.golden.stored import load
from tests.harness import warm
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish, make_epoch, make_spec
from tuner.cli.dashboard import NICE
from tuner.store import studies
from tuner.store.address import Address
from tuner.store.database import Database

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
expect.set_options(timeout=30_000)
REQUIRED = os.environ.get("TUNER_TEST_BROWSER") == "required"
"""Whether these tests fail without a browser instead of being skipped, as in CI."""

PAGES = (
    "/",
    "/studies/lr_sched",
    "/studies/lr_sched/trials",
    "/studies/lr_sched/trials/23",
    "/studies/lr_sched/compare?trials=3,4",
    "/workers",
)

HIGH = 6_000
"""What no page is higher than: all of it is in view."""
TOO_WIDE = """
new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>
    done(document.documentElement.scrollWidth - window.innerWidth))))
"""

DRAWN = """
[...document.querySelectorAll("[data-chart] .plot")].every((plot) => plot.hasChildNodes())
"""

AXE = Path(__file__).parent / "axe"
GRAVE = ("serious", "critical")
SHORT = "violations.map(v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.target.join(' '))])"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not CHROMIUM and not REQUIRED, reason="Chromium is not installed (apt install chromium)"
    ),
]


@dataclass
class Served:
    """A dashboard that runs as a program, over the test's own database."""

    url: str
    database: Database


@dataclass
class Visit:
    """A browser window and its console messages."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page and wait until it receives changes."""
        self.page.goto(self.url + path)
        self.hears()

    def hears(self) -> None:
        """Wait until the page's script runs and receives changes."""
        expect(self.page.locator("#live")).to_have_text("live")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM or None,
            # The name by which tests reach a dashboard behind a proxy.
            args=["--no-sandbox", "--host-resolver-rules=MAP tuner.example.org 127.0.0.1"],
        )
        yield browser
        browser.close()


def serve(address: Address, folder: Path, port: str = "0") -> tuple[warm.Forked, str]:
    """Start `tuner dashboard`, and return it with its address."""
    environment = {**os.environ, "TUNER_DATABASE_URL": address.url(show_password=True)}
    process = warm.start(["dashboard", "--port", port], folder, environment)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[0].rstrip("/")


@pytest.fixture(scope="module")
def served(server: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the stored studies; a test's workers may add to them."""
    with own_database(server, "template0") as address:
        load(address, writable=True)
        with Database(address) as database:
            process, url = serve(address, tmp_path_factory.mktemp("served"))
            try:
                yield Served(url, database)
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Visit]:
    """Open a window; its console must stay silent."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    visit = Visit(page, served.url)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: (
            visit.complaints.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    yield visit
    context.close()
    assert visit.complaints == []


def test_a_study_grows_before_ones_eyes(visit: Visit, served: Served) -> None:
    """A new study appears on the first page, and its trials and curves on its own, by itself."""
    visit.go("/")
    bench = Bench.launch(served.database, make_spec("growing", seeds=2))
    expect(visit.page.get_by_role("link", name="growing", exact=True)).to_be_visible()
    visit.page.get_by_role("link", name="growing", exact=True).click()
    visit.hears()
    marked = "document.body.dataset.mine = 'yes'"
    visit.page.evaluate(marked)
    worker = bench.worker()
    lease = claim_trial(worker)
    expect(visit.page.locator("#now")).to_contain_text("1 running")
    worker.record(lease, [make_epoch(1), make_epoch(2)])
    expect(visit.page.locator("#now")).to_contain_text("2/3")
    finish(worker, lease)
    for _ in range(5):
        finish(worker, claim_trial(worker))
    expect(visit.page.locator("#now")).to_contain_text("6 complete")
    expect(visit.page.locator("#curves canvas")).to_be_visible(timeout=30_000)
    # All of this without reloading the page.
    assert visit.page.evaluate("document.body.dataset.mine") == "yes"


def test_a_link_shows_what_i_see(visit: Visit, browser: Browser, served: Served) -> None:
    """Filters, order and selection are in the address; a second window shows the same."""
    visit.go("/studies/lr_sched/trials")
    box = visit.page.get_by_role("searchbox", name="Filter trials")
    box.fill("lr>0.001 scheduler:step")
    box.press("Enter")
    visit.page.get_by_role("link", name="test_acc", exact=True).click()
    expect(visit.page.locator("#trials tbody tr")).to_have_count(5)
    numbers = visit.page.locator("#trials tbody th").all_inner_texts()
    visit.page.get_by_role("checkbox", name=f"Select trial {numbers[0]}", exact=True).check()
    visit.page.get_by_role("checkbox", name=f"Select trial {numbers[1]}", exact=True).check()
    other = browser.new_page()
    other.goto(visit.page.url)
    assert other.locator("#trials tbody th").all_inner_texts() == numbers
    assert other.locator("#trials tbody :checked").count() == 2
    other.close()
    visit.page.get_by_role("link", name="Compare the two selected").click()
    expect(visit.page.locator(".answer")).to_contain_text(f"{numbers[0]} and {numbers[1]}")


def test_with_the_keyboard_alone(visit: Visit) -> None:
    """Search, move, select two, compare, and reach a trial's mistakes, without a mouse."""
    page = visit.page
    visit.go("/")
    page.keyboard.press("/")
    page.keyboard.type("schedule generalises")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{visit.url}/?q=schedule+generalises")
    visit.hears()
    expect(page.locator("[data-row]")).to_have_count(1)
    page.locator("body").press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{visit.url}/studies/lr_sched")
    visit.go("/studies/lr_sched/trials")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    page.keyboard.press("c")
    expect(page).to_have_url(f"{visit.url}/studies/lr_sched/compare?trials=0,1")
    visit.hears()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    visit.go("/studies/lr_sched/trials/23")
    expect(page.get_by_text("48 misclassified images")).to_be_visible()


def test_the_table_as_a_file(visit: Visit, tmp_path: Path) -> None:
    """pandas reads the CSV of a filtered table with the same trials."""
    import pandas as pd

    visit.go("/studies/pruned/trials?q=state:pruned")
    shown = visit.page.locator("#trials tbody th").all_inner_texts()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Download CSV").click()
    download.value.save_as(tmp_path / "pruned.csv")
    frame = pd.read_csv(tmp_path / "pruned.csv")
    assert sorted(map(str, frame["trial"])) == sorted(shown)
    assert set(frame["state"]) == {"PRUNED"}


def test_a_chart_that_came_with_its_page_is_asked_for_again(visit: Visit) -> None:
    """A chart sent with its page is requested again when it is scrolled into view."""
    page = visit.page
    page.set_viewport_size({"width": 1280, "height": 100})
    address = f"{visit.url}/studies/lr_sched/curves.json"
    until(lambda: page.request.get(address).status == 200)
    # Once live, a page treats everything as changed.
    visit.go("/studies/lr_sched")
    expect(page.locator("#curves [data-drawn]")).to_have_count(1)
    with page.expect_response(address, timeout=8_000) as answer:
        page.locator("#curves .plot").scroll_into_view_if_needed()
        expect(page.locator("#curves canvas")).to_be_visible()
    assert answer.value.status == 204  # the curves had not


def test_a_brush_narrows_the_page(visit: Visit, browser: Browser) -> None:
    """A brushed range is in the address and narrows the rest; Back removes it."""
    page = visit.page
    visit.go("/studies/lr_sched")
    page.locator("#leaderboard").scroll_into_view_if_needed()
    expect(page.locator("#leaderboard tbody tr")).to_have_count(9)
    page.locator("#parallel").scroll_into_view_if_needed()
    axis = page.locator("#parallel .axis", has_text="lr").locator(".grip")
    expect(axis).to_be_visible()
    box = axis.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 4)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.25, steps=5)
    page.mouse.up()
    expect(page.locator("#leaderboard tbody tr")).to_have_count(3)
    assert "q=lr" in page.url
    expect(page.get_by_role("searchbox")).to_have_value(re.compile("lr>="))
    other = browser.new_page()
    other.goto(page.url)
    other.locator("#parallel").scroll_into_view_if_needed()
    expect(other.locator("#parallel [data-said]")).to_contain_text("15 match the filter")
    other.close()
    page.go_back()
    expect(page.locator("#leaderboard tbody tr")).to_have_count(9)
    page.get_by_role("link", name="hidden", exact=True).click()
    expect(page).to_have_url(f"{visit.url}/studies/lr_sched?stopped=hidden")


def test_paper_shows_what_was_never_scrolled_to(visit: Visit, tmp_path: Path) -> None:
    """All parts and charts are printed at the paper's size; the screen is unchanged afterwards."""
    page = visit.page
    visit.go("/studies/lr_sched")
    # Printing cannot wait for parts that are still being computed.
    address = f"{visit.url}/studies/lr_sched"
    until(lambda: None not in page.request.get(f"{address}.json").json().values())
    for name in ("curves", "parallel"):
        until(lambda: page.request.get(f"{address}/{name}.json").status == 200)  # noqa: B023
    assert page.locator("#leaderboard tbody tr").count() == 0
    page.evaluate("""() => {
        window.counted = null;
        addEventListener("beforeprint", () => {
            const count = (selector) => document.querySelectorAll(selector).length;
            window.counted = ["#curves .printed .curve", ".parallel .printed polyline",
                "#leaderboard tbody tr", "#val_test svg a", "#influence svg"].map(count);
        });
    }""")
    page.pdf(path=tmp_path / "study.pdf")
    curves, threads, rows, points, shares = page.evaluate("window.counted")
    # Eight settings in the picture and in its legend: as many lines as can be distinguished.
    assert (curves, threads, rows, points, shares) == (16, 44, 9, 9, 3)
    expect(page.locator(".printed")).to_have_count(0)
    expect(page.locator("#curves canvas")).to_be_visible()
    visit.go("/studies/lr_sched/trials/23")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".chart .printed > svg").count() == 2


def test_the_focus_moves_with_the_row(visit: Visit) -> None:
    """A screen reader reads the row that `j` moves to, and Tab continues from there."""
    visit.go("/studies/lr_sched/trials")
    visit.page.keyboard.press("j")
    visit.page.keyboard.press("j")
    focused = "document.activeElement.dataset.row"
    assert visit.page.evaluate(focused) == "1"
    visit.page.keyboard.press("k")
    assert visit.page.evaluate(focused) == "0"


def test_many_tabs_do_not_block_each_other(visit: Visit, served: Served) -> None:
    """Nine tabs of one browser, which has six connections, are live and receive one change."""
    bench = Bench.launch(served.database, make_spec("tabs"))
    pages = [visit.page.context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(f"{visit.url}/studies/tabs")
    visit.go("/studies/tabs")
    for page in pages:
        expect(page.locator("#live")).to_have_text("live")
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    for page in (*pages, visit.page):
        expect(page.locator("#now")).to_contain_text("1 complete")


@pytest.mark.parametrize("shared", ["undefined", "class { constructor() { throw 1; } }"])
def test_a_tab_without_shared_workers_is_live(visit: Visit, served: Served, shared: str) -> None:
    """Without shared workers each tab opens its own stream."""
    visit.page.add_init_script(f"window.SharedWorker = {shared}")
    visit.go("/studies/digits")
    with served.database.transaction() as connection:
        connection.execute(
            sa.text("UPDATE tuner.study SET reason = 'said now' WHERE name = 'digits'")
        )
    expect(visit.page.locator("#now")).to_contain_text("said now")


def test_pages_fit_every_width(visit: Visit) -> None:
    """No page is wider than its window; wider content scrolls in its own frame."""
    wide = []
    for path in PAGES:
        # Opened narrow, so that charts are first drawn narrow, and high, so that all of them are.
        visit.page.set_viewport_size({"width": 360, "height": HIGH})
        visit.go(path)
        # Not by wait_for_function, which the pages' policy forbids: it builds code from text.
        until(lambda: visit.page.evaluate(DRAWN), "all charts are drawn")
        for width in (360, 400, 1024, 1920, 2560):
            visit.page.set_viewport_size({"width": width, "height": HIGH})
            # Resize observers run at the end of a frame: their effect is visible in the second one.
            if visit.page.evaluate(TOO_WIDE) > 0:
                wide.append((path, width))
    assert wide == []


def test_no_page_shuts_anybody_out(browser: Browser, served: Served) -> None:
    """axe-core accepts names, roles, contrast and order of every page, in light and in dark."""
    # The page's own policy allows only its own scripts, and axe-core is not one of them.
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    found: dict[tuple[str, str], list[object]] = {}
    for path in (*PAGES, "/studies/digits/compare?settings=1,2"):
        page.goto(served.url + path)
        page.wait_for_function("document.querySelector('#live')?.dataset.state === 'live'")
        page.add_script_tag(path=AXE / "axe.min.js")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
            violations = page.evaluate(f"axe.run().then(({{violations}}) => {SHORT})")
            if grave := [one for one in violations if one[0] in GRAVE]:
                found[path, scheme] = grave
    context.close()
    assert found == {}


def test_a_page_says_when_it_is_not_live(server: Address, browser: Browser, tmp_path: Path) -> None:
    """When the dashboard is down the page says so, and it recovers afterwards."""
    with own_database(server, "template0") as address:
        load(address)
        process, url = serve(address, tmp_path)
        page = browser.new_page()
        try:
            page.goto(f"{url}/studies/digits")
            expect(page.locator("#live")).to_have_text("live")
            # The dashboard gives way to workers on the same machine.
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, own + NICE)
            process.terminate()
            process.wait(60)
            expect(page.locator("#live")).to_contain_text("not live")
            assert "18 complete" in page.locator("#now").inner_text()
            port = url.rpartition(":")[2]
            process, again = serve(address, tmp_path, port)
            assert again == url
            expect(page.locator("#live")).to_have_text("live")
        finally:
            page.close()
            process.terminate()
            process.wait(60)


def test_a_deleted_study_stays_as_it_was(visit: Visit, served: Served) -> None:
    """If a study is deleted while its page is open, the page stays unchanged, without an error."""
    bench = Bench.launch(served.database, make_spec("doomed"))
    visit.go("/studies/doomed")
    with served.database.transaction() as connection:
        studies.delete(connection, bench.study)
    time.sleep(1.0)  # long enough for the page to request again
    expect(visit.page.get_by_role("heading", level=1)).to_have_text("Which?")
    # The browser itself logs refused requests in its console.
    visit.complaints[:] = [one for one in visit.complaints if "404" not in one]
