"""An epoch is cut into batches that hold every image once."""

from hypothesis import given
from hypothesis import strategies as st

from tuner.train.passes import batch_bounds


@given(st.integers(1, 500), st.integers(1, 64), st.booleans())
def test_batches_cover_every_image_once(count: int, size: int, fold: bool) -> None:
    """Bounds join without gap or overlap, and only the last batch differs in size."""
    bounds = batch_bounds(count, size, fold)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(count))
    assert all(stop - start == size for start, stop in bounds[:-1])


@given(st.integers(2, 500), st.integers(2, 64))
def test_folding_leaves_no_batch_of_one(count: int, size: int) -> None:
    """With folding every batch has at least two images; without, a rest of one stays alone."""
    assert all(stop - start >= 2 for start, stop in batch_bounds(count, size, fold_single=True))
    start, stop = batch_bounds(count, size, fold_single=False)[-1]
    assert stop - start == (count % size or size)
