"""A launch that continues after its terminal is closed: another process in its own session."""

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

    Until then it may still fail, and the error is reported here, where the person sees it.
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

    def is_stored() -> bool:
        with database.transaction() as connection:
            stored = fleets.of_study(connection, study)
        here = [fleet for fleet in stored if fleet.host == socket.gethostname()]
        # Not just by the process's number, which the launcher of a lost fleet may have had.
        return any(is_launcher(fleet, process.pid) for fleet in here)

    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_stored():
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
