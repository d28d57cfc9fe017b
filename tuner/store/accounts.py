"""Who may use the dashboard: accounts, their sessions and links, and tokens for scripts.

Sessions, links and tokens are random secrets of 256 bits. The database stores only their SHA-256,
so nobody can log in with what they read in it or in a dump. (Passwords can be guessed and get
argon2; a random secret needs no slow hash.)
"""

import hashlib
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.dialects.postgresql import insert

from tuner.errors import UserError
from tuner.names import meant
from tuner.store import tables as t

Role = Literal["reader", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
SHORTEST = 10
LONGEST = 1000
"""Characters of a password."""

IDLE = timedelta(hours=12)
"""A session ends after this long without a request."""
WHOLE = timedelta(days=7)
"""A session ends this long after the login in any case."""
LINK = timedelta(hours=24)
TOUCH = timedelta(minutes=1)
"""The use of a session or token is stored at most this often."""

hasher = PasswordHasher()
"""argon2id with the library's parameters, those of RFC 9106 for machines with little memory."""
NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43
"""Checked where there is no such account, or it has no password, so that it takes the same time."""


@dataclass(frozen=True)
class Account:
    """A person who may log in."""

    account_id: int
    name: str
    role: Role
    password: str | None
    """The argon2 hash; None until one has been chosen by a link."""
    created: datetime


@dataclass(frozen=True)
class Token:
    """A secret that a script logs in with."""

    name: str
    role: Role
    created: datetime
    seen: datetime | None
    expires: datetime | None


def key_of(secret: str) -> str:
    """Return the hash under which a secret is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


# Passwords


def hashed(password: str) -> str:
    """Return the argon2 hash of a new password; takes a tenth of a second and 64 MB."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UserError(f"A password has {SHORTEST} to {LONGEST:,} characters.")
    return hasher.hash(_typed(password))


def matches(account: Account | None, password: str) -> bool:
    """Return whether this is the account's password; takes equally long without an account."""
    stored = account.password if account else None
    try:
        right = hasher.verify(stored or NOBODYS, _typed(password[:LONGEST]))
    except (VerificationError, InvalidHashError):
        return False
    return right and stored is not None


def _typed(password: str) -> str:
    """Return a password in Unicode's composed form: keyboards send é as one character or as two."""
    return unicodedata.normalize("NFKC", password)


# Accounts


def add(connection: sa.Connection, name: str, role: Role, password: str | None) -> Account:
    """Add an account; `password` is a hash, or None where a link will let its owner choose one."""
    name = name.lower()
    if NAME.fullmatch(name) is None:
        raise UserError(
            f"{name!r} cannot be a user's name: use letters, digits and . _ @ -, at most 63."
        )
    query = insert(t.account).values(name=name, role=role, password=password)
    # If two add the same name at once, the second waits here and then adds nothing.
    if connection.execute(query.on_conflict_do_nothing()).rowcount == 0:
        raise UserError(
            f"There is a user {name!r} already. A new password:  tuner dashboard user password "
            f"{name}"
        )
    return find(connection, name)


def find(connection: sa.Connection, name: str) -> Account:
    """Return an account by its name."""
    account = find_or_none(connection, name)
    if account is None:
        known = [one.name for one in listing(connection)]
        raise UserError(f"There is no user {name!r}.{meant(name, known)}")
    return account


def find_or_none(connection: sa.Connection, name: str) -> Account | None:
    """Return an account by its name, or None."""
    query = sa.select(t.account).where(t.account.c.name == name.lower())
    row = connection.execute(query).one_or_none()
    return None if row is None else Account(**row._mapping)


def listing(connection: sa.Connection) -> list[Account]:
    """Return all accounts by name."""
    rows = connection.execute(sa.select(t.account).order_by(t.account.c.name))
    return [Account(**row._mapping) for row in rows]


def remove(connection: sa.Connection, account: Account) -> None:
    """Remove an account, and with it its sessions and links."""
    connection.execute(sa.delete(t.account).where(t.account.c.account_id == account.account_id))


def set_password(connection: sa.Connection, account: Account, password: str) -> None:
    """Give an account another password (its hash); all its sessions and links end."""
    # The account's row is written first. A login that checked the old password locks the same row
    # before it begins a session (`begin_session`). So it either finds the new password there, or
    # has begun its session before the deletion below, which then removes it.
    connection.execute(
        sa.update(t.account)
        .where(t.account.c.account_id == account.account_id)
        .values(password=password)
    )
    for table in (t.session, t.link):
        connection.execute(sa.delete(table).where(table.c.account_id == account.account_id))


def change_password(
    connection: sa.Connection, account: Account, password: str
) -> tuple[Account, str] | None:
    """Set another password (its hash) for somebody who knows the old one, and begin a session.

    All their other sessions end. Returns the account and the session's secret; None if the password
    has been changed since it was read.
    """
    # If two change it at once, the second waits for the account's row and finds another password.
    if not _has_password_still(connection, account):
        return None
    set_password(connection, account, password)
    changed = find(connection, account.name)
    secret = begin_session(connection, changed)
    assert secret is not None  # the account's row is locked by this transaction
    return changed, secret


def _has_password_still(connection: sa.Connection, account: Account) -> bool:
    """Lock an account's row, and return whether its password is still the one that was read."""
    row = connection.execute(
        sa.select(t.account.c.password)
        .where(t.account.c.account_id == account.account_id)
        .with_for_update()
    ).one_or_none()
    return row is not None and row.password == account.password


def set_role(connection: sa.Connection, account: Account, role: Role) -> None:
    """Give an account another role."""
    mine = t.account.c.account_id == account.account_id
    connection.execute(sa.update(t.account).where(mine).values(role=role))


# Sessions


def begin_session(connection: sa.Connection, account: Account) -> str | None:
    """Begin a session and return its secret; None if the password has been changed meanwhile."""
    if not _has_password_still(connection, account):
        return None
    connection.execute(sa.delete(t.session).where(sa.not_(_open_session())))
    secret = secrets.token_urlsafe(32)
    connection.execute(
        sa.insert(t.session).values(
            key=key_of(secret),
            account_id=account.account_id,
            expires=sa.func.clock_timestamp() + WHOLE,
        )
    )
    return secret


def session_account(
    connection: sa.Connection, secret: str, *, touch: bool = True
) -> Account | None:
    """Return the account of a session; None if there is no such session, or it has ended.

    With `touch`, the use of the session is recorded.
    """
    row = connection.execute(
        sa.select(t.account, _old(t.session.c.seen).label("old"))
        .join(t.session)
        .where(t.session.c.key == key_of(secret), _open_session())
    ).one_or_none()
    if row is None:
        return None
    if row.old and touch:
        _touch(connection, t.session, t.session.c.key == key_of(secret))
    return Account(**{name: value for name, value in row._mapping.items() if name != "old"})


def end_session(connection: sa.Connection, secret: str) -> None:
    """End a session."""
    connection.execute(sa.delete(t.session).where(t.session.c.key == key_of(secret)))


# One-time links


def add_link(connection: sa.Connection, account: Account) -> str:
    """Return the secret of a link by which an account's owner chooses a password."""
    # Only the newest link of an account is valid.
    connection.execute(sa.delete(t.link).where(t.link.c.account_id == account.account_id))
    secret = secrets.token_urlsafe(32)
    connection.execute(
        sa.insert(t.link).values(
            key=key_of(secret),
            account_id=account.account_id,
            expires=sa.func.clock_timestamp() + LINK,
        )
    )
    return secret


def link_account(connection: sa.Connection, secret: str) -> Account | None:
    """Return the account of a link; None if the link was used or has expired."""
    row = connection.execute(
        sa.select(t.account).join(t.link).where(t.link.c.key == key_of(secret), _open_link())
    ).one_or_none()
    return None if row is None else Account(**row._mapping)


def use_link(connection: sa.Connection, secret: str, password: str) -> Account | None:
    """Set the password (its hash) of a link's account; None if the link is no longer valid."""
    # If two use one link at once, only one of them deletes its row.
    row = connection.execute(
        sa.delete(t.link)
        .where(t.link.c.key == key_of(secret), _open_link())
        .returning(t.link.c.account_id)
    ).one_or_none()
    if row is None:
        return None
    query = sa.select(t.account).where(t.account.c.account_id == row.account_id)
    account = Account(**connection.execute(query).one()._mapping)
    set_password(connection, account, password)
    return find(connection, account.name)


# Tokens


def add_token(connection: sa.Connection, name: str, role: Role, days: int | None) -> str:
    """Add a token and return its secret, which is shown once."""
    if NAME.fullmatch(name) is None:
        raise UserError(f"{name!r} cannot be a token's name: use a to z, 0 to 9 and . _ @ -.")
    secret = f"tuner_{secrets.token_urlsafe(32)}"
    ends = None if days is None else sa.func.clock_timestamp() + timedelta(days=days)
    query = insert(t.token).values(name=name, key=key_of(secret), role=role, expires=ends)
    if connection.execute(query.on_conflict_do_nothing()).rowcount == 0:
        raise UserError(
            f"There is a token {name!r} already. Revoke it first:  tuner dashboard token revoke "
            f"{name}"
        )
    return secret


def tokens(connection: sa.Connection) -> list[Token]:
    """Return all tokens by name."""
    rows = connection.execute(sa.select(*_token_columns()).order_by(t.token.c.name))
    return [Token(**row._mapping) for row in rows]


def token_by(connection: sa.Connection, secret: str) -> Token | None:
    """Return the token with this secret; None if there is none, or it has expired."""
    open_still = t.token.c.expires.is_(None) | (t.token.c.expires > sa.func.clock_timestamp())
    query = sa.select(*_token_columns(), _old(t.token.c.seen).label("old"))
    row = connection.execute(query.where(t.token.c.key == key_of(secret), open_still)).one_or_none()
    if row is None:
        return None
    if row.old is not False:
        _touch(connection, t.token, t.token.c.name == row.name)
    return Token(**{name: value for name, value in row._mapping.items() if name != "old"})


def revoke_token(connection: sa.Connection, name: str) -> None:
    """Revoke a token."""
    if connection.execute(sa.delete(t.token).where(t.token.c.name == name)).rowcount == 0:
        known = [one.name for one in tokens(connection)]
        raise UserError(f"There is no token {name!r}.{meant(name, known)}")


def _token_columns() -> list[sa.Column[object]]:
    return [t.token.c[name] for name in ("name", "role", "created", "seen", "expires")]


def _open_session() -> sa.ColumnElement[bool]:
    now = sa.func.clock_timestamp()
    return (t.session.c.expires > now) & (t.session.c.seen > now - IDLE)


def _open_link() -> sa.ColumnElement[bool]:
    return t.link.c.expires > sa.func.clock_timestamp()


def _old(seen: sa.Column[object]) -> sa.ColumnElement[bool]:
    return seen < sa.func.clock_timestamp() - TOUCH


def _touch(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.update(table).where(which).values(seen=sa.func.clock_timestamp()))
