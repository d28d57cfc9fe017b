"""`tuner clean`: deletes checkpoints that are no longer useful."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo, echo_json
from tuner.errors import EXIT_DONE, DatabaseError, TunerError
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.train.checkpoints.space import StoredCheckpoint
    from tuner.train.checkpoints.tree import Tree


@click.command(epilog=options.examples("tuner clean --dry-run"))
@click.option("--dry-run", is_flag=True, help="Only show what would be freed.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Remove all checkpoints of finished trials, even useful ones.",
)
@click.option(
    "--foreign",
    is_flag=True,
    help="Also remove checkpoints of studies that are not in this database.",
)
@options.json_option
@click.pass_obj
def clean(
    settings: Settings, *, dry_run: bool, everything: bool, foreign: bool, as_json: bool
) -> int:
    """Delete checkpoints that are no longer useful.

    Keeps the newest checkpoint of every running trial, those where other
    settings branch off, and the last one of every finished trial, as far as
    the size limit allows. Also deletes files left behind by crashed
    processes. A missing checkpoint costs time, never a result. A location
    that does not respond is reported and skipped.
    """
    from tuner.train.checkpoints.timely import TimelyPlace
    from tuner.train.checkpoints.tree import Tree
    from tuner.work.housekeeping import places, remove

    with options.open_database(settings) as database:
        told = []
        code = EXIT_DONE
        for place, limit in places(settings, database).items():
            try:
                tree = Tree(TimelyPlace(place, settings.timing.lookup))
                entries = _removable(tree, database, limit, everything=everything, foreign=foreign)
                orphans = tree.sweep(dry=dry_run)
                if not dry_run:
                    entries = remove(tree, database, entries)
                taken = sum(entry.bytes for entry in tree.listing())
            except DatabaseError:
                raise
            except TunerError as error:
                echo(f"Not cleaned: {error}", err=True)
                code = max(code, error.exit_code)
                continue
            freed = sum(e.bytes for e in entries) + sum(file.size for file in orphans)
            told.append((tree.name, len(entries), len(orphans), freed, taken))
    if as_json:
        names = ("location", "checkpoints", "orphans", "freed_bytes", "taken_bytes")
        echo_json([dict(zip(names, one, strict=True)) for one in told], indent=None)
        return code
    verb = "would free" if dry_run else "freed"
    for name, count, leftovers, freed, taken in told:
        echo(
            f"{name}: {verb} {_size(freed)} ({count} checkpoints, {leftovers} leftovers); "
            f"{_size(taken)} {'are in use' if dry_run else 'are still in use'}."
        )
    return code


def _removable(
    tree: "Tree", database: "Database", limit: int, *, everything: bool, foreign: bool
) -> "Sequence[StoredCheckpoint]":
    from tuner.work.housekeeping import survey

    room = survey(tree, database, limit)
    gone = {entry.key: entry for entry in room.removable}
    if everything:
        # A limit of 0 removes all checkpoints except those that the survey protects.
        running = set(room.running)
        free = [e for e in room.entries if e.key not in room.promised]
        gone |= {e.key: e for e in free if e.owner not in running}
        gone = {key: e for key, e in gone.items() if foreign or e not in room.foreign}
    if foreign:
        gone |= {entry.key: entry for entry in room.foreign}
    return list(gone.values())


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
