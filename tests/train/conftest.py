"""The blobs objective as a fixture."""

from pathlib import Path

import pytest

from tests.train.blobs import Blobs, write_blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """The blobs objective in its own folder."""
    return write_blobs(tmp_path)
