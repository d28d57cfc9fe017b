"""Two settings of a study: their differences, and the same verdict as `compare`."""

import pytest

from tests.answers.test_setting_comparison import study
from tests.store.specs import Bench
from tuner.answers.plain import plain
from tuner.answers.setting_comparison import compare_settings
from tuner.answers.setting_diff import SettingDiff, diff_settings, figures_table, setting_named
from tuner.errors import UserError
from tuner.results import Results
from tuner.store.database import Database

BEST = "depth=2 lr=0.01 loss=bce"
POOR = "depth=1 lr=0.1 loss=focal"


def between(bench: Bench, one: str, other: str, metric: str | None = None) -> SettingDiff:
    """Compare two settings of a stored study."""
    with bench.database.transaction() as connection:
        return diff_settings(Results(connection, bench.study), (one, other), metric)


def test_the_verdict_is_that_of_compare(database: Database) -> None:
    """Difference and p value of the best against another equal those of the settings' table."""
    bench = study(database)
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        whole = compare_settings(results)
        assert whole is not None
        best, poor = str(whole.reference), setting_named(results, POOR)
    row = next(row for row in whole.rows if row.standing.level == POOR)
    assert row.against is not None
    found = between(bench, best, str(poor.rank))
    leading = found.figures[0]
    assert leading.measure.name == "val_acc"
    assert leading.difference == row.against.difference
    assert (leading.p_value, leading.differs) == (row.against.p_value, True)
    assert [change.name for change in found.changes] == [
        name for name in ("depth", "lr", "loss") if found.first.values[name] != poor.values[name]
    ]
    assert "is worse than" in found.verdict
    assert "corrected for comparing 8 settings" in found.verdict
    # On test the best is worse; in the other order every difference changes its sign.
    back = between(bench, POOR, best)
    assert back.figures[0].difference is not None
    assert leading.difference is not None
    assert back.figures[0].difference.value == -leading.difference.value
    assert back.figures[0].p_value == leading.p_value
    assert "is better than" in back.verdict.split("On test:")[0]
    assert "is worse than" in back.verdict.split("On test:")[1]
    assert {row[0] for row in figures_table(back).rows} >= {"val acc", "test acc", "gap"}
    assert plain(back)["settings"][1]["rank"] == 1


def test_a_single_seed_gives_no_verdict(database: Database) -> None:
    """With a single seed the answer says which is ahead, and that one seed is not enough."""
    single = study(database, seeds=1)
    said = between(single, BEST, POOR).verdict
    assert "a single seed cannot distinguish a better setting from chance" in said


def test_a_setting_that_lost_a_seed_is_not_compared(database: Database) -> None:
    """A setting that lost a seed ranks last whatever its mean; the verdict names missing seeds."""
    found = between(study(database, lost=True), BEST, POOR)
    assert found.figures[0].p_value is None
    assert f"{BEST.rsplit(' ', 1)[0]}" in found.verdict
    assert "1 diverged" in found.verdict


def test_settings_are_named_by_rank_or_by_values(database: Database) -> None:
    """Values that fit several settings or none, or one setting twice, are refused."""
    bench = study(database)
    for one, other, told in (
        ("1", "99", "there is no rank 99"),
        ("depth=2", "1", "4 settings of grid have depth=2; give lr and loss as well"),
        ("depth=7", "1", "no setting with depth=7"),
        ("dept=2", "1", "does not vary 'dept'"),
        (POOR, POOR.replace(" ", ","), "are the same setting"),
    ):
        with pytest.raises(UserError, match=told):
            between(bench, one, other)
    alone = between(bench, POOR, "1", "val_loss")
    assert [figure.measure.name for figure in alone.figures] == ["val_loss"]
