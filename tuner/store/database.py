"""One database connection pool per process, and what to do when the server is away."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg2
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.stop import stop_base

from tuner.errors import DatabaseError, DatabaseUnreachableError, NoDatabaseError
from tuner.settings import Settings
from tuner.store import address
from tuner.store.address import Address
from tuner.store.embedded import server as embedded

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "tuner",
}
SERVER_SIDE = {
    # For a user called `tuner`, our schema would come before `public`, and Optuna's
    # next migration would create its tables in it.
    "search_path": "public",
    # How long to wait for a lock before giving up and trying again.
    "lock_timeout": "15s",
    # How long a worker that is frozen inside a transaction can hold its locks.
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "1min",
}
"""By the names and values that SHOW returns, so that connections can be checked for them."""

UNSUPPORTED = "unsupported startup parameter"
"""PgBouncer's answer to `options`, unless it is configured to ignore them."""

STUBBORN_TRIES = 10
"""Takes 10 to 20 seconds, given the pauses in between."""
SERVERS_CLASSES = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Classes of SQLSTATE that concern the server: connections, logins, no such database,
resources, operator intervention, system errors."""


class Database:
    """A PostgreSQL database, embedded or on a server, opened once per process."""

    def __init__(self, where: Address, membership: embedded.Membership | None = None) -> None:
        self.address = where
        self._membership = membership
        # The URL names the driver only. The password goes in psycopg2's keyword arguments,
        # where no character needs quoting and no repr can show it.
        self.engine = sa.create_engine(
            "postgresql+psycopg2://",
            creator=self.connect,
            pool_size=2,
            max_overflow=3,
            pool_pre_ping=True,
            pool_recycle=1800,
        )

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        create: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Self:
        """Open the database that the settings name, starting the embedded server if needed.

        A missing embedded database is created only if `create` is set. `meanwhile` is called while
        an embedded server starts.
        """
        if settings.embedded:
            if not create:
                require(settings)
            membership = embedded.join(settings.home, meanwhile)
            return cls(membership.address, membership)
        return cls(address.of_server(settings))

    def close(self) -> None:
        """Close all connections and, if this is the embedded server, leave it."""
        self.engine.dispose()
        if self._membership is not None:
            self._membership.leave()

    def __enter__(self) -> Self:
        """Return the database itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the database."""
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a connection whose statements commit together or not at all."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """Open a connection on which every statement is its own transaction.

        While a large value is being sent, no lock is held and no transaction is idle.
        """
        with self.engine.connect() as opened:
            yield opened.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Open a read-only connection that sees one snapshot throughout.

        Otherwise, while a study is training, one answer could contain trials that another lacks.
        The connection may stay idle while figures are computed: no worker waits for its locks.
        """
        with self.engine.connect() as opened:
            connection = opened.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            with connection.begin():
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                yield connection

    def check(self) -> None:
        """Raise DatabaseUnreachableError or DatabaseError if the database does not answer."""
        try:
            with self.engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except DBAPIError as error:
            raise self.explain(error) from None

    def explain(self, error: BaseException) -> DatabaseError:
        """Turn a driver's error into one for people, without the password."""
        cause = str(_driver_error(error)).strip()
        password = self.address.parameters.get("password")
        if password:
            cause = cause.replace(password, "***")
        where = self.address.masked
        if is_outage(error):
            return DatabaseUnreachableError(
                f"The database at {where} cannot be reached.\n  {cause}\n"
                "Check that the server is running and the address is right (`tuner db status`)."
            )
        return DatabaseError(f"The database at {where} refused the request.\n  {cause}")

    def words(self, error: BaseException) -> str:
        """Return the message of the server or the driver, for a log, without the password."""
        said = server_words(error) or type(error).__name__
        password = self.address.parameters.get("password")
        return said.replace(password, "***") if password else said

    def connect(self) -> Any:
        """Open one connection, with timeouts so that a lost server cannot block us."""
        arguments = {**CONNECTION, **self.address.parameters}
        own = str(arguments.pop("options", ""))
        ours = " ".join(f"-c {name}={value}" for name, value in SERVER_SIDE.items())
        try:
            connection = psycopg2.connect("", **arguments, options=f"{own} {ours}".strip())
        except psycopg2.OperationalError as error:
            if UNSUPPORTED not in str(error):
                raise
            # This PgBouncer refuses `options`; the role may have the settings anyway.
            connection = psycopg2.connect("", **(arguments | ({"options": own} if own else {})))
        if self._membership is None:
            self._check_settings(connection)
        return connection

    def _check_settings(self, connection: Any) -> None:
        """Refuse a connection without our timeouts: PgBouncer may drop them silently.

        Without them, a worker frozen inside a transaction would hold its locks forever.
        """
        # Without a transaction around it, this is a single round trip.
        connection.autocommit = True
        with connection.cursor() as cursor:
            shown = ", ".join(f"current_setting('{name}')" for name in SERVER_SIDE)
            cursor.execute(
                f"SELECT quote_ident(current_user), quote_ident(current_database()), {shown}"
            )
            user, database, *values = cursor.fetchone()
        connection.autocommit = False
        wrong = [
            f"ALTER ROLE {user} IN DATABASE {database} SET {name} = '{value}';"
            for (name, value), found in zip(SERVER_SIDE.items(), values, strict=True)
            if found != value
        ]
        if wrong:
            connection.close()
            raise DatabaseError(
                f"Whatever answers at {self.address.masked}, probably PgBouncer, does not pass on "
                "the settings that keep a stalled worker from holding its locks. Run this once, "
                "as that user or as an administrator, then let the pooler reconnect "
                "(docs/scale.md):\n  " + "\n  ".join(wrong)
            )


def require(settings: Settings) -> None:
    """Raise NoDatabaseError if the settings mean an embedded database that does not exist."""
    if settings.embedded and not embedded.exists(settings.home):
        raise NoDatabaseError(
            f"There is no database in {settings.home}, and this command does not create one. Go "
            "to the folder from which the study was launched, or to one below it; or name its "
            "home with TUNER_HOME, or a server with --database URL. `tuner launch` creates a new "
            "database."
        )


def server_words(error: BaseException) -> str | None:
    """Return the server's message with its SQLSTATE; None if the error is not the server's.

    The detail is left out because it names rows: equal causes give equal messages. The
    driver's message about a lost connection is kept whole; it contains no password.
    """
    cause = _driver_error(error)
    if not isinstance(cause, psycopg2.Error):
        return None
    if cause.pgcode is None:
        return " ".join(str(cause).split()) or type(cause).__name__
    return f"{cause.diag.message_primary} (SQLSTATE {cause.pgcode})"


def _driver_error(error: BaseException) -> BaseException:
    """Return the driver's error: Optuna's wrapper blames invalid data in every case."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError) and seen.orig is not None:
            return seen.orig
        seen = seen.__cause__ or seen.__context__
    return error


def sqlstate(error: BaseException) -> str | None:
    """Return the server's code for an error; None if the error is not from the server."""
    cause = _driver_error(error)
    return cause.pgcode if isinstance(cause, psycopg2.Error) else None


def is_stubborn(error: BaseException) -> bool:
    """Return whether an error may be temporary, but counts as permanent if it keeps recurring.

    A full disk or exhausted memory (53), a server limit (54), a statement or an idle
    transaction that took too long (57014, 25P03).
    """
    state = sqlstate(error) or ""
    return state[:2] in ("53", "54") or state in ("57014", "25P03")


def is_outage(error: BaseException) -> bool:
    """Return whether the same transaction may succeed if it is retried.

    Optuna wraps the driver's error, and a lost connection appears as any of several types
    (OperationalError, InterfaceError, PendingRollbackError, or plain DatabaseError from a
    rollback), so the chain of causes is walked.
    """
    if is_stubborn(error):
        return False
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PendingRollbackError):
            return True
        if isinstance(seen, DBAPIError) and _passes(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _passes(error: DBAPIError) -> bool:
    original = error.orig
    if isinstance(original, psycopg2.OperationalError | psycopg2.InterfaceError):
        return True
    # A rollback on a dead connection raises the bare class, without an SQLSTATE.
    return type(original) is psycopg2.DatabaseError or error.connection_invalidated


def is_servers_trouble(error: BaseException) -> bool:
    """Return whether an error is due to the server's state or permissions, not our statement."""
    cause = _driver_error(error)
    if not isinstance(cause, psycopg2.Error):
        return False
    state = cause.pgcode or ""
    return is_outage(error) or state[:2] in SERVERS_CLASSES or state == "42501"


def patiently(
    work: Callable[[], T], *, stop: stop_base, before_sleep: Callable[[BaseException], None]
) -> T:
    """Retry a transaction until it succeeds or `stop` ends the attempts.

    A stubborn error is raised after STUBBORN_TRIES in a row. The work must be safe to repeat if it
    was committed and only the answer was lost; every transaction of the ledger is.
    """

    in_a_row: dict[str | None, int] = {}

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            before_sleep(error)

    def may_pass(error: BaseException) -> bool:
        if not is_stubborn(error):
            in_a_row.clear()
            return is_outage(error)
        state = sqlstate(error)
        count = in_a_row.get(state, 0) + 1
        in_a_row.clear()
        in_a_row[state] = count
        return count < STUBBORN_TRIES

    retrying = Retrying(
        retry=retry_if_exception(may_pass),
        wait=wait_random_exponential(multiplier=0.1, max=3.0),
        stop=stop,
        before_sleep=report,
        reraise=True,
    )
    return retrying(work)
