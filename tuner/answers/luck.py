"""How much of the winner's figure is luck of having been picked, from what is stored of a study."""

from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from tuner.results.designs import Level
from tuner.results.measures import MEASURES, Measure
from tuner.results.rows import TrialRow
from tuner.results.samples import Source
from tuner.statistics.selection_bias import SelectionBias, Tried, selection_bias
from tuner.store.studies import Study

VALUES_MOST = 20_000_000
BEST_MOST = 1_000
"""Per-image values, and trials, that are resampled to see the images' luck."""


def luck_of_winner(
    connection: sa.Connection, study: Study, leaders: Sequence[TrialRow]
) -> SelectionBias | None:
    """Return the luck in the best trial's figure; `leaders` are ranked, the best first.

    None where nothing was picked, or where the trials have not the same images.
    """
    measure: Measure = MEASURES[study.spec.search.metric]
    source = Source(connection, study, measure, study.spec.search.at)
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
        settings=_places(study, leaders),
        best=np.array(best),
        values=np.array([values[rows[at]["trial"]] for at in best]),
    )
    return selection_bias(tried, larger=measure.larger)


def _places(study: Study, rows: Sequence[TrialRow]) -> NDArray[np.int64]:
    """Number the settings of the trials."""
    names: dict[tuple[Level, ...], int] = {}
    cells = (tuple(row[name] for name in study.spec.varied) for row in rows)
    return np.array([names.setdefault(cell, len(names)) for cell in cells])
