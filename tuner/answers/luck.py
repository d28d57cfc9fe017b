"""How much of the winner's figure is luck of having been picked, from what is stored of a study."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.results.designs import Level
from tuner.results.measures import MEASURES
from tuner.results.results import Results, once
from tuner.results.rows import TrialRow
from tuner.results.samples import Source
from tuner.statistics.selection_bias import SelectionBias, Tried, selection_bias

VALUES_MOST = 20_000_000
BEST_MOST = 1_000
"""Per-image values, and trials, that are resampled to see the images' luck."""


@once
def luck_of_winner(results: Results) -> SelectionBias | None:
    """Return the selection bias of the best trial's figure.

    None where there was no choice, or where the trials have not the same images.
    """
    measure, leaders = MEASURES[results.spec.search.metric], results.ranked
    source = Source(results, measure)
    if len(leaders) < 2 or not source.same_images([row["trial"] for row in leaders]):
        return None
    # The leaders come first; those far behind are never picked, and their images not needed.
    rows = leaders[: max(2, min(BEST_MOST, VALUES_MOST // max(1, source.units())))]
    values = {number: found for number, _, found in source.values([row["trial"] for row in rows])}
    best = [at for at, row in enumerate(rows) if row["trial"] in values]
    if len(best) < 2:
        return None
    tried = Tried(
        means=np.array([float(row.value or 0.0) for row in leaders]),
        settings=_places(results, leaders),
        best=np.array(best),
        values=np.array([values[rows[at]["trial"]] for at in best]),
    )
    return selection_bias(tried, larger=measure.larger)


def _places(results: Results, rows: Sequence[TrialRow]) -> NDArray[np.int64]:
    """Number the settings of the trials."""
    names: dict[tuple[Level, ...], int] = {}
    cells = (tuple(row[name] for name in results.spec.varied) for row in rows)
    return np.array([names.setdefault(cell, len(names)) for cell in cells])
