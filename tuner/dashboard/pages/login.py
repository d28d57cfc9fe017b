"""Logging in and out, changing a password, and one-time links to choose one."""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from tuner.dashboard.attempts import Attempts, buckets_of, device_key
from tuner.dashboard.callers import Caller, same
from tuner.dashboard.door import Door
from tuner.dashboard.paths import below
from tuner.dashboard.rendering import environment
from tuner.errors import UserError
from tuner.settings import person
from tuner.store import accounts
from tuner.store.accounts import Account
from tuner.store.database import Database

HERE = re.compile(r"/(?![/\\])[^\\\x00-\x1f\x7f]*")
"""Addresses of this site: browsers treat // and /\\ as the beginning of another site's address."""
WRONG = "The name or the password is wrong."
HASHERS = 2
"""The most passwords hashed at a time: each takes a core and 64 MB for a tenth of a second."""
WAITING_MOST = 20

_hashing = ThreadPoolExecutor(HASHERS, thread_name_prefix="password")
_waiting = 0


@dataclass(frozen=True)
class Field:
    """One field of a form."""

    name: str
    label: str
    type: str
    autocomplete: str
    value: str = ""
    shortest: int = 0


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; the last one wins among equal names."""
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise UserError("This form is not valid text.") from None
    try:
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise UserError("This form has too many fields.") from None
    if any("\0" in value for _, value in fields):
        raise UserError("There is a NUL in this form.")
    return dict(fields)


async def login(request: Request) -> Response:
    """Show the login form."""
    door: Door = request.app.state.door
    wanted = here(request.query_params.get("next", ""))
    if request.state.caller is not None:
        return RedirectResponse(below(wanted), 303)
    if not await door.in_thread(_anybody, door.database):
        return _nobody_can(door)
    return _login_form(door, wanted)


async def log_in(request: Request) -> Response:
    """Check name and password, with a limit on the rate of attempts."""
    door: Door = request.app.state.door
    attempts: Attempts = request.app.state.attempts
    fields = await form(request)
    wanted = here(fields.get("next", ""))
    name = fields.get("name", "").strip().lower()
    account = await door.in_thread(_account, door.database, name)
    device = door.cookie(request.scope, "device")
    known = account is not None and same(device, device_key(account))
    # All invalid names share one bucket: names of buckets are kept, and these may be long.
    whose = name if accounts.NAME.fullmatch(name) else ""
    buckets = buckets_of(whose, door.way(request.scope).address, device=known)
    if seconds := attempts.take(buckets):
        text = f"Too many attempts. Try again in {_duration(seconds)}."
        refusal = _login_form(door, wanted, name=name, wrong=text, code=429)
        refusal.headers["Retry-After"] = str(int(seconds) + 1)
        return refusal
    right = await _hash(accounts.matches, account, fields.get("password", ""))
    if right is None:
        attempts.give_back(buckets)
        text = "Too many people are logging in at the moment. Try again in a few seconds."
        return _login_form(door, wanted, name=name, wrong=text, code=503)
    secret = await door.in_thread(_begin, door.database, account) if right and account else None
    if account is None or secret is None:
        return _login_form(door, wanted, name=name, wrong=WRONG, code=403)
    attempts.give_back(buckets)
    answer = RedirectResponse(below(wanted), 303)
    door.let_in(request.scope, answer, secret, account)
    return answer


async def log_out(request: Request) -> Response:
    """End a session."""
    door: Door = request.app.state.door
    caller: Caller = request.state.caller
    if not same((await form(request)).get("csrf", ""), caller.form_key):
        return _page("Not logged out", ["This page has expired. Go back, reload it and try again."],
                     code=403)  # fmt: skip
    await door.in_thread(_end, door.database, door.cookie(request.scope, "session"))
    answer = RedirectResponse(below("/login"), 303)
    door.set_cookie(request.scope, answer, "session", "")
    return answer


async def account_page(request: Request) -> Response:
    """Show the account, with a form to change its password."""
    caller: Caller = request.state.caller
    if not caller.session:
        return _no_account(caller)
    done = ""
    if "done" in request.query_params:
        done = "Your password has been changed. All your other sessions have ended."
    return _account_form(caller, done=done)


async def change_password(request: Request) -> Response:
    """Change a user's password, given the old one, and end their other sessions."""
    door: Door = request.app.state.door
    attempts: Attempts = request.app.state.attempts
    caller: Caller = request.state.caller
    if not caller.session:
        return _no_account(caller)
    fields = await form(request)
    if not same(fields.get("csrf", ""), caller.form_key):
        return _account_form(caller, "Nothing was changed: this page had expired. Try again.", 403)
    if fields.get("password", "") != fields.get("again", ""):
        return _account_form(caller, "The two new passwords differ.", 400)
    account = await door.in_thread(_account, door.database, caller.who)
    # Somebody who finds an open session must not be able to guess the password.
    device = door.cookie(request.scope, "device")
    known = account is not None and same(device, device_key(account))
    buckets = buckets_of(caller.who, door.way(request.scope).address, device=known)
    if seconds := attempts.take(buckets):
        text = f"Too many attempts. Try again in {_duration(seconds)}."
        refusal = _account_form(caller, text, 429)
        refusal.headers["Retry-After"] = str(int(seconds) + 1)
        return refusal
    right = await _hash(accounts.matches, account, fields.get("old", ""))
    if right is False:
        return _account_form(caller, "The old password is wrong.", 403)
    attempts.give_back(buckets)
    try:
        password = await _hash(accounts.hashed, fields.get("password", ""))
    except UserError as error:
        return _account_form(caller, str(error), 400)
    if right is None or password is None or account is None:
        return _account_form(caller, "The dashboard is busy. Try again in a few seconds.", 503)
    changed = await door.in_thread(_change, door.database, account, password)
    if changed is None:
        text = "Nothing was changed: your password was changed elsewhere a moment ago."
        return _account_form(caller, text, 409)
    answer = RedirectResponse(below("/account?done=1"), 303)
    door.let_in(request.scope, answer, changed[1], changed[0])
    return answer


async def link(request: Request) -> Response:
    """Show the form of a one-time link; only submitting it uses up the link."""
    door: Door = request.app.state.door
    account = await door.in_thread(_link_account, door.database, _secret(request))
    return _gone() if account is None else _choose(request, account)


async def use_link(request: Request) -> Response:
    """Set the chosen password of a link's owner, and log them in."""
    door: Door = request.app.state.door
    account = await door.in_thread(_link_account, door.database, _secret(request))
    if account is None:
        return _gone()
    fields = await form(request)
    if fields.get("password", "") != fields.get("again", ""):
        return _choose(request, account, "The two passwords differ.")
    try:
        password = await _hash(accounts.hashed, fields.get("password", ""))
    except UserError as error:
        return _choose(request, account, str(error))
    if password is None:
        return _choose(request, account, "The dashboard is busy. Try again in a few seconds.")
    used = await door.in_thread(_use_link, door.database, _secret(request), password)
    if used is None:
        return _gone()
    answer = RedirectResponse(below("/"), 303)
    door.let_in(request.scope, answer, used[1], used[0])
    return answer


async def owners_key(request: Request) -> Response:
    """Log in whoever has the link that was printed when the dashboard started."""
    door: Door = request.app.state.door
    if door.access.login or not same(_secret(request), door.link):
        return _gone()
    answer = RedirectResponse(below("/"), 303)
    door.let_owner_in(request.scope, answer)
    return answer


ROUTES = [
    Route("/login", login, methods=["GET"]),
    Route("/login", log_in, methods=["POST"]),
    Route("/logout", log_out, methods=["POST"]),
    Route("/account", account_page, methods=["GET"]),
    Route("/account", change_password, methods=["POST"]),
    Route("/link/{secret}", link, methods=["GET"]),
    Route("/link/{secret}", use_link, methods=["POST"]),
    Route("/key/{secret}", owners_key, methods=["GET"]),
]


def here(address: str) -> str:
    """Return the address to go to after the login: the front page if it is of another site."""
    return address if HERE.fullmatch(address) else "/"


def _secret(request: Request) -> str:
    return str(request.path_params["secret"])


async def _hash(work: Any, *arguments: Any) -> Any:
    """Hash a password in one of a few threads; None if too many are waiting."""
    global _waiting  # noqa: PLW0603  # changed only by the event loop's thread
    if _waiting >= WAITING_MOST:
        return None
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_hashing, work, *arguments)
    finally:
        _waiting -= 1


# Database access


def _anybody(database: Database) -> bool:
    with database.transaction() as connection:
        return bool(accounts.listing(connection))


def _account(database: Database, name: str) -> Account | None:
    if accounts.NAME.fullmatch(name) is None:
        return None
    with database.transaction() as connection:
        return accounts.find_or_none(connection, name)


def _begin(database: Database, account: Account) -> str | None:
    with database.transaction() as connection:
        return accounts.begin_session(connection, account)


def _end(database: Database, secret: str) -> None:
    with database.transaction() as connection:
        accounts.end_session(connection, secret)


def _link_account(database: Database, secret: str) -> Account | None:
    with database.transaction() as connection:
        return accounts.link_account(connection, secret)


def _use_link(database: Database, secret: str, password: str) -> tuple[Account, str] | None:
    with database.transaction() as connection:
        account = accounts.use_link(connection, secret, password)
        if account is None:
            return None
        session = accounts.begin_session(connection, account)
        assert session is not None  # the account's row is locked by this transaction
        return account, session


def _change(database: Database, account: Account, password: str) -> tuple[Account, str] | None:
    with database.transaction() as connection:
        return accounts.change_password(connection, account, password)


# Pages


def _page(title: str, lines: Sequence[str] = (), code: int = 200, **more: Any) -> HTMLResponse:
    context = {"command": "", "wrong": "", "fields": (), "action": "", "next": "", "button": "",
               "csrf": "", "done": "", "inside": False}  # fmt: skip
    page = environment.get_template("login.html.j2")
    return HTMLResponse(page.render(context | more | {"title": title, "lines": lines}), code)


def _login_form(
    door: Door, wanted: str, *, name: str = "", wrong: str = "", code: int = 200
) -> HTMLResponse:
    lines = []
    if not door.access.login:
        lines.append(
            f"This dashboard was started by {person()}, who does not need to log in on this "
            "machine. Everyone else does."
        )
    fields = (
        Field("name", "Name", "text", "username", name),
        Field("password", "Password", "password", "current-password"),
    )
    return _page(
        "Log in", lines, code, fields=fields, wrong=wrong, action=below("/login"), button="Log in",
        next=wanted,
    )  # fmt: skip


def _nobody_can(door: Door) -> HTMLResponse:
    if door.access.login:
        line = "There are no users yet. The person who runs the dashboard adds one:"
    else:
        line = (
            f"This dashboard belongs to {person()}, and nobody else can log in yet. "
            "They add a user with the command below, or start the dashboard with --with-key and "
            "open the link that it prints."
        )
    return _page("No access", [line], 403, command="tuner dashboard user add NAME --link")


def _choose(request: Request, account: Account, wrong: str = "") -> HTMLResponse:
    shortest = accounts.SHORTEST
    fields = (
        Field("password", "Password", "password", "new-password", shortest=shortest),
        Field("again", "Repeat the password", "password", "new-password", shortest=shortest),
    )
    return _page(
        f"Welcome, {account.name}",
        [f"Choose a password of at least {shortest} characters."],
        400 if wrong else 200,
        fields=fields, wrong=wrong, button="Save and log in",
        action=below(f"/link/{quote(_secret(request))}"),
    )  # fmt: skip


def _account_form(
    caller: Caller, wrong: str = "", code: int = 200, *, done: str = ""
) -> HTMLResponse:
    shortest = accounts.SHORTEST
    fields = (
        Field("old", "Old password", "password", "current-password"),
        Field("password", f"New password, at least {shortest} characters", "password",
              "new-password", shortest=shortest),
        Field("again", "Repeat the password", "password", "new-password", shortest=shortest),
    )  # fmt: skip
    what = "read and act" if caller.acts else "read"
    return _page(
        caller.who, [f"You are logged in with permission to {what}. Change your password:"], code,
        fields=fields, wrong=wrong, done=done, action=below("/account"), csrf=caller.form_key,
        button="Change the password", inside=True,
    )  # fmt: skip


def _no_account(caller: Caller) -> HTMLResponse:
    line = (
        f"You are using this dashboard as {caller.who} without a login, so there is no password to "
        "change."
    )
    return _page("No login", [line], 403, inside=True)


def _gone() -> HTMLResponse:
    line = "It has already been used, or has expired. Ask for a new one:"
    return _page(
        "This link is not valid", [line], 404, command="tuner dashboard user password NAME --link"
    )


def _duration(seconds: float) -> str:
    return f"{int(seconds) + 1} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
