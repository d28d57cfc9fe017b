"""Every route, tried by every kind of caller: nothing is shown or changed by accident.

Routes are enumerated from the two apps themselves, so that a new one fails here until its access is
declared.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
from optuna_dashboard import wsgi
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, deleting
from tests.store.specs import Bench
from tuner.dashboard.app import _routes, build
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import Access, Door
from tuner.dashboard.optuna import WRITES, may_be_written
from tuner.dashboard.pages.actions import ACTIONS
from tuner.store import accounts

HERE = {"Origin": LOCAL}
FOR_ALL = {"/login", "/link/{secret}", "/key/{secret}", "/assets/{name:path}"}
"""Routes of ours without a login."""
FILLED = {
    "name": "small",
    "name:path": "page.js",
    "number:number": "0",
    "number": "0",
    "kind": "curves",
    "split": "val",
    "place:number": "0",
    "ending": "csv",
    "secret": "x" * 43,
    "action": "tag",
}


@dataclass
class Callers:
    """The dashboard, and one browser or script for each kind of caller."""

    bench: Bench
    door: Door
    clients: dict[str, TestClient]


UNKNOWN = ("nobody", "expired", "altered", "logged out", "wrong token")
KNOWN = ("reader", "operator", "reading token", "acting token")


@pytest.fixture
def callers(bench: Bench) -> Iterator[Callers]:
    """Serve a study; log in a reader and an operator, and create tokens."""
    database = bench.database
    door = Door(database, Access(login=True, writes=True))
    app = build(Desk(database), door, deleting(database))
    with database.transaction() as connection:
        reader = accounts.add(connection, "reader", "reader", "x")
        operator = accounts.add(connection, "operator", "operator", "x")
        cookies = {
            "nobody": "",
            "reader": accounts.begin_session(connection, reader),
            "operator": accounts.begin_session(connection, operator),
            "expired": accounts.begin_session(connection, operator),
            "logged out": accounts.begin_session(connection, operator),
        }
        assert cookies["operator"]
        cookies["altered"] = cookies["operator"][:-2] + "xx"
        accounts.end_session(connection, cookies["logged out"] or "")
        connection.exec_driver_sql(
            "UPDATE tuner.session SET expires = clock_timestamp() WHERE key = %s",
            (accounts.key_of(cookies["expired"] or ""),),
        )
        tokens = {
            "reading token": accounts.add_token(connection, "reads", "reader", 1),
            "acting token": accounts.add_token(connection, "acts", "operator", None),
            "wrong token": "tuner_" + "x" * 43,
        }
    client = partial(TestClient, app, LOCAL, raise_server_exceptions=False)
    with client() as first:
        clients = {
            name: client(cookies={"tuner-session": cookie or ""})
            for name, cookie in cookies.items()
        }
        clients |= {
            name: client(headers={"Authorization": f"Bearer {token}"})
            for name, token in tokens.items()
        }
        # They share the state of the started app.
        assert first.get("/login").status_code == 200
        yield Callers(bench, door, clients)


def our_routes(bench: Bench) -> list[tuple[str, str]]:
    """Return the method and path of every route of ours."""
    routes = []
    for route in _routes(Desk(bench.database)):
        if isinstance(route, Route):
            routes += [(method, route.path) for method in sorted(route.methods or ())]
        else:
            assert isinstance(route, Mount)
            assert route.path == ""
    return routes


def stored(bench: Bench) -> dict[str, list[str]]:
    """Return all stored rows, except when tokens were last used."""
    return {table: rows for table, rows in bench.contents().items() if table != "tuner.token"}


def filled(path: str) -> str:
    """Return an address of a route, its parameters filled in."""
    return re.sub(r"{([^}]+)}", lambda found: FILLED[found[1]], path)


def optunas_writes(bench: Bench) -> set[tuple[str, str]]:
    """Return the routes of the installed optuna-dashboard that can write."""
    app = wsgi(bench.binding.storage)
    return {(route.method, route.rule) for route in app.routes if route.method != "GET"}


def optunas_path(rule: str, bench: Bench) -> str:
    """Return an address of such a route, for the stored study and its trial."""
    rule = rule.replace("<study_id:int>", str(bench.study.study_id)).replace("<trial_id:int>", "1")
    return re.sub(r"<[^>]+>+", "abc", rule)


def test_every_route_of_ours_asks_who_it_is(callers: Callers) -> None:
    """Unknown callers see nothing of a study, known ones read, and only operators write."""
    tried = our_routes(callers.bench)
    assert len(tried) > 30
    for method, path in tried:
        if path in FOR_ALL:
            continue
        for name in UNKNOWN:
            answer = callers.clients[name].request(
                method, filled(path), headers=HERE, follow_redirects=False
            )
            assert answer.status_code in (303, 401), (name, method, path)
            assert "small" not in answer.text, (name, method, path)
            if answer.status_code == 303:
                assert answer.headers["Location"].startswith("/login?next=%2F"), path
    for path in {path for method, path in tried if method == "GET"} - FOR_ALL - {"/events"}:
        for name in KNOWN:
            answer = callers.clients[name].get(filled(path), follow_redirects=False)
            # A study of one trial on two images does not allow everything; and a token has no
            # password.
            refused = (403,) if path == "/account" and "token" in name else ()
            assert answer.status_code in (200, 400, 404, 500, 503, *refused), (name, path)


def test_only_operators_post_to_our_routes(callers: Callers) -> None:
    """Every POST of ours but the login refuses readers, and forms without their CSRF key."""
    before = stored(callers.bench)
    posts = {path for method, path in our_routes(callers.bench) if method == "POST"}
    own = {"/login", "/logout", "/account", "/link/{secret}"}
    assert posts == {*own, "/studies/{name}/actions/{action}"}
    for action in ACTIONS:
        address = f"/studies/small/actions/{action}"
        for name in (*UNKNOWN, "reader", "reading token"):
            answer = callers.clients[name].post(
                address, headers=HERE, data={"csrf": "0" * 64, "tags": "a"}
            )
            assert answer.status_code in (401, 403), (name, action)
        for key in ({}, {"csrf": ""}, {"csrf": "0" * 64}):
            answer = callers.clients["operator"].post(address, headers=HERE, data=key)
            assert answer.status_code == 403, action
    assert stored(callers.bench) == before


def test_every_write_of_optuna_dashboard_has_been_judged(callers: Callers) -> None:
    """Every route that the installed version can write to is in our list, or closed to all."""
    installed = optunas_writes(callers.bench)
    assert set(WRITES) <= installed, "a route that we open does not exist any more"
    unjudged = {
        route
        for route in installed - set(WRITES)
        if not route[1].startswith("/api/llm/") and route[1] != "/incompatible-rdb-schema"
    }
    assert not unjudged
    for method, rule in installed:
        opened = may_be_written(method, optunas_path(rule, callers.bench))
        assert opened == WRITES.get((method, rule), False), (method, rule)


def test_only_operators_write_through_optuna_dashboard(callers: Callers) -> None:
    """Only the opened routes write, and only for operators; otherwise the database is unchanged."""
    before = stored(callers.bench)
    for method, rule in optunas_writes(callers.bench):
        path = optunas_path(rule, callers.bench)
        for name in (*UNKNOWN, "reader", "reading token"):
            answer = callers.clients[name].request(method, path, headers=HERE, content=b"{}")
            assert answer.status_code in (401, 403, 405), (name, method, path)
        if not WRITES.get((method, rule)):
            answer = callers.clients["operator"].request(method, path, headers=HERE, content=b"{}")
            assert answer.status_code == 405, (method, path)
    assert stored(callers.bench) == before
    note = f"/api/studies/{callers.bench.study.study_id}/note"
    body = {"body": "seen", "version": 1}
    for name in ("operator", "acting token"):
        headers = HERE if name == "operator" else {}
        answer = callers.clients[name].put(note, json=body, headers=headers)
        assert answer.status_code == 204, answer.text
        body["version"] = 2
    assert "seen" in str(callers.clients["reader"].get(f"/api/{note[5:-5]}").text)


def test_nobody_writes_through_optuna_dashboard_unless_it_was_allowed(bench: Bench) -> None:
    """Without --allow-writes not even an operator can write."""
    with bench.database.transaction() as connection:
        token = accounts.add_token(connection, "acts", "operator", None)
    door = Door(bench.database, Access(login=True))
    app = build(Desk(bench.database), door, deleting(bench.database))
    with TestClient(app, LOCAL, headers={"Authorization": f"Bearer {token}"}) as client:
        before = bench.contents()
        for method, rule in optunas_writes(bench):
            answer = client.request(method, optunas_path(rule, bench), content=b"{}")
            assert answer.status_code == 405
        assert bench.contents() == before


ELSEWHERE: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "https://127.0.0.1:8080"},
    {"Origin": LOCAL, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": LOCAL, "Host": "evil.example"},
)


def test_a_page_of_another_site_writes_nothing_with_an_operators_cookie(callers: Callers) -> None:
    """A wrong form key, Origin, Sec-Fetch-Site or Host is each enough to refuse."""
    key = _form_key(callers)
    before = stored(callers.bench)
    for headers in ELSEWHERE:
        for path in ("/studies/small/actions/tag", "/logout", "/login"):
            answer = callers.clients["operator"].post(
                path, data={"csrf": key, "tags": "stolen"}, headers=headers
            )
            assert answer.status_code in (403, 421), (headers, path)
        note = f"/api/studies/{callers.bench.study.study_id}/note"
        answer = callers.clients["operator"].put(note, json={}, headers=headers)
        assert answer.status_code in (403, 421), headers
    assert stored(callers.bench) == before


def test_an_operator_acts_by_the_form_and_a_script_by_its_token(callers: Callers) -> None:
    """An operator's form and a script's token use the same route, and the history has the name."""
    path = "/studies/small/actions/tag"
    fields = {"csrf": _form_key(callers), "tags": "paper"}
    answer = callers.clients["operator"].post(
        path, data=fields, headers=HERE, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/studies/small?done=tag")
    callers.clients["acting token"].post(path, data={"tags": "paper figure-2"})
    with callers.bench.database.transaction() as connection:
        rows = connection.exec_driver_sql(
            "SELECT who, text FROM tuner.event WHERE kind = 'tagged' ORDER BY event_id"
        ).all()
    assert [tuple(row) for row in rows] == [
        ("operator", "paper"),
        ("token acts", "figure-2, paper"),
    ]


def test_a_foreign_host_is_refused_before_anybody_is_asked_who_it_is(callers: Callers) -> None:
    """A foreign Host is refused on every route, before the caller is identified."""
    for method, path in our_routes(callers.bench):
        answer = callers.clients["operator"].request(
            method, filled(path), headers={"Host": "evil.example"}
        )
        assert answer.status_code == 421, (method, path)


def test_what_is_public_is_no_prefix(callers: Callers) -> None:
    """Only a link itself is public; paths below it belong to optuna-dashboard and need a login."""
    for method, path in (("POST", "/link/a/b"), ("GET", "/link/a/b"), ("GET", "/key/a/b")):
        for name in UNKNOWN:
            answer = callers.clients[name].request(
                method, path, headers=HERE, follow_redirects=False
            )
            assert answer.status_code in (303, 401, 405), (name, method, path)
            assert "/login" in answer.headers.get("Location", "/login"), path
    assert callers.clients["operator"].post("/studies/a/b", headers=HERE).status_code == 405


TRAVERSALS = (
    "/assets/../guard.py",
    "/assets/%2e%2e/guard.py",
    "/assets/..%2f..%2fserver.py",
    "/assets/%2fetc/passwd",
    "//etc/passwd",
    "/static/../../../../etc/passwd",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/studies/..%2f..%2fetc%2fpasswd",
    "/studies/small/pictures/..%2f..%2fx.svg",
    "/link/..%2f..%2fstudies.json",
)


@pytest.mark.parametrize("name", ["nobody", "operator"])
def test_no_path_leads_out(callers: Callers, name: str) -> None:
    """No file of the disk is served, and no public prefix leads to a page that is not public."""
    for path in TRAVERSALS:
        answer = callers.clients[name].get(path)
        assert "root:" not in answer.text, path
        assert "import " not in answer.text, path
        assert '"studies"' not in answer.text, path


def test_a_name_cannot_write_headers(callers: Callers) -> None:
    """Line ends in a path or a query come back encoded, or not at all."""
    for path in ("/studies/a%0d%0aX-Bad:1", "/?q=%0d%0aX-Bad:1", "/studies/small?done=%0d%0aX-Bad"):
        for name in ("nobody", "operator"):
            answer = callers.clients[name].get(path, follow_redirects=False)
            assert "x-bad" not in answer.headers, path
            assert "\n" not in "".join(answer.headers.values()), path


def _form_key(callers: Callers) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', callers.clients["operator"].get("/").text)
    assert found is not None
    return found[1]
