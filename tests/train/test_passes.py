"""An epoch is cut into batches that contain every image once."""

from hypothesis import given
from hypothesis import strategies as st

from tuner.train.passes import evaluation_bounds, training_bounds

COUNTS = st.integers(1, 500)
SIZES = st.integers(1, 64)


@given(COUNTS, SIZES)
def test_batches_cover_every_image_once(count: int, size: int) -> None:
    """Bounds join without gap or overlap, and only the last batch differs in size."""
    for bounds in (training_bounds(count, size), evaluation_bounds(count, size)):
        assert [i for start, stop in bounds for i in range(start, stop)] == list(range(count))
        assert all(stop - start == size for start, stop in bounds[:-1])


@given(st.integers(2, 500), st.integers(2, 64))
def test_training_has_no_batch_of_one(count: int, size: int) -> None:
    """A single last image joins the batch before it; in an evaluation it stays alone."""
    assert all(stop - start >= 2 for start, stop in training_bounds(count, size))
    start, stop = evaluation_bounds(count, size)[-1]
    assert stop - start == (count % size or size)
