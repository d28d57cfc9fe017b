"""The order of shares: rarely wrong by chance, for any number of pairs, and found if clear."""

import numpy as np

from tuner.statistics.ordering import precedence


def drawn(means: np.ndarray, draws: int = 300, seed: int = 1, spread: float = 1.0) -> np.ndarray:
    """Return draws of columns around means that are themselves random."""
    chance = np.random.default_rng(seed)
    seen = means + spread * chance.standard_normal(len(means))
    return np.asarray(seen + spread * chance.standard_normal((draws, len(means))))


def test_equal_shares_are_seldom_put_in_an_order() -> None:
    """Of 300 sets of eight equal columns about 5 of 100 get any order."""
    wrong = sum(bool(precedence(drawn(np.zeros(8), seed=seed))) for seed in range(300))
    assert wrong <= 0.08 * 300


def test_what_is_far_ahead_is_said_to_be() -> None:
    """A column ten standard errors above the others is ahead of each, with no other order."""
    found = precedence(drawn(np.array([0.0, 10.0, 0.0, 0.0])))
    assert set(found) == {(1, 0), (1, 2), (1, 3)}


def test_what_moves_together_drops_out() -> None:
    """Of two columns with large variance and a constant difference the higher one is ahead."""
    shared = 20 * np.random.default_rng(3).standard_normal((200, 1))
    assert precedence(np.hstack([shared, shared + 1.0])) == ((1, 0),)


def test_equal_draws_have_no_order() -> None:
    """Columns without variance have no order if they are equal, otherwise one."""
    assert precedence(np.ones((50, 2))) == ()
    assert precedence(np.tile([1.0, 2.0], (50, 1))) == ((1, 0),)
