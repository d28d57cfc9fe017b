"""Stored fleets, which can be listed, scaled and stopped from any machine.

Workers on this machine are controlled by their launcher, so the launcher polls for requests:

    tuner fleet scale STUDY 8 ──> fleet.workers ──> read here, every few seconds ──> Fleet.scale

Workers of other engines outlive it. There, the command itself acts on the engine, under the lock of
the fleet's row, and stores the new handle; a launcher that is still running adopts it.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import psutil
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tuner.errors import DatabaseError, TunerError, UserError
from tuner.fleet import engines
from tuner.fleet.contract import Crew, Engine, Fleet
from tuner.fleet.local import LAUNCHER_STARTED
from tuner.settings import Settings, person
from tuner.store import fleets
from tuner.store.database import Database
from tuner.store.fleets import Launcher, StoredFleet
from tuner.store.studies import Study

logger = logging.getLogger(__name__)

SYNC_SECONDS = 3.0
"""How often a launcher stores the number of running workers, and reads requests."""
CLOCK_SECONDS = 60.0
LOST_SECONDS = 60.0
"""A local fleet that has not been seen for this long has lost its launcher."""


class TendedFleet:
    """A fleet launched by this process; it is used like the fleet itself."""

    def __init__(
        self, settings: Settings, database: Database, study: Study, engine: Engine, fleet: Fleet
    ) -> None:
        self._settings = settings
        self._database = database
        self._study = study
        self._engine = engine
        self.outlives = engine.outlives
        """Whether its workers stay when this process ends."""
        self._fleet = fleet
        self._crew: Crew | None = None
        self._stored: StoredFleet | None = None
        self._synced = 0.0
        self._asked = ""

    def start_crew(self, crew: Crew) -> None:
        """Store the fleet, then start its workers.

        In this order, so that a launcher that dies in between leaves a fleet that can be found.
        """
        self._crew = crew
        launcher = Launcher(socket.gethostname(), os.getpid(), person())
        with self._database.transaction() as connection:
            number = fleets.begin(
                connection,
                self._study,
                self._engine.name,
                crew.to_json(),
                self._fleet.handle(),
                workers=crew.size,
                launcher=launcher,
            )
            self._stored = fleets.find(connection, number)
        try:
            self._fleet.start()
        except TunerError as error:
            # No worker was started, so the fleet is stored as ended, with the reason.
            with self._database.transaction() as connection:
                fleets.end(connection, number, str(error).splitlines()[0])
            raise
        # Also on Ctrl-C: workers that were started are found by this handle.
        except BaseException:
            self._sync(0)
            raise
        self._sync(crew.size)

    def running(self) -> int:
        """Return how many workers run; from time to time, synchronise with the database."""
        running = self._fleet.running()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync(running)
        return running

    def ask_to_stop(self) -> None:
        """Ask every worker to finish its epoch, give its trial back and exit."""
        self._fleet.ask_to_stop()

    def stop_now(self) -> None:
        """Ask every worker to exit at once."""
        self._fleet.stop_now()

    def failures(self) -> list[str]:
        """Return why workers gave up."""
        return self._fleet.failures()

    def remarks(self) -> list[str]:
        """Return remarks about its workers for people, each once."""
        return self._fleet.remarks()

    def close(self) -> None:
        """End the remaining workers, and record that the fleet has ended."""
        reason = "; ".join(text.splitlines()[0] for text in self._fleet.failures() if text)
        self._fleet.close()
        if self._stored is None:
            return
        number = self._stored.fleet_id
        try:
            with self._database.transaction() as connection:
                fleets.end(connection, number, reason)
        # Then it counts as lost; no training depends on it.
        except (DBAPIError, DatabaseError):
            logger.warning("the database is away; this fleet leaves without signing off")

    def _sync(self, running: int) -> None:
        """Store the number of running workers, and follow requests; skipped during an outage."""
        self._synced = time.monotonic()
        if self._stored is None:
            return
        try:
            with self._database.transaction() as connection:
                current = fleets.keep(connection, self._stored, self._fleet.handle(), running)
        except (DBAPIError, DatabaseError):
            return
        if current is None:  # deleted with its study, which its workers notice themselves
            return
        if self._engine.outlives:
            assert self._crew is not None
            if current.handle != self._fleet.handle():
                # A command has scaled or stopped it, and stored the new handle.
                crew = replace(self._crew, workers=current.workers)
                self._fleet = self._engine.again(self._settings, crew, current.handle)
        elif current.asked != self._asked:
            self._asked = current.asked
            (self._fleet.stop_now if current.asked == "now" else self._fleet.ask_to_stop)()
        elif current.workers != self._stored.workers and not current.asked:
            self._fleet.scale(current.workers)
        self._stored = current


def is_lost(stored: StoredFleet) -> bool:
    """Return whether a local fleet has lost its launcher, and so its workers."""
    if engines.load(stored.engine).outlives:
        return False
    if stored.host == socket.gethostname() and not is_launcher(stored, stored.pid):
        return True
    return stored.unseen > LOST_SECONDS


def is_launcher(stored: StoredFleet, pid: int) -> bool:
    """Return whether a process of this machine is the one that launched a fleet of this machine.

    The process number alone does not tell, because it is reused after some time.
    """
    try:
        began = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    known = stored.handle.get(LAUNCHER_STARTED)
    # psutil derives the start from the boot time by the clock, which may be set while the process
    # runs, so allow a difference. No process number is reused within a minute.
    return pid == stored.pid and (known is None or abs(began - known) < CLOCK_SECONDS)


def look(settings: Settings, database: Database, stored: StoredFleet) -> tuple[StoredFleet, int]:
    """Ask a fleet's engine how many workers run or wait, and store it; end a fleet without any."""
    if not engines.load(stored.engine).outlives:
        return stored, stored.running

    def count(fleet: Fleet) -> int:
        return fleet.running()

    return act(settings, database, stored, count)


def scale(settings: Settings, database: Database, stored: StoredFleet, workers: int) -> None:
    """Scale a fleet: at once if its workers outlive their launcher, else by asking its launcher.

    Refused for a fleet that was asked to stop: its leaving workers would have to be distinguished
    from those that stay, and the person who stopped it would find it running again.
    """
    if not engines.load(stored.engine).outlives:
        with database.transaction() as connection:
            current = fleets.locked(connection, stored.fleet_id)
            _refuse_stopping(current)
            fleets.want(connection, stored.fleet_id, workers)
        return

    def change(fleet: Fleet) -> int:
        fleet.scale(workers)
        return fleet.running()

    act(settings, database, stored, change, workers=workers)


def stop(settings: Settings, database: Database, stored: StoredFleet, *, now: bool) -> None:
    """Ask a fleet's workers to leave, after their epoch or at once."""
    how: fleets.Asked = "now" if now else "stop"
    if not engines.load(stored.engine).outlives:
        with database.transaction() as connection:
            fleets.ask_to_stop(connection, stored.fleet_id, how)
            if is_lost(stored):
                # No launcher is left to read the request or to record the end.
                fleets.end(connection, stored.fleet_id, "its launcher had ended")
        return

    def change(fleet: Fleet) -> int:
        (fleet.stop_now if now else fleet.ask_to_stop)()
        return fleet.running()

    act(settings, database, stored, change, how=how)


def _refuse_stopping(stored: StoredFleet | None) -> None:
    if stored is not None and stored.asked:
        raise UserError(
            f"Fleet {stored.fleet_id} was asked to stop, so it is given no more workers. Start "
            "another with `tuner launch`."
        )


def act(
    settings: Settings,
    database: Database,
    stored: StoredFleet,
    change: Callable[[Fleet], int],
    *,
    workers: int | None = None,
    how: fleets.Asked = "",
) -> tuple[StoredFleet, int]:
    """Change a fleet through its engine, under its lock, and store the result.

    If the change scales it or asks it to stop, `workers` or `how` is stored as well. If the engine
    fails, only the handle is stored: a fleet whose engine did not answer has not been seen.

    The row stays locked meanwhile. Otherwise two people who scale a fleet at once would both start
    the missing workers, and one of the two handles would be lost with the workers that it names. An
    engine may take seconds to answer, so the server must not end the transaction for being idle.
    """
    engine = engines.load(stored.engine)
    with database.transaction() as connection:
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        current = fleets.locked(connection, stored.fleet_id)
        if current is None or current.ended is not None:
            raise UserError(
                "The fleet has ended meanwhile; `tuner fleet status` shows what is left."
            )
        if workers is not None:
            # Under the lock: a later request to stop waits for us, and stops these workers too.
            _refuse_stopping(current)
        crew = replace(Crew.from_json(current.crew), workers=workers or current.workers)
        fleet = engine.again(settings, crew, current.handle)
        failed: BaseException | None = None
        running: int | None = None
        try:
            running = change(fleet)
        # Also on Ctrl-C: store the handle, or nobody could find workers that were started.
        except BaseException as error:  # noqa: BLE001  # raised again below
            failed = error
        if workers is not None and failed is None:
            fleets.want(connection, current.fleet_id, workers)
        if how and failed is None:
            fleets.ask_to_stop(connection, current.fleet_id, how)
        kept = fleets.keep(connection, current, fleet.handle(), running)
        assert kept is not None, "its row is locked"
        if running == 0:
            reason = "; ".join(text.splitlines()[0] for text in fleet.failures() if text)
            fleet.close()
            fleets.end(connection, current.fleet_id, reason)
    if failed is not None:
        raise failed
    return kept, kept.running
