"""`tuner.open` on errors: clear messages, and nothing left open."""

import pytest

import tuner
from tests.answers.fabricate import fabricate
from tests.store.specs import make_spec
from tuner.errors import DatabaseUnreachableError, UnknownStudyError
from tuner.settings import Settings
from tuner.store.database import Database


def test_a_server_that_is_away_is_told_in_one_line() -> None:
    """The message has no SQL and no link, only the address that did not answer."""
    with pytest.raises(DatabaseUnreachableError, match="cannot be reached") as told:
        tuner.open("lr_sched", database="postgresql://nobody@127.0.0.1:9/none")
    assert "sqlalche.me" not in str(told.value)


def test_an_unknown_study_is_told_and_a_known_one_opened(
    settings: Settings, database: Database
) -> None:
    """An unknown name is refused; a study without trials gives empty frames with columns."""
    url = str(settings.database_url)
    with pytest.raises(UnknownStudyError, match="no study 'nowhere'"):
        tuner.open("nowhere", database=url)
    fabricate(database, make_spec("empty"), lambda *_: None, data={})
    with tuner.open("empty", database=url) as study:
        assert repr(study) == "<tuner study empty@1>"
        assert len(study.trials) == 0
        assert "test_acc" in study.trials.columns
