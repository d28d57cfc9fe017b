"""Fixtures of the store's tests: one small study with its ledger."""

import pytest

from tests.store.specs import Bench, make_spec
from tuner.store.database import Database


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a grid of three learning rates."""
    return Bench.launch(database, make_spec())
