"""One database connection pool a process, and what to do when the server is away."""

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
    # A user called `tuner` would find our schema before `public`, and Optuna's
    # next migration would create its tables in it.
    "search_path": "public",
    # A peer may wait this long for a lock before it gives up and tries again.
    "lock_timeout": "15s",
    # A worker frozen inside a transaction holds its locks no longer than this.
    "idle_in_transaction_session_timeout": "10s",
    "statement_timeout": "60s",
}

STUBBORN_TRIES = 10
"""Within 10 to 20 seconds, by the pauses between them."""
SERVERS_CLASSES = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Classes of SQLSTATE that speak of the server: connections, logins, no such database,
resources, operators, its system."""


class Database:
    """A PostgreSQL database, embedded or on a server, opened once a process."""

    def __init__(self, where: Address, membership: embedded.Membership | None = None) -> None:
        self.address = where
        self._membership = membership
        # The URL names the driver only: with the password in psycopg2's keyword
        # arguments, no character of it needs quoting and no repr can show it.
        self.engine = sa.create_engine(
            "postgresql+psycopg2://",
            creator=self.connect,
            pool_size=2,
            max_overflow=3,
            pool_pre_ping=True,
            pool_recycle=1800,
        )

    @classmethod
    def open(cls, settings: Settings, *, create: bool = False) -> Self:
        """Open the database that the settings name; the embedded server is started if needed.

        An embedded database that does not exist is made only where `create` says so.
        """
        if settings.embedded:
            if not create:
                require(settings)
            membership = embedded.join(settings.home)
            return cls(membership.address, membership)
        return cls(address.of_server(settings))

    def close(self) -> None:
        """Close all connections and leave the embedded server, if this is one."""
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
        """Give a connection whose statements commit together, or not at all."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """Give a connection each of whose statements is a transaction of its own.

        A value that takes long to arrive then holds no lock, and no transaction is idle meanwhile.
        """
        with self.engine.connect() as opened:
            yield opened.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Give a connection that only reads, and reads one and the same state throughout.

        A study that is trained meanwhile would otherwise have trials in one answer
        that it does not have in the next. It may be idle for as long as figures are
        computed: no worker waits for a lock of it.
        """
        with self.engine.connect() as opened:
            connection = opened.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            with connection.begin():
                connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                yield connection

    def check(self) -> None:
        """Raise DatabaseUnreachableError or DatabaseError unless the database answers now."""
        try:
            with self.engine.connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except DBAPIError as error:
            raise self.explain(error) from None

    def explain(self, error: BaseException) -> DatabaseError:
        """Turn a driver's error into one for people; the password is not in it."""
        cause = str(_driver_error(error)).strip()
        password = self.address.parameters.get("password")
        if password:
            cause = cause.replace(password, "***")
        where = self.address.masked
        if is_outage(error):
            return DatabaseUnreachableError(
                f"The database at {where} cannot be reached.\n  {cause}\n"
                "Check that the server runs and the address is right (`tuner db status`)."
            )
        return DatabaseError(f"The database at {where} refused.\n  {cause}")

    def words(self, error: BaseException) -> str:
        """Return what the server or the driver said, for a log; the password is not in it."""
        said = server_words(error) or type(error).__name__
        password = self.address.parameters.get("password")
        return said.replace(password, "***") if password else said

    def connect(self) -> Any:
        """Open one connection, with timeouts that keep a lost server from holding us."""
        options = " ".join(f"-c {name}={value}" for name, value in SERVER_SIDE.items())
        arguments = {**CONNECTION, **self.address.parameters}
        arguments["options"] = f"{arguments.get('options', '')} {options}".strip()
        return psycopg2.connect("", **arguments)


def require(settings: Settings) -> None:
    """Raise NoDatabaseError if an embedded database is meant and none was made."""
    if settings.embedded and not embedded.exists(settings.home):
        raise NoDatabaseError(
            f"There is no database in {settings.home}, and this command does not make one. Go to "
            "the folder from which the study was launched, or to one below it; or name its home "
            "with TUNER_HOME, or a server with --database URL. `tuner launch` makes a new database."
        )


def server_words(error: BaseException) -> str | None:
    """Return what the server said, with its SQLSTATE; None if the error is not the server's.

    Without the detail, which names rows: equal causes have equal words. What the
    driver says of a lost connection is kept whole; it has no password in it.
    """
    cause = _driver_error(error)
    if not isinstance(cause, psycopg2.Error):
        return None
    if cause.pgcode is None:
        return " ".join(str(cause).split()) or type(cause).__name__
    return f"{cause.diag.message_primary} (SQLSTATE {cause.pgcode})"


def _driver_error(error: BaseException) -> BaseException:
    """Return what the driver said: Optuna's wrapping speaks of invalid data in every case."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError) and seen.orig is not None:
            return seen.orig
        seen = seen.__cause__ or seen.__context__
    return error


def sqlstate(error: BaseException) -> str | None:
    """Return the server's code for an error; None where it did not answer, or is not asked."""
    cause = _driver_error(error)
    return cause.pgcode if isinstance(cause, psycopg2.Error) else None


def is_stubborn(error: BaseException) -> bool:
    """Tell whether an error may pass, but will not if it comes again and again.

    A full disk or exhausted memory (53), a limit of the server's (54), a
    statement or an idle transaction that took too long (57014, 25P03).
    """
    state = sqlstate(error) or ""
    return state[:2] in ("53", "54") or state in ("57014", "25P03")


def is_outage(error: BaseException) -> bool:
    """Tell whether an error may pass when the same transaction is tried again.

    Optuna wraps the driver's error, and a lost connection shows itself in many
    types (FACTS: OperationalError, InterfaceError, PendingRollbackError and
    plain DatabaseError from a rollback), so the chain of causes is walked.
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
    """Tell whether an error is the server's state or its rights, and not our statement."""
    cause = _driver_error(error)
    if not isinstance(cause, psycopg2.Error):
        return False
    state = cause.pgcode or ""
    return is_outage(error) or state[:2] in SERVERS_CLASSES or state == "42501"


def patiently(
    work: Callable[[], T], *, stop: stop_base, before_sleep: Callable[[BaseException], None]
) -> T:
    """Run a transaction until the database lets it through, or `stop` says enough.

    A stubborn error ends it when it came STUBBORN_TRIES times in a row.
    The work must be safe to repeat when its commit went through but the answer
    was lost; every transaction of the ledger is.
    """

    in_a_row: dict[str | None, int] = {}

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            before_sleep(error)

    def again(error: BaseException) -> bool:
        if not is_stubborn(error):
            in_a_row.clear()
            return is_outage(error)
        state = sqlstate(error)
        count = in_a_row.get(state, 0) + 1
        in_a_row.clear()
        in_a_row[state] = count
        return count < STUBBORN_TRIES

    retrying = Retrying(
        retry=retry_if_exception(again),
        wait=wait_random_exponential(multiplier=0.1, max=3.0),
        stop=stop,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(work)
