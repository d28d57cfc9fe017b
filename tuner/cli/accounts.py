"""`tuner dashboard user` and `token`: who may use the dashboard."""

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.options import Decorated
from tuner.cli.terminal import echo, echo_json, prompt_password
from tuner.errors import UserError
from tuner.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from tuner.store.accounts import Account, Role

HERE = "http://127.0.0.1:8080"


def _role_option(function: Decorated) -> Decorated:
    return click.option(
        "--role",
        type=click.Choice(["reader", "operator"]),
        default="reader",
        show_default=True,
        help="Readers see everything; operators may also stop, extend and delete studies.",
    )(function)


def _link_options(function: Decorated) -> Decorated:
    function = click.option(
        "--url",
        default=HERE,
        show_default=True,
        metavar="URL",
        help="With --link: URL of the dashboard.",
    )(function)
    return click.option(
        "--link",
        is_flag=True,
        help="Print a link with which the user sets their own password; valid for 24 hours.",
    )(function)


@click.group(epilog=options.examples("tuner dashboard user add maria --role operator"))
def user() -> None:
    """Manage dashboard users."""


@user.command(
    epilog=options.examples("tuner dashboard user add maria --link --url https://tuner.example.org")
)
@click.argument("name")
@_role_option
@_link_options
@click.pass_obj
def add(settings: Settings, name: str, role: "Role", url: str, *, link: bool) -> None:
    """Add a user.

    Prompts for a password, or reads it from standard input if that is not a
    terminal.
    """
    from tuner.store import accounts

    with options.open_database(settings, create=True) as database:
        with database.transaction() as connection:
            known = accounts.find_or_none(connection, name)
        # Check the name before asking for a password.
        password = None if link or known else accounts.hashed(_password())
        with database.transaction() as connection:
            account = accounts.add(connection, name, role, password)
            address = _link(connection, account, url) if link else ""
    echo(f"{account.name} can now log in as {_a(role)}.")
    _tell_link(account.name, address)


@user.command("list", epilog=options.examples("tuner dashboard user list --json"))
@options.json_option
@click.pass_obj
def list_users(settings: Settings, *, as_json: bool) -> None:
    """List the users."""
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        listed = accounts.listing(connection)
    if as_json:
        names = ("name", "role", "created", "password")
        rows = [
            (one.name, one.role, one.created.isoformat(), one.password is not None)
            for one in listed
        ]
        echo_json([dict(zip(names, row, strict=True)) for row in rows])
    elif not listed:
        echo("There are no users.  tuner dashboard user add NAME")
    else:
        _print_table(
            ("user", "role", "added", ""),
            [
                (one.name, one.role, _day(one.created), "" if one.password else "no password yet")
                for one in listed
            ],
        )


@user.command(epilog=options.examples("tuner dashboard user remove maria"))
@click.argument("name")
@click.pass_obj
def remove(settings: Settings, name: str) -> None:
    """Remove a user and end their sessions."""
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        account = accounts.find(connection, name)
        accounts.remove(connection, account)
    echo(f"{account.name} can no longer log in.")


@user.command(epilog=options.examples("tuner dashboard user role maria operator"))
@click.argument("name")
@click.argument("role", type=click.Choice(["reader", "operator"]))
@click.pass_obj
def role(settings: Settings, name: str, role: "Role") -> None:
    """Make a user a reader or an operator, from their next click on."""
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        account = accounts.find(connection, name)
        accounts.set_role(connection, account, role)
    was = " already" if account.role == role else ""
    echo(f"{account.name} is{was} {_a(role)} of the dashboard.")


@user.command(epilog=options.examples("tuner dashboard user password maria"))
@click.argument("name")
@_link_options
@click.pass_obj
def password(settings: Settings, name: str, url: str, *, link: bool) -> None:
    """Change a user's password and end their sessions.

    With --link, the old password stays valid until the new one is set.
    """
    from tuner.store import accounts

    with options.open_database(settings) as database:
        with database.transaction() as connection:
            account = accounts.find(connection, name)
            if link:
                _tell_link(account.name, _link(connection, account, url))
                return
        chosen = accounts.hashed(_password())
        with database.transaction() as connection:
            accounts.set_password(connection, accounts.find(connection, name), chosen)
    echo(f"The password of {account.name} was changed; they must log in again.")


@click.group(epilog=options.examples("tuner dashboard token add nightly --days 90"))
def token() -> None:
    """Manage API tokens for scripts."""


@token.command("add", epilog=options.examples("tuner dashboard token add nightly --days 90"))
@click.argument("name")
@_role_option
@click.option(
    "--days", type=click.IntRange(1, 3650), help="Days until the token expires (default: never)."
)
@click.pass_obj
def add_token(settings: Settings, name: str, role: "Role", days: int | None) -> None:
    """Create a token and print it; it is shown only once.

    The token alone goes to standard output. A script sends it as a header:

    Authorization: Bearer TOKEN
    """
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        secret = accounts.add_token(connection, name, role, days)
    until = "until it is revoked" if days is None else f"for {days} days"
    echo(f"{name} has access as {_a(role)} {until}. The token is shown only once:", err=True)
    echo(secret)


@token.command("list", epilog=options.examples("tuner dashboard token list --json"))
@options.json_option
@click.pass_obj
def list_tokens(settings: Settings, *, as_json: bool) -> None:
    """List the tokens."""
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        listed = accounts.tokens(connection)
    if as_json:
        echo_json([asdict(one) for one in listed], default=datetime.isoformat)
    elif not listed:
        echo("There are no tokens.  tuner dashboard token add NAME")
    else:
        _print_table(
            ("token", "role", "added", "last used", "expires"),
            [
                (one.name, one.role, *map(_day, (one.created, one.seen, one.expires)))
                for one in listed
            ],
        )


@token.command(epilog=options.examples("tuner dashboard token revoke nightly"))
@click.argument("name")
@click.pass_obj
def revoke(settings: Settings, name: str) -> None:
    """Revoke a token."""
    from tuner.store import accounts

    with options.open_database(settings) as database, database.transaction() as connection:
        accounts.revoke_token(connection, name)
    echo(f"The token {name} has been revoked.")


def _password() -> str:
    """Ask for a new password; as an argument, it would be visible in the process list."""
    if sys.stdin.isatty():
        return prompt_password()
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise UserError("Pass the password on standard input, or use --link.")
    return line


def _link(connection: "sa.Connection", account: "Account", url: str) -> str:
    from tuner.store import accounts

    return f"{url.rstrip('/')}/link/{accounts.add_link(connection, account)}"


def _tell_link(name: str, address: str) -> None:
    if address:
        echo(f"{name} can set a password with this one-time link, valid for 24 hours:\n  {address}")


def _a(role: str) -> str:
    return f"{'an' if role == 'operator' else 'a'} {role}"


def _day(moment: datetime | None) -> str:
    return "–" if moment is None else moment.astimezone().strftime("%Y-%m-%d")


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from tuner.cli.console import open_console, plain_table

    table = plain_table()
    for name in head:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    open_console().print(table)
