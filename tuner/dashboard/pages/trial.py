"""One trial's page: its figures with intervals, curves, mistakes and history."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers.confusion import Confusion, confusion
from tuner.answers.plain import plain
from tuner.answers.table import Table
from tuner.answers.trial import OneTrial, one_trial, table
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages.curves import Curves, Line
from tuner.errors import UserError
from tuner.records import SplitName, most_probable
from tuner.results import Results, epoch_columns
from tuner.store import histories

MISTAKES_MOST = 200
"""The most confident mistakes that are listed."""
TRIAL_CURVES = {
    "loss": ("loss (nats)", (("training", "train_nll"), ("validation", "val_loss"))),
    "accuracy": ("accuracy", (("training", "train_acc"), ("validation", "val_acc"))),
}


@dataclass(frozen=True)
class Mistake:
    """One image that the trial gets wrong."""

    image: str
    patient: str | None
    label: str
    predicted: str
    probability: float
    """Of the class that it was taken for."""


@dataclass(frozen=True)
class OfSplit:
    """What a trial takes for what, on one split."""

    split: SplitName
    confusion: Confusion
    mistakes: tuple[Mistake, ...]
    """The most confident ones first."""
    wrong: int


@dataclass(frozen=True)
class TrialPage:
    """Everything on a trial's page."""

    study: str
    trial: OneTrial
    splits: tuple[OfSplit, ...]
    outputs: tuple[histories.Output, ...]

    JSON: ClassVar = ("study", "**trial", "predictions=splits", "outputs")

    @property
    def table(self) -> Table:
        """The figures of each split, and the gap."""
        return table(self.trial)


def trial_page(request: Request) -> Response:
    """Write a trial's page."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    number = int(request.path_params["number"])

    def ask(results: Results) -> TrialPage:
        trial = one_trial(results, number)
        kept = results.kept_splits(number) if trial.row.complete else ()
        return TrialPage(
            study.title,
            trial,
            tuple(_of_split(results, number, split) for split in ("test", "val") if split in kept),
            tuple(histories.outputs(results.connection, study, number)),
        )

    data = desk.ask(("trial", number), ask, study)
    return rendering.page(request, "trial", data, study=study, charts=TRIAL_CURVES)


def trial_curves(request: Request) -> Response:
    """Write a trial's curves as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    number = int(request.path_params["number"])
    wanted = request.query_params.get("curve", "loss")
    if wanted not in TRIAL_CURVES:
        raise UserError(f"{wanted!r} is no curve of a trial; take {' or '.join(TRIAL_CURVES)}.")
    label, series = TRIAL_CURVES[wanted]
    names = [name for _, name in series]

    def ask(results: Results) -> Curves:
        rows = [
            dict(zip(epoch_columns(results.spec), row, strict=True))
            for row in results.epochs([number])
        ]
        columns = {name: [_finite(row[name]) for row in rows] for name in names}
        return Curves(
            label,
            [row["epoch"] for row in rows],
            tuple(Line(said, 1, 0, 0, columns[name], [], []) for said, name in series),
            "",
        )

    data = desk.ask(("trial curves", number, label), ask, study)
    text = rendering.mark(repr(data))
    if request.headers.get(rendering.HAVE) == text:
        return Response(status_code=204)
    return JSONResponse(plain(data), headers={rendering.HAVE: text})


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _of_split(results: Results, number: int, split: SplitName) -> OfSplit:
    read = results.predicted(number, split)
    taken = most_probable(read.log_probabilities)
    wrong = np.flatnonzero(taken != read.labels)
    chances = np.exp(read.log_probabilities.astype(np.float64))
    sure = chances[wrong, taken[wrong]]
    order = wrong[np.argsort(-np.nan_to_num(sure, nan=-1.0), kind="stable")][:MISTAKES_MOST]
    return OfSplit(
        split,
        confusion(read),
        tuple(
            Mistake(
                image=str(read.ids[place]),
                patient=read.patients[place] if read.patients else None,
                label=read.classes[read.labels[place]],
                predicted=read.classes[taken[place]],
                probability=float(chances[place, taken[place]]),
            )
            for place in order
        ),
        len(wrong),
    )
