"""A table in a narrow terminal: the settings go into one column, uncut."""

from tuner.answers.table import Table

WIDE = Table(
    ("loss", "lr", "batch_size", "step_size", "acc"),
    (("bce", "0.00536574", "16", "–", "0.9"), ("ce", "0.01", "16", "5", "0.8")),
    "a title",
    setting=range(4),
)


def test_a_setting_is_named_by_what_differs() -> None:
    """A setting's name has the values that differ, to three digits, without inactive ones."""
    folded = WIDE.folded
    assert folded.head == ("acc", "setting")
    assert folded.rows == (("0.9", "loss=bce lr=0.00537"), ("0.8", "loss=ce lr=0.01 step_size=5"))
    assert folded.title == WIDE.title
    assert list(folded.wrapped) == [1]


def test_a_single_row_has_all_values() -> None:
    """A single row has all values as its name, since nothing differs."""
    single = Table(WIDE.head, WIDE.rows[1:], setting=range(4)).folded
    assert single.rows == (("0.8", "loss=ce lr=0.01 batch_size=16 step_size=5"),)
