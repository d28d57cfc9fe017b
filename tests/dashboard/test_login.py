"""Login, logout, links and keys; what ends a session; what no answer reveals."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Literal

import anyio.to_thread
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from click.testing import CliRunner, Result
from httpx2 import Response
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for, deleting
from tests.store.specs import Bench
from tuner.cli.accounts import user
from tuner.dashboard.app import build
from tuner.dashboard.callers import Caller
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import Access, Door, networks
from tuner.dashboard.guard import Guard
from tuner.dashboard.pages.login import here
from tuner.dashboard.server import Site, _first_link
from tuner.errors import UserError
from tuner.settings import Settings
from tuner.store import accounts
from tuner.store import tables as t
from tuner.store.accounts import Role
from tuner.store.database import Database

PASSWORD = "correct horse battery"
SITE = "https://tuner.example.org"
HERE = {"Origin": LOCAL}
PROXY = Access(
    login=True,
    hosts=frozenset({"tuner.example.org"}),
    proxies=networks(["10.0.0.0/8"]),
    https_only=True,
)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash with little memory: still argon2, and a thousand times faster."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "hasher", quick)
    monkeypatch.setattr(accounts, "NOBODYS", quick.hash("nobody's"))


def add(database: Database, name: str, role: Role = "reader") -> None:
    """Add an account with the usual password."""
    with database.transaction() as connection:
        accounts.add(connection, name, role, accounts.hashed(PASSWORD))


@pytest.fixture
def app(bench: Bench) -> Iterator[TestClient]:
    """Serve a study to users who log in."""
    add(bench.database, "maria")
    door = Door(bench.database, Access(login=True))
    with TestClient(build(Desk(bench.database), door, deleting(bench.database)), LOCAL) as client:
        yield client


def log_in(app: TestClient, name: str = "maria", password: str = PASSWORD, **more: str) -> Response:
    """Send the login form."""
    fields = {"name": name, "password": password, **more}
    return app.post("/login", data=fields, headers=HERE, follow_redirects=False)


def csrf(app: TestClient) -> str:
    """Return the hidden fields of a page's forms."""
    found = re.search(r'name="csrf" value="(\w+)"', app.get("/").text)
    assert found is not None
    return found[1]


def is_in(app: TestClient) -> bool:
    """Return whether the studies are shown."""
    return app.get("/studies.json").status_code == 200


def test_the_login_leads_to_the_page_that_was_asked_for(app: TestClient) -> None:
    """A link to a page shows the login first, and then the page."""
    asked = app.get("/studies/small/trials?q=lr>0.001", follow_redirects=False)
    assert asked.status_code == 303
    form = app.get(asked.headers["Location"])
    assert "small" not in form.text.replace("/studies/small", "")
    wanted = re.search(r'name="next" value="([^"]*)"', form.text)
    assert wanted is not None
    answer = log_in(app, next=wanted[1].replace("&gt;", ">"))
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/studies/small/trials?q=lr")
    assert is_in(app)


def test_a_wrong_name_and_a_wrong_password_are_told_alike(app: TestClient) -> None:
    """The answer does not reveal whether the user exists, and gives no access."""
    one, other = log_in(app, password="wrong horse"), log_in(app, name="nobody")
    assert one.status_code == other.status_code == 403
    assert one.text.replace("maria", "") == other.text.replace("nobody", "")
    assert not is_in(app)


def test_an_unknown_name_costs_as_much_as_a_wrong_password(
    app: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """argon2 runs once for an unknown name, as for a wrong password."""
    runs: list[str] = []

    class Counted(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            runs.append(str(password))
            return super().verify(hash, password)

    monkeypatch.setattr(accounts, "hasher", Counted(time_cost=1, memory_cost=8, parallelism=1))
    for name in ("maria", "nobody", "not a name", ""):
        log_in(app, name=name, password="guess guess")
    assert runs == ["guess guess"] * 4


def test_an_account_without_a_password_lets_nobody_in(app: TestClient, bench: Bench) -> None:
    """An account without a password refuses every input, empty or the placeholder."""
    with bench.database.transaction() as connection:
        accounts.add(connection, "new", "operator", None)
    for password in ("", "nobody's", PASSWORD):
        assert log_in(app, "new", password).status_code == 403


def test_guesses_are_slowed_down(app: TestClient) -> None:
    """After ten guesses even the right password has to wait; the answer says how long."""
    codes = [log_in(app, password=f"guess {n}").status_code for n in range(11)]
    assert codes == [403] * 10 + [429]
    late = log_in(app)
    assert late.status_code == 429
    assert 0 < int(late.headers["Retry-After"]) <= 30


def test_what_can_be_nobodys_name_is_not_kept(app: TestClient) -> None:
    """Names too long to exist share one bucket, so that they fill no memory."""
    for n in range(3):
        assert log_in(app, f"{n}{'x' * 900_000}").status_code == 403
    guard = app.app
    assert isinstance(guard, Guard)
    assert isinstance(guard._app, Starlette)
    kept = guard._app.state.attempts._full
    assert sorted(bucket.kind for bucket in kept) == ["address", "name"]
    assert all(len(bucket.whose) < 100 for bucket in kept)


def test_guesses_do_not_lock_out_a_browser_that_is_known(app: TestClient) -> None:
    """A browser that logged in before can log in again during an attack."""
    log_in(app)
    app.post("/logout", data={"csrf": csrf(app)}, headers=HERE)
    attacker = TestClient(app.app, LOCAL)
    while log_in(attacker, password="guess guess").status_code != 429:
        pass
    assert log_in(app).status_code == 303


def test_the_cookie_is_the_browsers_alone(app: TestClient, bench: Bench) -> None:
    """The cookie is hidden from scripts and other sites; the database has only its hash."""
    set_cookies = log_in(app).headers.get_list("set-cookie")
    assert len(set_cookies) == 2
    for one in set_cookies:
        assert "HttpOnly" in one
        assert "SameSite=lax" in one
        assert "Secure" not in one  # plain http, on this machine
    secret = app.cookies["tuner-session"]
    assert len(secret) >= 43  # 256 bits
    assert secret not in str(bench.contents())
    with bench.database.transaction() as connection:
        rows = connection.execute(sa.select(t.session.c.key)).scalars().all()
    assert rows == [accounts.key_of(secret)]


def test_by_https_the_cookie_belongs_to_this_host_alone(bench: Bench) -> None:
    """Over https the cookie is Secure and has the prefix __Host-, also behind a proxy."""
    add(bench.database, "maria")
    app = build(Desk(bench.database), Door(bench.database, PROXY), deleting(bench.database))
    with TestClient(app, SITE, client=("10.1.2.3", 4711)) as client:
        forwarded = {"Origin": SITE, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        fields = {"name": "maria", "password": PASSWORD}
        answer = client.post("/login", data=fields, headers=forwarded, follow_redirects=False)
        assert answer.status_code == 303
        for one in answer.headers.get_list("set-cookie"):
            assert one.startswith("__Host-tuner-")
            assert "Secure" in one
            assert "Path=/" in one
            assert "Domain" not in one


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:5555", "192.0.2.1"),
        ("192.0.2.9, 192.0.2.1:5555, 10.0.0.7:81", "192.0.2.1"),
        ("[2001:db8::1]:5555", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.9:1", "10.0.0.9"),
    ],
)
def test_a_clients_port_is_no_part_of_its_address(
    database: Database, hops: str, client: str
) -> None:
    """Connections of one address share its tries, whatever their port."""
    headers = [(b"x-forwarded-for", hops.encode())]
    door = Door(database, PROXY)
    assert door.way({"client": ("10.1.2.3", 4711), "headers": headers}).address == client
    door.close()


BY_ITSELF = (
    {"Sec-Fetch-Mode": "cors", "Accept": "text/html", "HX-Request": "true"},
    {"Sec-Fetch-Mode": "same-origin"},
    {"Accept": "text/html", "HX-Request": "true"},
    {"Accept": "*/*"},
    {"Accept": "text/event-stream"},
)
"""Requests that a page sends by itself: browsers over https and http, htmx, fetch."""
BY_A_PERSON = ({"Sec-Fetch-Mode": "navigate"}, {"Accept": "text/html,*/*;q=0.8"})


def test_only_a_person_who_goes_to_a_page_keeps_a_session(app: TestClient, bench: Bench) -> None:
    """An open tab's own requests for parts and curves do not keep a session alive."""
    log_in(app)

    def idle() -> bool:
        """Return whether the session has been idle for an hour."""
        with bench.database.transaction() as connection:
            now = sa.func.clock_timestamp()
            return bool(connection.scalar(sa.select(t.session.c.seen < now - timedelta(hours=1))))

    for headers in BY_A_PERSON:
        with bench.database.transaction() as connection:
            past = sa.func.clock_timestamp() - timedelta(hours=2)
            connection.execute(sa.update(t.session).values(seen=past))
        for path in ("/studies/small?part=now", "/studies/small/curves.json", "/studies/small"):
            for by_itself in BY_ITSELF:
                assert app.get(path, headers=by_itself).status_code in (200, 202), path
        assert idle()
        assert app.get("/studies/small", headers=headers).status_code == 200
        assert not idle()


def change(app: TestClient, old: str, new: str, again: str = "", **more: str) -> Response:
    """Post the form that changes a password."""
    fields = {"csrf": csrf(app), "old": old, "password": new, "again": again or new, **more}
    return app.post("/account", data=fields, headers=HERE, follow_redirects=False)


def test_ones_own_password(app: TestClient) -> None:
    """Changing a password needs the old one; this browser stays logged in, all others do not."""
    log_in(app)
    other = TestClient(app.app, LOCAL)
    log_in(other)
    assert 'href="/account"' in app.get("/").text
    assert "permission to read" in app.get("/account").text
    answer = change(app, PASSWORD, "a better password")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/account?done=1")
    assert "has been changed" in app.get("/account?done=1").text
    assert is_in(app)
    assert not is_in(other)
    assert log_in(other).status_code == 403
    assert log_in(other, password="a better password").status_code == 303


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"old": "wrong horse"}, 403, "old password is wrong"),
        ({"new": "too short"}, 400, "10 to"),
        ({"again": "another one at last"}, 400, "differ"),
        ({"csrf": "0" * 64}, 403, "had expired"),
    ],
)
def test_a_password_that_is_not_changed(
    app: TestClient, fields: dict[str, str], code: int, told: str
) -> None:
    """If a password is not changed the page says why; password and session stay valid."""
    log_in(app)
    answer = change(app, **{"old": PASSWORD, "new": "a better password", **fields})
    assert answer.status_code == code
    assert told in answer.text
    assert is_in(app)
    assert log_in(TestClient(app.app, LOCAL)).status_code == 303


def test_an_open_session_is_no_way_to_guess_its_password(app: TestClient) -> None:
    """In an open session even the right old password has to wait after ten guesses."""
    log_in(app)
    codes = [change(app, f"guess number {n}", "a better password").status_code for n in range(11)]
    assert codes == [403] * 10 + [429]
    assert change(app, PASSWORD, "a better password").status_code == 429


def test_of_two_changes_at_once_one_is_made(bench: Bench) -> None:
    """Of two concurrent changes with the old password only the first is made."""
    add(bench.database, "maria")
    with bench.database.transaction() as connection:
        seen = accounts.find(connection, "maria")
        first = accounts.change_password(connection, seen, accounts.hashed("the first one"))
        assert first is not None
        assert accounts.change_password(connection, seen, accounts.hashed("the second")) is None
        assert accounts.session_account(connection, first[1]) == first[0]


def test_whoever_has_no_password_changes_none(app: TestClient, bench: Bench) -> None:
    """A token and the user who started the dashboard have no password to change."""
    with bench.database.transaction() as connection:
        token = accounts.add_token(connection, "reads", "operator", None)
    script = TestClient(app.app, LOCAL, headers={"Authorization": f"Bearer {token}"})
    assert script.get("/account").status_code == 403
    assert script.post("/account", data={"password": "a better password"}).status_code == 403
    with TestClient(app_for(Desk(bench.database)), LOCAL) as owner:
        assert "without a login" in owner.get("/account").text


def test_a_role_is_changed_by_a_command(app: TestClient, settings: Settings) -> None:
    """A changed role applies from the next request on, in open sessions too."""

    def give(name: str, role: str) -> Result:
        # The names of --help as for `tuner`: a command remembers those of its first use.
        names = ["-h", "--help"]
        return CliRunner().invoke(user, ["role", name, role], obj=settings, help_option_names=names)

    log_in(app)
    for role, acts in (("operator", True), ("reader", False)):
        assert (
            give("Maria", role).output
            == f"maria is {'an operator' if acts else 'a reader'} of the dashboard.\n"
        )
        assert ("actions/archive" in app.get("/studies/small").text) == acts
    assert "already" in give("maria", "reader").output
    assert "maria" in str(give("mria", "reader").exception)


def test_the_first_user_is_an_operator(bench: Bench) -> None:
    """The first user is an operator, even if added as a reader without a password."""
    with bench.database.transaction() as connection:
        accounts.add(connection, "maria", "reader", None)
    secret = _first_link(bench.database, Site(host="0.0.0.0", first_user="maria"))
    assert secret is not None
    with bench.database.transaction() as connection:
        account = accounts.link_account(connection, secret)
    assert account is not None
    assert account.role == "operator"


def test_logging_out_ends_the_session_at_the_server(app: TestClient) -> None:
    """A copy of the cookie is invalid after logging out."""
    log_in(app)
    secret = app.cookies["tuner-session"]
    app.post("/logout", data={"csrf": csrf(app)}, headers=HERE)
    thief = TestClient(app.app, LOCAL, cookies={"tuner-session": secret})
    assert not is_in(app)
    assert not is_in(thief)


def test_logging_out_needs_the_forms_key(app: TestClient) -> None:
    """A page of another site or session cannot log a user out."""
    log_in(app)
    other = TestClient(app.app, LOCAL)
    log_in(other)
    for key in ("", "0" * 64, csrf(other)):
        assert app.post("/logout", data={"csrf": key}, headers=HERE).status_code == 403
    assert is_in(app)


@pytest.mark.parametrize("what", ["removed", "password", "idle", "old"])
def test_what_ends_all_sessions_of_a_person(app: TestClient, bench: Bench, what: str) -> None:
    """All sessions end if the account is removed, the password changed, or they are idle or old."""
    log_in(app)
    other = TestClient(app.app, LOCAL)
    log_in(other)
    with bench.database.transaction() as connection:
        account = accounts.find(connection, "maria")
        if what == "removed":
            accounts.remove(connection, account)
        elif what == "password":
            accounts.set_password(connection, account, accounts.hashed("another password"))
        else:
            column = t.session.c.seen if what == "idle" else t.session.c.expires
            past = accounts.IDLE if what == "idle" else timedelta(0)
            moment = sa.func.clock_timestamp() - past - timedelta(seconds=1)
            connection.execute(sa.update(t.session).values({column: moment}))
    assert not is_in(app)
    assert not is_in(other)


def test_a_login_that_meets_a_new_password_begins_no_session(bench: Bench) -> None:
    """If the password is changed between check and start, no session begins."""
    add(bench.database, "maria")
    with bench.database.transaction() as connection:
        checked = accounts.find(connection, "maria")
        accounts.set_password(connection, checked, accounts.hashed("another password"))
        assert accounts.begin_session(connection, checked) is None


def test_a_link_lets_its_owner_choose_a_password_once(app: TestClient, bench: Bench) -> None:
    """Opening a link uses nothing up; a second use and an expired link are refused."""
    with bench.database.transaction() as connection:
        account = accounts.add(connection, "new", "operator", None)
        secret = accounts.add_link(connection, account)
    path = f"/link/{secret}"
    for _ in range(2):
        assert "Welcome, new" in app.get(path).text
    chosen = {"password": "a new password", "again": "a new password"}
    typo = app.post(path, data={**chosen, "again": "a newt password"}, headers=HERE)
    assert "differ" in typo.text
    short = app.post(path, data={"password": "short", "again": "short"}, headers=HERE)
    assert "10 to" in short.text
    answer = app.post(path, data=chosen, headers=HERE, follow_redirects=False)
    assert answer.status_code == 303
    assert is_in(app)
    stranger = TestClient(app.app, LOCAL)
    assert stranger.get(path).status_code == 404
    assert stranger.post(path, data=chosen, headers=HERE).status_code == 404
    assert log_in(stranger, "new", "a new password").status_code == 303


def test_a_link_expires(app: TestClient, bench: Bench) -> None:
    """A link expires after a day."""
    with bench.database.transaction() as connection:
        secret = accounts.add_link(connection, accounts.find(connection, "maria"))
        past = sa.func.clock_timestamp() - timedelta(seconds=1)
        connection.execute(sa.update(t.link).values(expires=past))
    assert app.get(f"/link/{secret}").status_code == 404


def test_the_printed_key_lets_the_owner_in(bench: Bench) -> None:
    """The printed key works if the connection does not identify the owner and login is optional."""
    door = Door(bench.database, Access())
    with TestClient(build(Desk(bench.database), door, deleting(bench.database)), LOCAL) as client:
        assert not is_in(client)
        assert client.get("/key/" + "A" * 43).status_code == 404
        assert client.get(f"/key/{door.link}", follow_redirects=False).status_code == 303
        assert is_in(client)
    strict = Door(bench.database, Access(login=True))
    with TestClient(build(Desk(bench.database), strict, deleting(bench.database)), LOCAL) as client:
        assert client.get(f"/key/{strict.link}").status_code == 404


def test_another_user_of_this_machine_is_told_whose_it_is(bench: Bench) -> None:
    """Before there are users, another user of this machine gets a page with status 403."""
    door = Door(bench.database, Access())
    with TestClient(build(Desk(bench.database), door, deleting(bench.database)), LOCAL) as client:
        answer = client.get("/")
        assert answer.status_code == 403
        assert "belongs to" in answer.text
        assert "tuner dashboard user add" in answer.text
        add(bench.database, "maria")
        assert client.get("/").status_code == 200
        assert log_in(client).status_code == 303


def test_a_proxy_that_runs_as_the_owner_is_not_the_owner(bench: Bench) -> None:
    """Requests through a proxy, or that claim to be, do not count as the owner's."""
    with TestClient(app_for(Desk(bench.database)), LOCAL) as client:
        assert is_in(client)
        for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"):
            assert client.get("/studies.json", headers={name: "192.0.2.1"}).status_code == 401


def test_the_door_opens_while_pages_hold_all_threads_and_connections(bench: Bench) -> None:
    """A caller is identified even while slow pages hold all threads and connections."""
    with bench.database.transaction() as connection:
        token = accounts.add_token(connection, "reads", "reader", None)
    headers = [(b"authorization", f"Bearer {token}".encode())]
    door = Door(bench.database, Access(login=True))

    async def scene() -> Caller | None:
        threads = anyio.to_thread.current_default_thread_limiter()
        for number in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(number)
        async with asyncio.timeout(60):
            return await door.caller({"type": "http", "headers": headers})

    with ExitStack() as pages:
        for _ in range(5):
            pages.enter_context(bench.database.engine.connect())
        caller = asyncio.run(scene())
    assert caller is not None
    assert caller.who == "token reads"
    door.close()


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "/\tevil",
    "/studies\r\nSet-Cookie: a=b",
    "javascript:alert(1)",
    "evil",
    "",
    "/a\\b",
)


def test_the_login_leads_nowhere_else(app: TestClient) -> None:
    """An address of another site, or one that browsers take for one, becomes the first page."""
    log_in(app)
    for elsewhere in ELSEWHERE:
        assert here(elsewhere) == "/"
        answer = log_in(app, next=elsewhere)
        assert answer.headers["Location"] == "/", elsewhere
        again = app.get("/login", params={"next": elsewhere}, follow_redirects=False)
        assert again.headers["Location"] == "/", elsewhere
        assert "Set-Cookie: a" not in str(answer.headers)


def test_no_secret_is_logged(app: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Passwords, cookies and links are never logged, whether a request succeeds or fails."""
    caplog.set_level(logging.DEBUG)
    log_in(app, password="a wrong secret")
    log_in(app)
    app.get("/link/nosuchlinkatall")
    is_in(app)
    secrets = (PASSWORD, "a wrong secret", app.cookies["tuner-session"], "nosuchlinkatall")
    ours = [record.getMessage() for record in caplog.records if record.name != "httpx2"]
    assert not [line for line in ours for secret in secrets if secret in line]


def test_odd_forms_are_refused_in_a_sentence(app: TestClient) -> None:
    """Invalid UTF-8, a NUL and endless fields are refused in a sentence."""
    for body in (b"name=%ff\xff", b"name=a%00b", b"&".join(b"a=%d" % n for n in range(99))):
        answer = app.post("/login", content=body, headers=HERE)
        assert answer.status_code == 400, body
    assert log_in(app, name="maria\ud800".encode("utf-8", "replace").decode()).status_code == 403


def test_too_large_a_form_is_refused(app: TestClient) -> None:
    """Too large a form is refused before it has been read to its end."""
    answer = app.post("/login", content=b"a" * ((1 << 20) + 1), headers=HERE)
    assert answer.status_code == 413


def test_names_of_users_and_tokens_are_plain(database: Database) -> None:
    """A name that would be odd in a table, a path or a log is refused."""
    with database.transaction() as connection:
        for name in ("", "a b", "a/b", "<b>", "a\0b", "-a", "a" * 64, "ä"):
            with pytest.raises(UserError):
                accounts.add(connection, name, "reader", None)
            with pytest.raises(UserError):
                accounts.add_token(connection, name, "reader", None)
        accounts.add(connection, "Maria", "reader", None)
        with pytest.raises(UserError, match="already"):
            accounts.add(connection, "maria", "operator", None)


def test_the_same_password_by_another_keyboard(database: Database) -> None:
    """é as one character and as two is the same password."""
    with database.transaction() as connection:
        account = accounts.add(connection, "maria", "reader", accounts.hashed("caf\u00e9 au lait"))
        assert accounts.matches(account, "cafe\u0301 au lait")
        assert not accounts.matches(account, "cafe au lait")
