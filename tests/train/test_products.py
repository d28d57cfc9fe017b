"""oneDNN's products are equal to rounding, for any memory layout of their matrices."""

import pytest
import torch
from torch import Tensor

from tuner.train import products
from tuner.train.products import product


def layouts(matrix: Tensor) -> list[Tensor]:
    """Return a matrix by rows, by columns, and as a strided member of a pack."""
    between = torch.zeros(len(matrix), 3, matrix.shape[1])
    between[:, 1] = matrix
    return [matrix, matrix.t().contiguous().t(), between[:, 1]]


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="torch lacks oneDNN",
)
@pytest.mark.parametrize("sizes", [(32, 128, 64), (64, 32, 256), (1, 300, 2), (3, 1, 5)])
def test_a_product_in_every_layout(
    sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without an offset, into a given or a new array; always the same bits."""
    monkeypatch.setattr(products, "uses_onednn", lambda: True)
    monkeypatch.setattr(products, "WORTHWHILE", 1)
    rows, inner, columns = sizes
    chance = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(*shape, generator=chance) for shape in ((rows, inner), (inner, columns))
    )
    offset = torch.randn(1, columns, generator=chance)
    exact = left.double() @ right.double()
    with torch.inference_mode():
        for given in (None, offset):
            expected = exact if given is None else exact + given
            seen = [product(one, other, given) for one in layouts(left) for other in layouts(right)]
            room = torch.empty(rows, columns)
            assert product(left, right, given, room) is room
            for found in (*seen, room):
                torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
            by_rows, by_columns, between = seen[:3]
            assert torch.equal(by_rows, between)
            assert torch.equal(by_columns, seen[4])


def test_small_or_double_products_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN is slower for small products, and has no 64-bit ones."""
    monkeypatch.setattr(products, "uses_onednn", lambda: True)
    large = torch.ones(128, 128)
    assert products._by_onednn(large, torch.ones(128, 128))
    assert not products._by_onednn(large[:8], torch.ones(128, 128))
    assert not products._by_onednn(large.double(), torch.ones(128, 128).double())
