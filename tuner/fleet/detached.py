"""A launch that goes on after its terminal is closed: another process, in a session of its own."""

import os
import socket
import subprocess
import time
from pathlib import Path

from tuner import home as home_folder
from tuner.errors import MachineError
from tuner.fleet.tending import is_launcher
from tuner.processes import Executed, Streams, python
from tuner.settings import Settings, launcher_environment
from tuner.store import fleets
from tuner.store.database import Database
from tuner.store.studies import Study

PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.2


def start(settings: Settings, database: Database, study: Study, arguments: tuple[str, ...]) -> Path:
    """Start `tuner launch` of a stored study detached; return its log once its fleet is stored.

    Until then it may still end by an error, which is told here, where somebody looks.
    """
    logs = settings.home / "logs"
    home_folder.make(settings.home)
    home_folder.make_folder(logs)
    log = logs / f"launch-{study.full_name}.log"
    command = python("tuner.__main__", "launch", study.full_name, *arguments)
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = home_folder.open_private(log, os.O_WRONLY | os.O_APPEND)
    begun = log.stat().st_size
    try:
        process = Executed(command, launcher_environment(settings), Streams(nothing, out, out))
    finally:
        os.close(nothing)
        os.close(out)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _is_stored(database, study, process.pid):
        try:
            process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        process.kill()
        with log.open("rb") as file:
            file.seek(begun)
            said = file.read().decode(errors="replace").strip()
        raise MachineError(f"The detached launch has not begun. It printed:\n{said[-2000:]}")
    return log


def _is_stored(database: Database, study: Study, pid: int) -> bool:
    with database.transaction() as connection:
        present = fleets.of_study(connection, study)
    # A lost fleet may have had a launcher of the same number.
    return any(one.host == socket.gethostname() and is_launcher(one, pid) for one in present)
