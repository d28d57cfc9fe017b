"""What `tuner check` found is kept with its study."""

from tests.store.specs import Bench, make_spec
from tuner.store import checks
from tuner.store.database import Database


def test_the_newest_examination_is_found(database: Database) -> None:
    """Of several examinations the last one counts; one of another study does not."""
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
