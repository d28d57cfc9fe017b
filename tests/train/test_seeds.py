"""Randomness is a function of seed, purpose and epoch."""

import torch

from tuner.train.seeds import derive, permutation


def test_derived_seeds_are_the_same_in_every_process() -> None:
    """They are pinned: a change would silently change every result and every checkpoint."""
    assert derive(0, "init") == 4213802666853728012
    assert derive(7, "order", 3) == 2396369170524145093


def test_seeds_differ_by_seed_purpose_and_epoch() -> None:
    """No two of a thousand derived seeds are equal."""
    derived = {
        derive(seed, purpose, epoch)
        for seed in range(10)
        for purpose in ("init", "order")
        for epoch in range(50)
    }
    assert len(derived) == 1000


def test_an_order_depends_on_nothing_drawn_before() -> None:
    """An epoch's order is the same whatever was drawn meanwhile; another epoch's differs."""
    first = permutation(100, seed=1, epoch=2)
    torch.rand(10)
    assert torch.equal(first, permutation(100, seed=1, epoch=2))
    assert not torch.equal(first, permutation(100, seed=1, epoch=3))
    assert sorted(first.tolist()) == list(range(100))
