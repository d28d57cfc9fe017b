"""Two trials side by side: what differs, how sure that is, and the images that tell them apart."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from tuner.answers.pair import Pair, class_table, pair, pair_table
from tuner.answers.table import Table
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.errors import UserError
from tuner.records import SplitName, most_probable
from tuner.results import Results, by_number, trial_rows

APART_MOST = 100
"""Images on which two trials differ that are listed."""


@dataclass(frozen=True)
class Apart:
    """One image that one trial gets right and the other wrong."""

    image: str
    patient: str | None
    label: str
    right: int
    """The trial that is right."""
    taken_for: str
    """What the other one takes it for."""


@dataclass(frozen=True)
class PairPage:
    """Two trials compared."""

    study: str
    trials: tuple[int, int]
    differing: tuple[tuple[str, Any, Any], ...]
    """Parameters in which they differ, with both values."""
    pair: Pair
    apart: tuple[Apart, ...]
    apart_total: int

    JSON: ClassVar = ("study", "trials", "differing", "**pair", "apart", "apart_total")

    @property
    def table(self) -> Table:
        """Both trials' figures, and their differences."""
        return pair_table(self.pair, self.study)

    @property
    def class_table(self) -> Table | None:
        """The same for each class."""
        return class_table(self.pair) if self.pair.of_classes else None


def pair_page(request: Request) -> Response:
    """Write the comparison of two trials."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    wanted = request.query_params.get("trials", "")
    one, other, *rest = [*map(rendering.number_in, wanted.split(",")), None, None][:3]
    if one is None or other is None or one == other or rest[0] is not None:
        raise UserError("Two different trials are compared: /compare?trials=3,5.")

    def ask(results: Results) -> PairPage:
        found = pair(results, (one, other))
        rows = by_number(trial_rows(results.connection, study, (one, other)))
        names = ("seed", *results.spec.varied)
        apart = _apart(results, (one, other), found.split)
        return PairPage(
            study.title,
            (one, other),
            tuple(
                (name, rows[one][name], rows[other][name])
                for name in names
                if rows[one][name] != rows[other][name]
            ),
            found,
            tuple(apart[:APART_MOST]),
            len(apart),
        )

    data = desk.ask(("pair", one, other), ask, study)
    return rendering.page(request, "pair", data, study=study)


def _apart(results: Results, trials: tuple[int, int], split: SplitName) -> list[Apart]:
    first, second = (results.predicted(number, split) for number in trials)
    place = {image: at for at, image in enumerate(second.ids)}
    shared = [(at, place[image]) for at, image in enumerate(first.ids) if image in place]
    taken = (most_probable(first.log_probabilities), most_probable(second.log_probabilities))
    found = []
    for at, other in shared:
        label = first.labels[at]
        hits = (taken[0][at] == label, taken[1][other] == label)
        if hits[0] == hits[1]:
            continue
        wrong = taken[1][other] if hits[0] else taken[0][at]
        sure = (second, other) if hits[0] else (first, at)
        chance = float(np.exp(sure[0].log_probabilities[sure[1], wrong]))
        found.append(
            (
                -chance,
                Apart(
                    str(first.ids[at]),
                    first.patients[at] if first.patients else None,
                    first.classes[label],
                    trials[0] if hits[0] else trials[1],
                    first.classes[wrong],
                ),
            )
        )
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]
