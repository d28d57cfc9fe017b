"""Correction for having asked several questions at once."""

from collections.abc import Sequence


def holm(chances: Sequence[float]) -> list[float]:
    """Return p values corrected so that any false alarm among them has the stated chance."""
    corrected = [0.0] * len(chances)
    worst = 0.0
    for place, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        worst = max(worst, min(1.0, chances[index] * (len(chances) - place)))
        corrected[index] = worst
    return corrected
