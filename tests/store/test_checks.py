"""The findings of `tuner check` are stored with their study."""

from tests.store.specs import Bench, make_spec
from tuner.store import checks
from tuner.store.database import Database


def test_the_newest_examination_is_found(database: Database) -> None:
    """Of several checks the newest counts; another study's does not."""
    bench, other = (Bench.launch(database, make_spec(name)) for name in ("small", "other"))
    with database.transaction() as connection:
        checks.keep(connection, bench.study.study_id, {"auc": 0.5})
        checks.keep(connection, bench.study.study_id, {"auc": 0.9, "words": ["naïve"]})
    with database.transaction() as connection:
        found = checks.latest(connection, bench.study.study_id)
        assert checks.latest(connection, other.study.study_id) is None
    assert found is not None
    assert found.body == {"auc": 0.9, "words": ["naïve"]}
    assert found.made.tzinfo is not None


def test_data_are_known_from_any_version(database: Database) -> None:
    """A check is found by data and objective; the newest counts, other studies' do not."""
    bench = Bench.launch(database, make_spec("small"))
    again = Bench.launch(database, make_spec("small", epochs=5), new_version=True)
    other = Bench.launch(database, make_spec("other"))
    here, there = {"image_size": 32}, {"image_size": 64}
    with database.transaction() as connection:
        for study, auc in ((bench, 0.5), (again, 0.9), (other, 0.1)):
            body = {"data": [{"data": here, "auc": auc}]}
            checks.keep(connection, study.study.study_id, body)
    with database.transaction() as connection:
        found = checks.of_data(connection, "small", "chest_xray", here)
        assert checks.of_data(connection, "small", "chest_xray", there) is None
        assert checks.of_data(connection, "small", "digits", here) is None
    assert found == {"data": here, "auc": 0.9}
