"""Exports are read and sent in pieces: only a few rows are in memory at a time."""

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pandas as pd
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Scope

from tests.dashboard.conftest import app_for
from tuner.answers.sheets import contents, export
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages import documents
from tuner.results import Results, TrialRow, trial_rows
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.database import Database

BATCH = 5
ENDINGS = ("csv", "json", "parquet", "xlsx", "md", "tex")
EXPORT: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/studies/lr_sched/export.csv",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1:8080")],
    "client": ("127.0.0.1", 4711),
    "server": ("127.0.0.1", 8080),
}
"""A request for a study's trials."""


class Rows:
    """Records which rows have been read, and how many were in memory at a time."""

    def __init__(self) -> None:
        self.read = 0
        self.most = 0
        self._alive: WeakSet[TrialRow] = WeakSet()

    def note(self, *asked: Any, **more: Any) -> list[TrialRow]:
        """Read rows, and count them."""
        rows = trial_rows(*asked, **more)
        self.read += len(rows)
        for row in rows:
            self._alive.add(row)
        self.most = max(self.most, len(self._alive))
        return rows


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Read a few rows at a time, send each at once, and count them."""
    rows = Rows()
    monkeypatch.setattr(contents, "BATCH", BATCH)
    monkeypatch.setattr(export, "PIECE", 1)
    monkeypatch.setattr(contents, "trial_rows", rows.note)
    # Rows with equal cells are equal; here each must count.
    monkeypatch.setattr(TrialRow, "__hash__", object.__hash__)
    monkeypatch.setattr(TrialRow, "__eq__", object.__eq__)
    return rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_few_rows_are_in_memory(pages: TestClient, rows: Rows, ending: str) -> None:
    """In every format each row is read once, and freed when it has been written."""
    answer = pages.get(f"/studies/lr_sched/export.{ending}")
    assert answer.status_code == 200
    assert rows.read == 45
    assert rows.most <= 2 * BATCH


def test_pieces_are_put_together_again(pages: TestClient, rows: Rows) -> None:
    """CSV, JSON, Parquet and Excel have the study's rows and values, however split in pieces."""
    query = "?q=val_acc>0.5&sort=-val_acc"
    csv, told, parquet, excel = (
        pages.get(f"/studies/lr_sched/export.{ending}{query}").content
        for ending in ("csv", "json", "parquet", "xlsx")
    )
    frame = pd.read_csv(io.BytesIO(csv))
    assert rows.read == 4 * len(frame) > 0
    assert list(frame["val_acc"]) == sorted(frame["val_acc"], reverse=True)
    assert [row["trial"] for row in json.loads(told)] == list(frame["trial"])
    for other in (pd.read_parquet(io.BytesIO(parquet)), pd.read_excel(io.BytesIO(excel))):
        assert list(other["trial"]) == list(frame["trial"])
        assert list(other["val_loss"]) == pytest.approx(list(frame["val_loss"]))


@pytest.fixture
def app(stored: Database) -> Iterator[tuple[ASGIApp, Desk]]:
    """Return the dashboard as an ASGI app, with its desk."""
    desk = Desk(stored)
    yield app_for(desk), desk
    desk.close()


def test_a_client_that_goes_away_ends_the_reading(app: tuple[ASGIApp, Desk], rows: Rows) -> None:
    """If the client goes away the rest is not read; the connection and the export slot are free."""
    dashboard, desk = app
    asked = 0

    async def visit() -> None:
        gone = asyncio.Event()

        async def receive() -> Message:
            nonlocal asked
            asked += 1
            if asked > 1:
                await gone.wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                gone.set()
                await asyncio.sleep(0)  # a client that reads nothing more

        await dashboard(dict(EXPORT), receive, send)

    asyncio.run(visit())
    assert 0 < rows.read < 45
    assert not documents.EXPORTING.locked()
    assert desk._slow.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_client_that_takes_nothing_is_left(
    app: tuple[ASGIApp, Desk], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads nothing holds the export slot for some seconds only."""
    monkeypatch.setattr(documents, "TAKING", 0.05)
    dashboard, _ = app
    sent: list[Message] = []

    class StuckError(Exception):
        """Raised instead of waiting for ever."""

    async def visit() -> None:
        async def receive() -> Message:
            await asyncio.sleep(60)
            raise StuckError

        async def send(message: Message) -> None:
            sent.append(message)
            if len(sent) == 3:
                await asyncio.sleep(60)
                raise StuckError

        await dashboard(dict(EXPORT), receive, send)

    asyncio.run(visit())
    assert sent[-1]["more_body"], "the client must see that something is missing"
    assert rows.read < 45
    assert not documents.EXPORTING.locked()


def test_chosen_in_sql_is_chosen_as_ever(stored: Database) -> None:
    """Rows chosen in SQL without conditions are those of `tuner export --wide`."""
    with stored.snapshot() as connection:
        study = studies.find(connection, StudyRef("everything"))
        results = Results(connection, study)
        whole, walked = contents.trials(results, wide=True), contents.chosen_trials(results)
        assert walked.columns == whole.columns
        assert export.as_csv(walked.columns, walked.rows) == export.as_csv(
            whole.columns, whole.rows
        )
