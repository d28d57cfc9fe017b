"""Filtering in PostgreSQL gives the same trials as an export, page by page."""

from itertools import product

import pytest

from tuner.answers.sheets.contents import Sheet
from tuner.errors import UserError
from tuner.results import FURTHER, Condition, page, read_query, trial_columns, trial_rows
from tuner.results.conditions import ORDERED
from tuner.results.paging import columns
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.studies import Study

STUDIES = ("everything", "failed", "running")
SIGNS = ("=", "!=", "<", "<=", ">", ">=", ":")
TRIED = {
    *(
        "trial",
        "state",
        "reason",
        "seed",
        "best_epoch",
        "val_loss",
        "last_test_acc",
        "last_val_loss",
        "gap",
    ),
    *("epochs_run", "device", "parameter_count", "scheduler", "lr", "optimizer", "loss", "dropout"),
}
"""Columns of every kind: of each table, of the parameters, varied and fixed."""
SLOPES = {"late_train_slope", "late_val_slope"}


def sheet_of(database: Database, study: Study) -> Sheet:
    """Return all columns of all trials, as an export has them."""
    names = (*trial_columns(study.spec), *FURTHER)
    with database.snapshot() as connection:
        rows = trial_rows(connection, study, further=True)
    return Sheet(names, [[row[name] for name in names] for row in rows])


def find(database: Database, name: str) -> Study:
    """Return a stored study."""
    with database.transaction() as connection:
        return studies.find(connection, StudyRef(name))


def values_of(sheet: Sheet, name: str) -> list[str]:
    """Return values to compare a column with: some that it contains, and some that it does not."""
    at = sheet.place(name)
    cells = [row[at] for row in sheet.rows if row[at] is not None]
    found = [str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in cells[:3]]
    return [*dict.fromkeys(found), "", "0.5", "complete", "true", "3"]


@pytest.mark.parametrize("name", STUDIES)
def test_conditions_mean_the_same_in_sql(stored: Database, name: str) -> None:
    """For every column, sign and value, SQL chooses the trials that `tuner export` does."""
    study = find(stored, name)
    sheet = sheet_of(stored, study)
    compared = chosen = 0
    with stored.snapshot() as connection:
        for column in TRIED & set(sheet.columns):
            for sign, text in product(SIGNS, values_of(sheet, column)):
                if sign in ORDERED and Condition("", "", text).number is None:
                    continue
                condition = Condition(column, sign, text)
                expected = [row[0] for row in sheet.where([condition]).rows]
                found = page(connection, study, [condition], size=1000)
                assert list(found.numbers) == expected, (column, sign, text)
                assert found.total == len(expected)
                compared += 1
                chosen += 0 < len(expected) < len(list(sheet.rows))
    assert compared > 300
    assert chosen > 20


@pytest.mark.parametrize("name", STUDIES)
def test_pages_in_every_order_have_every_trial_once(stored: Database, name: str) -> None:
    """Every order by every column, five trials per page, is the export's."""
    study = find(stored, name)
    sheet = sheet_of(stored, study)
    columns = (TRIED | {"started", "ended", "seconds", "val_auc"}) & set(sheet.columns)
    assert columns
    with stored.snapshot() as connection:
        for column in columns:
            for by in (column, f"-{column}"):
                expected = [row[0] for row in sheet.sorted(by).rows]
                found: list[int] = []
                after = ""
                while True:
                    one = page(connection, study, sort=by, after=after, size=5)
                    found += one.numbers
                    after = one.after
                    if not after:
                        break
                assert found == expected, by


def test_every_column_but_slopes_can_be_asked_for(stored: Database) -> None:
    """Every column of an export except slopes can be searched and sorted by."""
    study = find(stored, "everything")
    assert set(columns(study)) == set(trial_columns(study.spec)) | set(FURTHER) - SLOPES


def test_a_query_is_read() -> None:
    """Conditions are separated by spaces; a value with spaces is quoted."""
    assert read_query("lr > 1e-4 scheduler:step  reason='a b'") == (
        Condition("lr", ">", "1e-4"),
        Condition("scheduler", ":", "step"),
        Condition("reason", "=", "'a b'"),
    )
    assert read_query("  ") == ()
    assert Condition("state", ":", "pruned,FAILED").holds("FAILED")
    assert not Condition("state", ":", "pruned,failed").holds("COMPLETE")
    for wrong in ("lr", "lr >", "> 3", "lr>x", "a b", "lr>1 and", "'lr'>1"):
        with pytest.raises(UserError):
            read_query(wrong)
