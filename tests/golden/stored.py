"""The stored studies, loaded into a test's own database.

They were trained once (`record`) and are fixed data since: training's last bits differ between
CPUs. The file is SQL in pg_dump's plain form at the schema revision of that day. The product's own
migrations upgrade it.
"""

import io
import lzma
import re
from pathlib import Path
from typing import Any

import psycopg2

from tuner.store import schema
from tuner.store.address import Address
from tuner.store.database import Database

STUDIES = Path(__file__).parent / "studies.sql.xz"

COPY = re.compile(r"^(COPY [^\n]* FROM stdin;)\n(.*?)^\\\.\n", re.MULTILINE | re.DOTALL)
"""A table's rows, between its COPY and a line with a backslash and a full stop."""

LIVE = """
UPDATE tuner.worker SET seen = clock_timestamp() + interval '1 hour'
WHERE study_id IN (SELECT study_id FROM tuner.study WHERE name = 'running') AND ended IS NULL;
UPDATE tuner.lease SET renewed = clock_timestamp(), expires = clock_timestamp() + interval '1 hour'
WHERE study_id IN (SELECT study_id FROM tuner.study WHERE name = 'running') AND state = 'held';
"""
"""The workers of the study `running` count as alive for as long as the tests may take. By the
server's clock, a worker last seen 20 s ago is gone.
"""


def load(address: Address, *, writable: bool = False) -> None:
    """Fill an empty database with the stored studies, and upgrade it to the current schema.

    Unless it is to be writable, a command that writes to it fails from then on.
    """
    text = lzma.decompress(STUDIES.read_bytes()).decode()
    parameters: dict[str, Any] = dict(address.parameters)
    connection = psycopg2.connect("", **parameters)
    try:
        with connection, connection.cursor() as cursor:
            end = 0
            for match in COPY.finditer(text):
                _execute(cursor, text[end : match.start()])
                cursor.copy_expert(match[1], io.StringIO(match[2]))
                end = match.end()
            _execute(cursor, text[end:])
    finally:
        connection.close()
    with Database(address) as database:
        schema.ensure(database)
        with database.transaction() as opened:
            opened.exec_driver_sql(LIVE)
    if writable:
        return
    connection = psycopg2.connect("", **parameters)
    connection.autocommit = True
    try:
        name = address.parameters["dbname"]
        connection.cursor().execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    finally:
        connection.close()


def _execute(cursor: "psycopg2.extensions.cursor", statements: str) -> None:
    if statements.strip():
        cursor.execute(statements)
