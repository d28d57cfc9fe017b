"""A fleet that is stored, so that any machine can look at it, scale it and stop it.

Workers on this machine follow their launcher, so the launcher reads what people want:

    tuner fleet scale STUDY 8 ──> fleet.workers ──> read here, every few seconds ──> Fleet.scale

Workers of other engines outlive it. There, whoever gives the command acts on the engine, under the
lock of the fleet's row, and stores the new handle; a launcher that is still here takes it over.
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
"""How often a launcher stores what runs, and reads what people want."""
CLOCK_SECONDS = 60.0
LOST_SECONDS = 60.0
"""A fleet of this machine's engine that was not seen for so long has lost its launcher."""


class TendedFleet:
    """A fleet whose launcher is this process; it is used like the fleet itself."""

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

        In this order: a launcher that dies in between leaves a fleet that can be found and ended.
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
            # Nobody would find anything to ask under this fleet: it has ended, and says why.
            with self._database.transaction() as connection:
                fleets.end(connection, number, str(error).splitlines()[0])
            raise
        # Ctrl-C, or a fault: some workers may have been started, and are found by this handle.
        except BaseException:
            self._sync(0)
            raise
        self._sync(crew.size)

    def running(self) -> int:
        """Return how many workers run; see that people's wishes are followed."""
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
        """Return what people should know of its workers, each once."""
        return self._fleet.remarks()

    def close(self) -> None:
        """End the workers that are left, and note that the fleet has ended."""
        reason = "; ".join(text.splitlines()[0] for text in self._fleet.failures() if text)
        self._fleet.close()
        if self._stored is None:
            return
        number = self._stored.fleet_id
        try:
            with self._database.transaction() as connection:
                fleets.end(connection, number, reason)
        # It is seen as lost then; nothing that was trained depends on it.
        except (DBAPIError, DatabaseError):
            logger.warning("the database is away; this fleet leaves without signing off")

    def _sync(self, running: int) -> None:
        """Store what runs, and do what people asked for; a database that is away is no reason."""
        self._synced = time.monotonic()
        if self._stored is None:
            return
        try:
            with self._database.transaction() as connection:
                told = fleets.keep(connection, self._stored, self._fleet.handle(), running)
        except (DBAPIError, DatabaseError):
            return
        if told is None:  # deleted with its study; its workers see that by themselves
            return
        if self._engine.outlives:
            self._take_over(told)
        else:
            self._obey(told)
        self._stored = told

    def _take_over(self, told: StoredFleet) -> None:
        assert self._stored is not None
        assert self._crew is not None
        if told.handle != self._fleet.handle():
            # Somebody has scaled or stopped it by a command: what it is made of is in the database.
            crew = replace(self._crew, workers=told.workers)
            self._fleet = self._engine.again(self._settings, crew, told.handle)

    def _obey(self, told: StoredFleet) -> None:
        assert self._stored is not None
        if told.asked != self._asked:
            self._asked = told.asked
            (self._fleet.stop_now if told.asked == "now" else self._fleet.ask_to_stop)()
        elif told.workers != self._stored.workers and not told.asked:
            self._fleet.scale(told.workers)


def is_lost(stored: StoredFleet) -> bool:
    """Return whether a fleet that follows its launcher has lost it, and its workers with it."""
    if engines.load(stored.engine).outlives:
        return False
    if stored.host == socket.gethostname() and not is_launcher(stored, stored.pid):
        return True
    return stored.unseen > LOST_SECONDS


def is_launcher(stored: StoredFleet, pid: int) -> bool:
    """Return whether a process of this machine is the one that launched a fleet of this machine.

    The number alone does not say so: after some time another process has it.
    """
    try:
        began = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    known = stored.handle.get(LAUNCHER_STARTED)
    # psutil adds the time since the machine's start to that moment by the clock, which may be set
    # while the process runs. No number is used again within a minute.
    return pid == stored.pid and (known is None or abs(began - known) < CLOCK_SECONDS)


def look(settings: Settings, database: Database, stored: StoredFleet) -> tuple[StoredFleet, int]:
    """Ask a fleet's engine how many workers run or wait, and store it; end the fleet at none."""
    if not engines.load(stored.engine).outlives:
        return stored, stored.running

    def count(fleet: Fleet) -> int:
        return fleet.running()

    return act(settings, database, stored, count)


def scale(settings: Settings, database: Database, stored: StoredFleet, workers: int) -> None:
    """Scale a fleet, at once where its workers outlive their launcher; else ask its launcher.

    One that was asked to stop is refused: of its workers those that are leaving would have to be
    told from those that stay, and whoever has stopped it would find it at work again.
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
    """Ask a fleet's workers to leave, politely or at once."""
    how: fleets.Asked = "now" if now else "stop"
    if not engines.load(stored.engine).outlives:
        with database.transaction() as connection:
            fleets.ask_to_stop(connection, stored.fleet_id, how)
            if is_lost(stored):
                # Nobody is left to hear it, or to note the end.
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
    """Act on a fleet by its engine, alone, and store what came of it.

    If the change scaled it or asked it to stop, that is stored as well: `workers`, `how`. If the
    engine fails, only the handle is: a fleet that cannot be asked has not been seen.

    The row stays locked meanwhile: two people who scale a fleet at once would both start what is
    missing, and one of the two handles would be lost with the workers that it names. An engine may
    take seconds to answer, so the server must not end the transaction for being idle.
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
            # Under the lock: who asks it to stop meanwhile comes after us, and stops these too.
            _refuse_stopping(current)
        crew = replace(Crew.from_json(current.crew), workers=workers or current.workers)
        fleet = engine.again(settings, crew, current.handle)
        failed: BaseException | None = None
        running: int | None = None
        try:
            running = change(fleet)
        # Ctrl-C as well. Workers may have been started before it: their handle is stored all the
        # same, or nobody could find them again.
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
