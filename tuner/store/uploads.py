"""Predictions too large for one statement: sent in pieces, then linked by a short transaction.

    upload      one attempt's pieces: trial, token, total bytes
      piece     at most a megabyte of one array; sent by binary COPY, each in its own transaction
    prediction  its token names the upload whose pieces hold its array

A value of 200 MB takes minutes on a slow line. Sent inside a transaction, it would lock the trial's
lease row all that time, and the server would end the session because its transaction is idle. So
the pieces are sent first, and only the transaction that ends the trial is fenced: it links an
upload by its own token. Pieces of a replaced token are never linked; they are deleted with their
upload when the next attempt begins its own or the trial ends.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import psycopg2
import sqlalchemy as sa
from numpy.typing import NDArray
from psycopg2 import errors
from sqlalchemy.dialects.postgresql import insert

from tuner.records import Dataset, Predictions
from tuner.store import tables as t
from tuner.store.ledger.leases import Lease, LeaseLostError
from tuner.store.ledger.transactions import Transaction

INLINE_BYTES = 2**16
"""Larger arrays are sent in pieces. This much takes less than ten seconds, the server's limit
for an idle transaction, at 100 kbit/s."""
PIECE_BYTES = 2**20
"""This much takes less than a minute, the server's limit for a statement, at 150 kbit/s."""
COPY = (
    f"COPY {t.SCHEMA}.piece (trial_id, token, split, moment, number, content) "
    "FROM STDIN (FORMAT binary)"
)

Progress = Callable[[int, int], None]
"""Called after each piece with the bytes stored so far and the total."""


def is_large(predictions: Predictions) -> bool:
    """Whether an array is sent in pieces."""
    return predictions.log_probabilities.nbytes > INLINE_BYTES


def has_large_labels(data: Dataset) -> bool:
    """Whether the labels of a data set are too large for a transaction that locks a lease."""
    return any(
        labels.labels.nbytes + sum(map(len, labels.ids)) > INLINE_BYTES for labels in data.labels
    )


def begin(transaction: Transaction, lease: Lease, large: Sequence[Predictions]) -> bool:
    """Start an attempt's upload and drop earlier ones; return False if the trial has ended."""
    if transaction.hold(lease) == "ended":
        return False
    drop(transaction.connection, lease.trial_id, but=lease.token)
    total = sum(predictions.log_probabilities.nbytes for predictions in large)
    row = insert(t.upload).values(trial_id=lease.trial_id, token=lease.token, bytes=total)
    transaction.connection.execute(row.on_conflict_do_nothing())
    return True


def send(
    connection: sa.Connection, lease: Lease, large: Sequence[Predictions], progress: Progress
) -> None:
    """Store the pieces that are not stored yet, each in its own transaction.

    It may be repeated after any error: stored pieces are not sent again.
    """
    stored = {
        (row.split, row.moment, row.number)
        for row in connection.execute(
            sa.select(t.piece.c.split, t.piece.c.moment, t.piece.c.number).where(_of(lease))
        )
    }
    total = sum(predictions.log_probabilities.nbytes for predictions in large)
    sent = 0
    progress(sent, total)
    for predictions in large:
        for number, content in enumerate(_pieces(predictions.log_probabilities)):
            if (predictions.split, predictions.at, number) not in stored:
                _copy(connection, lease, (predictions.split, predictions.at, number), content)
            sent += len(content)
            progress(sent, total)


def check_whole(connection: sa.Connection, lease: Lease, predictions: Predictions) -> None:
    """Raise an error unless all pieces of an array are stored."""
    size = sa.func.coalesce(sa.func.sum(sa.func.octet_length(t.piece.c.content)), 0)
    mine = (
        _of(lease) & (t.piece.c.split == predictions.split) & (t.piece.c.moment == predictions.at)
    )
    stored = int(connection.execute(sa.select(size).where(mine)).scalar_one())
    if stored != predictions.log_probabilities.nbytes:
        raise RuntimeError(
            f"{stored:,} of {predictions.log_probabilities.nbytes:,} bytes of the "
            f"{predictions.split} predictions are stored; they must be whole before the trial ends"
        )


def drop(connection: sa.Connection, trial_id: int, *, but: int) -> None:
    """Remove the pieces of attempts with other tokens."""
    # A replaced holder may still be sending. Its next piece violates the foreign key to the
    # deleted upload, which tells it that it has lost the lease.
    connection.execute(
        sa.delete(t.upload).where(t.upload.c.trial_id == trial_id, t.upload.c.token != but)
    )


def array(connection: sa.Connection, row: Any, images: int) -> NDArray[np.float32]:
    """Return the array of a prediction, from its row or its pieces: (images, classes).

    The row has trial_id, token, split, moment, classes and log_probabilities.
    """
    if row.log_probabilities is not None:
        logs = np.frombuffer(row.log_probabilities, dtype="<f4")
        return logs.reshape(images, row.classes).astype(np.float32, copy=False)
    logs_in_pieces = np.empty((images, row.classes), dtype="<f4")
    room, filled = logs_in_pieces.reshape(-1).view(np.uint8).data, 0
    contents = connection.execute(
        sa.select(t.piece.c.content)
        .where(
            t.piece.c.trial_id == row.trial_id,
            t.piece.c.token == row.token,
            t.piece.c.split == row.split,
            t.piece.c.moment == row.moment,
        )
        .order_by(t.piece.c.number)
        .execution_options(yield_per=8)
    )
    for content in contents.scalars():
        room[filled : filled + len(content)] = content
        filled += len(content)
    if filled != len(room):
        raise RuntimeError(f"{filled:,} of {len(room):,} bytes of a prediction are stored")
    return logs_in_pieces.astype(np.float32, copy=False)


def _of(lease: Lease) -> sa.ColumnElement[bool]:
    return (t.piece.c.trial_id == lease.trial_id) & (t.piece.c.token == lease.token)


def _pieces(logs: NDArray[np.float32]) -> Iterator[memoryview]:
    plain = np.ascontiguousarray(logs, dtype="<f4")
    content = plain.reshape(-1).view(np.uint8).data
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


def _copy(
    connection: sa.Connection, lease: Lease, key: tuple[str, str, int], content: memoryview
) -> None:
    split, moment, number = key
    fields = (
        struct.pack(">i", lease.trial_id),
        struct.pack(">i", lease.token),
        split.encode(),
        moment.encode(),
        struct.pack(">i", number),
        content,
    )
    # PostgreSQL's binary COPY: signature, flags, no extension; a row; the end.
    stream = BytesIO()
    stream.write(b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0))
    stream.write(struct.pack(">h", len(fields)))
    for column in fields:
        stream.write(struct.pack(">i", len(column)))
        stream.write(column)
    stream.write(struct.pack(">h", -1))
    stream.seek(0)
    driver: Any = connection.connection.dbapi_connection
    try:
        with driver.cursor() as cursor:
            cursor.copy_expert(COPY, stream, size=2**16)
    except errors.UniqueViolation:
        return  # sent on an earlier connection that broke after the server had received it
    except errors.ForeignKeyViolation:
        raise LeaseLostError(f"trial {lease.number} has another holder") from None
    except psycopg2.Error as error:
        # As SQLAlchemy would have raised it, so that all errors are handled alike.
        raise sa.exc.DBAPIError(COPY, None, error) from error
