"""Messages arrive as sent, and an invalid one is reported as such."""

import contextlib
import json
import math
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuner.work.messages import GarbledError, Message, receive, send

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ARRAYS = st.sampled_from(["<f4", "<f8", "<i8", ">f4", ">i8"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)


@contextlib.contextmanager
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Open both ends of a channel."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def through(message: Message) -> Message | None:
    """Send a message and receive it at the other end."""
    with channel() as (ours, theirs):
        sender = threading.Thread(target=send, args=(ours, message))
        sender.start()
        heard = receive(theirs)
        sender.join()
        return heard


def hear(raw: bytes) -> Message | None:
    """Receive from a sender that writes these bytes and exits."""
    with channel() as (ours, theirs):

        def write() -> None:
            with contextlib.suppress(OSError):
                ours.sendall(raw)
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=write)
        sender.start()
        try:
            return receive(theirs)
        finally:
            theirs.close()
            sender.join()


def header(**parts: Any) -> bytes:
    """Make a message with a header only."""
    raw = json.dumps(parts).encode()
    return struct.pack(">I", len(raw)) + raw


def same(left: Any, right: Any) -> bool:
    """Compare JSON values so that NaN equals NaN."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


@given(kind=st.text(), body=st.dictionaries(st.text(), PLAIN, max_size=4))
def test_a_body_arrives_as_it_was_sent(kind: str, body: dict[str, Any]) -> None:
    """Kind and body arrive unchanged, with NaN and lone surrogates."""
    heard = through(Message(kind, body))
    assert heard is not None
    assert heard.kind == kind
    assert same(heard.body, body)


@given(arrays=st.lists(ARRAYS, max_size=4))
def test_arrays_arrive_as_they_were_sent(arrays: list[Any]) -> None:
    """Values and shapes arrive unchanged, for any byte order and shape."""
    heard = through(Message("arrays", {}, arrays))
    assert heard is not None
    assert len(heard.arrays) == len(arrays)
    for got, sent in zip(heard.arrays, arrays, strict=True):
        assert got.shape == sent.shape
        assert np.array_equal(got, sent, equal_nan=sent.dtype.kind == "f")


def test_an_array_need_not_be_contiguous() -> None:
    """A transposed view arrives with its values in order."""
    sent = np.arange(6, dtype=np.float32).reshape(2, 3).T
    heard = through(Message("arrays", {}, [sent]))
    assert heard is not None
    assert np.array_equal(heard.arrays[0], sent)


def test_messages_follow_one_another() -> None:
    """Several messages are separated, and the end is None."""
    with channel() as (ours, theirs):
        for number in range(3):
            send(ours, Message("count", {"number": number}, [np.ones(number)]))
        ours.close()
        heard = [receive(theirs) for _ in range(3)]
        assert [one.body["number"] for one in heard if one] == [0, 1, 2]
        assert receive(theirs) is None


@given(raw=st.binary(max_size=200))
def test_garbage_is_a_message_an_end_or_garbled(raw: bytes) -> None:
    """Any bytes give one of the three known answers."""
    with contextlib.suppress(GarbledError):
        hear(raw)


@given(text=st.text(max_size=50) | PLAIN.map(json.dumps))
def test_a_header_of_anything_is_garbled(text: str) -> None:
    """A well-framed header that is not ours is reported as garbled."""
    raw = text.encode(errors="replace")
    with pytest.raises(GarbledError):
        hear(struct.pack(">I", len(raw)) + raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x00",
        b"\xff\xff\xff\xff" + b"x" * 20,
        struct.pack(">I", 50) + b"{",
        header(kind="x", body={}),
        header(kind="x", arrays=[]),
        header(body={}, arrays=[]),
        header(kind="x", body=3, arrays=[]),
        header(kind="x", body={}, arrays=3),
        header(kind="x", body={}, arrays=[3]),
        header(kind="x", body={}, arrays=[{"dtype": "<f4"}]),
        header(kind="x", body={}, arrays=[{"dtype": "O", "shape": [1]}]),
        header(kind="x", body={}, arrays=[{"dtype": ["<f4"], "shape": [1]}]),
        header(kind="x", body={}, arrays=[{"dtype": "<f4", "shape": [-1]}]),
        header(kind="x", body={}, arrays=[{"dtype": "<f4", "shape": [math.inf]}]),
        header(kind="x", body={}, arrays=[{"dtype": "<f4", "shape": [10**12]}]),
        header(kind="x", body={}, arrays=[{"dtype": "<f4", "shape": [2]}]) + b"1234",
        struct.pack(">I", 200_000) + b"[" * 200_000,
    ],
)
def test_broken_messages_are_garbled(raw: bytes) -> None:
    """Cut, oversized or incomplete messages and forbidden types are all reported as garbled."""
    with pytest.raises(GarbledError):
        hear(raw)


def test_nothing_is_unpickled() -> None:
    """An object array, which only pickle could carry, is refused on both sides."""
    with pytest.raises(GarbledError):
        through(Message("arrays", {}, [np.array(["text"])]))
