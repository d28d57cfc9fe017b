"""A server that receives notices."""

from collections.abc import Iterator

import pytest

from tests.harness.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Listen at a port of this machine."""
    with receiving() as found:
        yield found
