"""How long the page for Prometheus takes to read and to write, and how large it is.

python -m benchmarks.metrics --trials 10000      # in 20 studies, of 50 epochs each
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import record
from benchmarks.stored import settle, store
from tuner.dashboard.pages.metrics import as_page
from tuner.settings import Settings
from tuner.store import schema, totals
from tuner.store.database import Database

STUDIES, EPOCHS, TIMES = 20, 50, 21


def main() -> None:
    """Fill a database, and read it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials
    # As root PostgreSQL runs as another user, who needs access.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        with Database.open(Settings(Path(name) / ".tuner"), create=True) as database:
            schema.ensure(database)
            each = trials // STUDIES
            for number in range(STUDIES):
                name_of = f"study_{number:02}"
                store(database, name_of, stored=each, trials=each + 100, epochs=EPOCHS)
                record.progress(f"{(number + 1) * each:,} trials are stored")
            settle(database)
            read, written, size = _measured(database)
    print(
        f"{trials:,} trials in {STUDIES} studies: read in {_spread(read)}, "
        f"written in {_spread(written)}, {size / 1000:.0f} kB"
    )


def _measured(database: Database) -> tuple[list[float], list[float], int]:
    read, written, body = [], [], b""
    for _ in range(TIMES):
        begun = time.perf_counter()
        with database.snapshot() as connection:
            found = totals.read(connection)
        read.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        body, _media = as_page(found).encoded("")
        written.append(time.perf_counter() - begun)
    return read, written, len(body)


def _spread(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.0f} ms (at most {1000 * max(seconds):.0f})"


if __name__ == "__main__":
    main()
