"""The dashboard below a path of a shared host: no address leads out of it."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for, deleting
from tests.dashboard.test_pages import written
from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import Access, Door
from tuner.dashboard.paths import checked_base
from tuner.errors import UserError
from tuner.store import accounts
from tuner.store.database import Database

BASE = "/lab/tuner"
PAGES = (
    "/",
    "/?q=schedule",
    "/studies/lr_sched",
    "/studies/lr_sched?part=comparisons",
    "/studies/lr_sched?part=val_test",
    "/studies/lr_sched?part=leaderboard",
    "/studies/lr_sched/trials?q=lr>0.001&sort=-test_acc&pick=3,4",
    "/studies/lr_sched/trials/23",
    "/studies/lr_sched/compare?trials=3,4",
    "/studies/lr_sched/compare?settings=1,2",
    "/workers",
    "/nowhere",
    "/account",
    "/key/wrong",
)
ADDRESS = re.compile(
    r'\s(?:href|src|action|hx-get|data-chart|data-parallel|data-events|data-compare)="([^"]*)"'
)


def kind(address: str) -> str:
    """Return an address without the study, trial and values that it names, but for the part."""
    path, _, query = address.partition("?")
    path = re.sub(r"/studies/[^/]+", "/studies/*", re.sub(r"\d+", "0", path))
    pairs = (pair.partition("=") for pair in query.split("&"))
    return f"{path}?{sorted((name, value if name == 'part' else '') for name, _, value in pairs)}"


@pytest.fixture(scope="module")
def below(stored: Database) -> Iterator[TestClient]:
    """Serve the stored studies below a path, to the user who started it."""
    with TestClient(app_for(Desk(stored), Access(base=BASE)), LOCAL) as client:
        yield client


def test_every_address_of_every_page_is_below_the_base(below: TestClient) -> None:
    """Links, forms, assets, parts, charts and streams stay below the base, and exist."""
    addresses: set[str] = set()
    for path in PAGES:
        page = below.get(BASE + path)
        found = ADDRESS.findall(page.text)
        assert found or "part=" in path, path
        addresses |= {one.replace("&amp;", "&").partition("#")[0] for one in found}
    assert len(addresses) > 60
    for one in addresses - {""}:
        assert one.startswith((f"{BASE}/", "?")), one
    forms = ("/actions/", "/logout", "/account", "/events")
    # One of each kind is requested, and of the studies the one with most of everything.
    kinds = {kind(one): one for one in sorted(addresses - {""}, key=lambda one: "/lr_sched" in one)}
    assert len(kinds) > 30
    for one in kinds.values():
        if one.startswith(f"{BASE}/") and not any(name in one for name in (*forms, "/dashboard")):
            answer = below.get(one)
            # Some are requested while they are being computed, or need a value after their "=".
            assert answer.status_code in (200, 202) or one.endswith("trials="), one


def test_scripts_name_no_address_from_the_root(below: TestClient) -> None:
    """Scripts find each other and the stream by relative addresses."""
    for name in ("live.js", "stream.js", "charts.js", "page.js", "parts.js", "study.js"):
        text = below.get(f"{BASE}/assets/{name}").text
        assert not re.search(r"""(?:fetch|Worker|EventSource|URL|open)\(["'`]/""", text), name


def test_data_for_programs_are_below_it_too(below: TestClient) -> None:
    """The link to a page's JSON leads to it."""
    for path in ("/", "/studies/lr_sched", "/studies/lr_sched/trials?q=lr>0.001"):
        link = re.search(r'href="([^"]*)">this page as JSON', below.get(BASE + path).text)
        assert link is not None
        answer = below.get(link[1].replace("&amp;", "&"))
        assert answer.headers["content-type"] == "application/json"
    assert written(below, f"{BASE}/studies/digits/pictures/curves.svg").status_code == 200


def test_what_is_not_below_it_is_not_answered(below: TestClient) -> None:
    """The root of the port redirects to the first page; a similar path is not served."""
    for path in ("/", BASE):
        answer = below.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (303, f"{BASE}/")
    for path in ("/studies/lr_sched", "/lab/tunerx/", "/lab", "//lab/tuner/", "/api/studies"):
        answer = below.get(path)
        assert answer.status_code == 404, path
        assert "lr_sched" not in answer.text
        assert answer.headers["X-Frame-Options"] == "DENY"
    assert below.get(f"{BASE}/", headers={"Host": "evil.example"}).status_code == 421
    assert below.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_a_header_cannot_name_another_base(below: TestClient) -> None:
    """X-Forwarded-Prefix is ignored: it would control links and forms."""
    page = below.get(f"{BASE}/studies/lr_sched", headers={"X-Forwarded-Prefix": "//evil.example"})
    assert "evil.example" not in page.text


def test_optuna_dashboard_says_why_it_is_not_there(below: TestClient) -> None:
    """optuna-dashboard is not served, with the reason: its pages need the root of the host."""
    for path in ("/dashboard", "/dashboard/studies/1", "/api/studies", "/static/bundle.js"):
        answer = below.get(BASE + path)
        assert answer.status_code == 404, path
        assert "Optuna Dashboard is not shown here" in answer.text
    assert "script-src 'self'" in below.get(f"{BASE}/dashboard").headers["Content-Security-Policy"]


def test_the_login_and_its_cookies_stay_below_it(database: Database) -> None:
    """Other programs of the host get neither the session nor a redirect of ours."""
    with database.transaction() as connection:
        accounts.add(connection, "maria", "reader", accounts.hashed("correct horse battery"))
    door = Door(database, Access(login=True, base=BASE))
    with TestClient(build(Desk(database), door, deleting(database)), LOCAL) as client:
        asked = client.get(f"{BASE}/studies/small?top=5", follow_redirects=False)
        assert asked.headers["Location"] == f"{BASE}/login?next=%2Fstudies%2Fsmall%3Ftop%3D5"
        fields = {"name": "maria", "password": "correct horse battery", "next": "/workers"}
        answer = client.post(
            f"{BASE}/login", data=fields, headers={"Origin": LOCAL}, follow_redirects=False
        )
        assert answer.headers["Location"] == f"{BASE}/workers"
        assert all(f"Path={BASE};" in one for one in answer.headers.get_list("set-cookie"))
        assert client.get(f"{BASE}/workers").status_code == 200


def test_a_base_is_a_plain_path() -> None:
    """A base that needs escaping or leads upwards is refused."""
    assert checked_base("") == checked_base("/") == ""
    assert checked_base("/tuner/") == "/tuner"
    for wrong in (
        "tuner",
        "/a b",
        "//evil.example",
        "/../x",
        "/a/../b",
        "/a?b",
        '/"',
        "/ä",
        "/a%2f",
    ):
        with pytest.raises(UserError, match="--base-path"):
            checked_base(wrong)
