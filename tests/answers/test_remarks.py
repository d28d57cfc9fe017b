"""Remarks on networks that predict one class for all images or have squashed outputs."""

import numpy as np
import pytest

from tests.answers.fabricate import Images, Told, fabricate, hits
from tests.store.specs import make_spec
from tuner.answers.remarks import remarks
from tuner.records import Value
from tuner.results import trial_rows
from tuner.store.database import Database

LABELS = (np.arange(200) >= 190).astype(np.int64)
"""95% of class 0."""


@pytest.mark.parametrize(
    ("right", "told"),
    [
        (LABELS == 0, True),
        (LABELS == 1, True),
        (np.arange(200) != 195, False),
        ((LABELS == 0) & (np.arange(200) > 0), False),
    ],
    ids=["all of class 0", "all of class 1", "one wrong", "all of class 0 but one"],
)
def test_all_of_one_class_is_told(right: np.ndarray, told: bool, database: Database) -> None:
    """A network that predicts one class for all images is remarked on."""

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        test = hits(right if chosen["lr"] == 1e-3 else LABELS < 2, LABELS)
        return Told(logs={"val": hits(LABELS < 2, LABELS), "test": test})

    data = {"data-0": Images({"val": LABELS, "test": LABELS})}
    bench = fabricate(database, make_spec(), tell, data=data)
    with database.transaction() as connection:
        rows = trial_rows(connection, bench.study)
    said = list(remarks(rows))
    assert bool(said) == told
    if told:
        share = f"{100 * np.mean(right):.1f}%"
        assert said[0].startswith("In 1 of 3 complete trials (trial ")
        assert f"all test images are predicted as one class, so the accuracy ({share})" in said[0]
