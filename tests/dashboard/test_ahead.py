"""Answers that are computed before any request for them."""

import logging

import pytest
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for
from tests.store.specs import Bench
from tuner.dashboard import ahead
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.curves import find_curves
from tuner.dashboard.pages.study import answered
from tuner.dashboard.pages.view import View
from tuner.store import control, studies
from tuner.store.database import Database


def test_the_first_reader_finds_answer_and_curves(stored: Database) -> None:
    """A prepared study's page has its answer and curves at once; another study's has neither."""
    desk = Desk(stored)
    desk.announcements.live = True  # nothing changes
    prepared = ahead.prepare_pages(desk, most=2)
    with stored.snapshot() as connection:
        every = {study.title: study for study in studies.listing(connection)}
        likely = [study.title for study in studies.foremost(connection, 2)]
    assert prepared == likely
    for title in prepared:
        study = every[title]
        found = answered(desk, study, patience=0.0)
        assert found is not None
        assert found.current
        curves = find_curves(desk, study, View.first(study), patience=0.0)
        assert curves is not None
    other = next(study for title, study in every.items() if title not in prepared)
    assert answered(desk, other, patience=0.0) is None
    with TestClient(app_for(desk), LOCAL) as client:
        # The page asks the same questions, so its first answer contains what was prepared.
        page = client.get(f"/studies/{prepared[0]}").text
    assert "<template data-drawn=" in page
    desk.close()


def test_archived_studies_are_left_alone(bench: Bench) -> None:
    """Nothing is prepared for an archived study."""
    control.archive(bench.database, bench.study, archived=True)
    desk = Desk(bench.database)
    assert ahead.prepare_pages(desk) == []
    desk.close()


def test_nothing_is_prepared_beyond_the_time_limit(stored: Database) -> None:
    """With a time limit of 0 nothing is prepared."""
    desk = Desk(stored)
    assert ahead.prepare_pages(desk, seconds=0.0) == []
    desk.close()


def test_a_database_that_is_away_is_told_and_nothing_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread ends with a warning; pages later compute their answers themselves."""
    monkeypatch.setattr(ahead, "LISTENING_SECONDS", 0.0)
    desk = Desk(bench.database)

    def away(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(desk, "read", away)
    with caplog.at_level(logging.WARNING):
        ahead.begin(desk).join(10)
    assert "no answers were prepared" in caplog.text
    desk.close()
