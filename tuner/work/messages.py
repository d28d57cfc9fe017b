"""Messages between supervisor and trainer: length-prefixed JSON, then raw arrays.

    4 bytes   length of the header, big-endian
    header    JSON: {"kind": ..., "body": {...}, "arrays": [{"dtype", "shape"}, ...]}
    arrays    their bytes, one after the other, C order, little-endian

Nothing is unpickled: a trainer runs objectives, which are other people's code.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LIMIT = 64 * 2**20
ARRAYS_LIMIT = 8 * 2**30
DTYPES = frozenset({"<f4", "<f8", "<i8"})

_LENGTH = struct.Struct(">I")


class GarbledError(Exception):
    """An invalid message arrived: the other side is broken, or is not a trainer."""


class TornError(GarbledError):
    """The channel ended inside a message: the other side died while it was sending."""


@dataclass(frozen=True)
class Message:
    """One message: its kind, a JSON body, and arrays."""

    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    arrays: Sequence[NDArray[Any]] = ()


def send(channel: socket.socket, message: Message) -> None:
    """Write one message; raises OSError when the other side is gone."""
    arrays = [_portable(array) for array in message.arrays]
    header = json.dumps(
        {
            "kind": message.kind,
            "body": message.body,
            "arrays": [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays],
        }
    ).encode()
    channel.sendall(_LENGTH.pack(len(header)) + header)
    for array in arrays:
        channel.sendall(array.reshape(-1).view(np.uint8).data)


def receive(channel: socket.socket) -> Message | None:
    """Read one message, or None when the other side has closed the channel."""
    start = _read(channel, _LENGTH.size)
    if not start:
        return None
    if len(start) < _LENGTH.size:
        raise TornError("the channel broke inside a message")
    (length,) = _LENGTH.unpack(start)
    if length > HEADER_LIMIT:
        raise GarbledError(f"a header of {length} bytes is too long")
    header = _decode(_whole(channel, length))
    try:
        arrays = [_array(channel, described) for described in header["arrays"]]
        return Message(str(header["kind"]), dict(header["body"]), arrays)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise GarbledError(f"a message is incomplete: {error}") from None


def _portable(array: NDArray[Any]) -> NDArray[Any]:
    # ascontiguousarray turns a scalar into a row; restore the shape.
    portable = np.ascontiguousarray(array).reshape(array.shape)
    return portable.astype(portable.dtype.newbyteorder("<"), copy=False)


def _array(channel: socket.socket, described: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = described["dtype"], tuple(int(size) for size in described["shape"])
    if dtype not in DTYPES or any(size < 0 for size in shape):
        raise GarbledError(f"an array of {dtype!r} {shape} is invalid")
    count = 1
    for size in shape:
        count *= size
    length = count * np.dtype(dtype).itemsize
    if length > ARRAYS_LIMIT:
        raise GarbledError(f"an array of {length} bytes is too long")
    return np.frombuffer(_whole(channel, length), dtype=dtype).reshape(shape)


def _decode(raw: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise GarbledError(f"a header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise GarbledError("a header is not a JSON object")
    return header


def _whole(channel: socket.socket, length: int) -> bytearray:
    data = _read(channel, length)
    if len(data) < length:
        raise TornError("the channel broke inside a message")
    return data


def _read(channel: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view, done = memoryview(buffer), 0
    while done < length:
        count = channel.recv_into(view[done:], min(length - done, 2**20))
        if count == 0:
            return buffer[:done]
        done += count
    return buffer
