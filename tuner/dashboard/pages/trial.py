"""One trial's page: its figures with intervals, curves, mistakes, files, origin and history."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers.calibration import Calibration, calibration
from tuner.answers.columns import unit_of
from tuner.answers.confusion import Confusion, confusion
from tuner.answers.plain import plain
from tuner.answers.provenance import Provenance, provenance
from tuner.answers.roc import Roc, roc_curves
from tuner.answers.table import Table
from tuner.answers.trial import OneTrial, one_trial, table
from tuner.dashboard import rendering
from tuner.dashboard.checkpoints import TrialCheckpoints
from tuner.dashboard.desk import Desk
from tuner.dashboard.images import Pictures, TrialImages, WantedImage
from tuner.dashboard.pages.curves import Curves, Line, scale_of, with_unit
from tuner.errors import UnknownStudyError, UserError
from tuner.names import meant
from tuner.records import SplitName, most_probable
from tuner.results import Results, by_number, epoch_columns, trial_rows
from tuner.store import histories
from tuner.store.studies import Study

MISTAKES_MOST = 200
"""The number of most confident mistakes that are listed."""
PICTURES_MOST = 60
"""The number of these that are shown as thumbnails."""
ROC_MOST = 8
"""The most classes whose ROC curves are drawn; there are no more colours."""


@dataclass(frozen=True)
class Mistake:
    """An image that the trial classifies incorrectly."""

    image: str
    place: int
    """Its index in the split, which is in its thumbnail's address."""
    patient: str | None
    label: str
    predicted: str
    probability: float
    """The probability of the predicted class."""

    JSON: ClassVar = ("image", "place", "patient", "label", "predicted", "probability")


@dataclass(frozen=True)
class SplitPredictions:
    """A trial's predictions on one split: confusion, ROC, calibration and mistakes."""

    split: SplitName
    confusion: Confusion
    roc: Roc | None
    calibration: Calibration | None
    mistakes: tuple[Mistake, ...]
    """Most confident first."""
    wrong: int
    pictures: Pictures = field(default=Pictures("away"))
    """Whether thumbnails of the mistakes can be shown."""

    @property
    def shown(self) -> tuple[Mistake, ...]:
        """The mistakes shown as thumbnails."""
        return self.mistakes[:PICTURES_MOST]

    @property
    def wanted(self) -> tuple[WantedImage, ...]:
        """Their images."""
        return tuple(WantedImage(one.place, one.image, one.label) for one in self.shown)


@dataclass(frozen=True)
class TrialPage:
    """Everything on a trial's page."""

    study: str
    trial: OneTrial
    splits: tuple[SplitPredictions, ...]
    outputs: tuple[histories.Output, ...]
    provenance: Provenance
    images: TrialImages | None
    checkpoints: TrialCheckpoints | None = None
    """None while they are being listed, or if only the database is read."""

    JSON: ClassVar = (
        "study",
        "**trial",
        "predictions=splits",
        "checkpoints",
        "provenance",
        "outputs",
    )

    @property
    def table(self) -> Table:
        """The figures of each split, and the gap."""
        return table(self.trial)


def trial_page(request: Request) -> Response:
    """Return a trial's page."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    number = int(request.path_params["number"])

    def ask(results: Results) -> TrialPage:
        trial = one_trial(results, number)
        kept = results.kept_splits(number) if trial.row.complete else ()
        return TrialPage(
            study.title,
            trial,
            tuple(
                _split_predictions(results, number, split)
                for split in ("test", "val")
                if split in kept
            ),
            tuple(histories.outputs(results.connection, study, number)),
            provenance(results, trial),
            TrialImages.of(results, trial.row),
        )

    data = desk.ask(("trial", number), ask, study)
    data = replace(
        data,
        splits=tuple(
            replace(
                part,
                pictures=pictures_of(request, study, data.images, part.split, part.wanted),
            )
            for part in data.splits
        ),
        checkpoints=_checkpoints(desk, study, number),
    )
    return rendering.page(request, "trial", data, study=study, charts=trial_charts(study))


def pictures_of(
    request: Request,
    study: Study,
    images: TrialImages | None,
    split: SplitName,
    wanted: tuple[WantedImage, ...],
) -> Pictures:
    """Return whether a page can show these images; start reading them if necessary."""
    desk: Desk = request.app.state.desk
    if desk.gallery is None or not wanted:
        return Pictures("away")
    # Another site may link to a page, but cannot send this header, so it cannot make code run.
    asked = (
        request.query_params.get("code") == "run"
        and "hx-request" in request.headers
        and request.state.caller.acts
    )
    return desk.gallery.show(
        images, split, wanted, lambda: desk.tell(study.study_id), runs_code=asked
    )


def image(request: Request) -> Response:
    """Return one image as PNG, if it has been read."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    number, place = int(request.path_params["number"]), int(request.path_params["place"])
    split = request.path_params["split"]

    def ask(results: Results) -> TrialImages | None:
        rows = by_number(trial_rows(results.connection, study, [number]))
        return TrialImages.of(results, rows[number]) if number in rows else None

    found = desk.ask(("images", number), ask, study)
    picture = None
    if desk.gallery is not None and found is not None:
        picture = desk.gallery.picture(found.source, split, place)
    if picture is None:
        raise UnknownStudyError("This image has not been read; the page of its trial says why.")
    # A PNG contains only pixels; still, nothing may run if it is opened directly.
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}
    return Response(picture, media_type="image/png", headers=headers)


def trial_charts(study: Study) -> Mapping[str, tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the curves of trials with their lines, the study's metric first."""
    charts: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
        "loss": ("loss (nats)", (("training", "train_nll"), ("validation", "val_loss"))),
        "accuracy": ("accuracy", (("training", "train_acc"), ("validation", "val_acc"))),
    }
    for metric in study.spec.metrics:
        charts[metric.name] = (metric.name, (("validation", f"val_{metric.name}"),))
    leading = {"val_acc": "accuracy"}.get(
        study.spec.search.metric, study.spec.search.metric.removeprefix("val_")
    )
    return dict(sorted(charts.items(), key=lambda item: item[0] != leading))


def trial_curves(request: Request) -> Response:
    """Return a trial's curves as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    number = int(request.path_params["number"])
    charts = trial_charts(study)
    wanted = request.query_params.get("curve") or next(iter(charts))
    if wanted not in charts:
        raise UserError(
            f"{wanted!r} is not a curve of a trial; use one of {', '.join(charts)}."
            f"{meant(wanted, charts)}"
        )
    label, series = charts[wanted]
    names = [name for _, name in series]

    def ask(results: Results) -> Curves:
        rows = [
            dict(zip(epoch_columns(results.spec), row, strict=True))
            for row in results.epochs([number])
        ]
        columns = {name: [_finite(row[name]) for row in rows] for name in names}
        unit = unit_of(names[-1], results.spec.metrics)
        return Curves(
            with_unit(label, unit),
            [row["epoch"] for row in rows],
            tuple(Line(said, 1, 0, 0, columns[name], [], []) for said, name in series),
            "",
            scale=scale_of(unit),
        )

    data = desk.ask(("trial curves", number, label), ask, study)
    text = rendering.mark(repr(data))
    if request.headers.get(rendering.HAVE) == text:
        return Response(status_code=204)
    return JSONResponse(plain(data), headers={rendering.HAVE: text})


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _checkpoints(desk: Desk, study: Study, number: int) -> TrialCheckpoints | None:
    checkpoints = desk.checkpoints
    if checkpoints is None:
        return None
    kept = desk.look(("checkpoints", number), lambda: checkpoints.of(study, number), study)
    return None if kept is None else kept.value


def _split_predictions(results: Results, number: int, split: SplitName) -> SplitPredictions:
    read = results.predicted(number, split)
    taken = most_probable(read.log_probabilities)
    wrong = np.flatnonzero(taken != read.labels)
    chances = np.exp(read.log_probabilities.astype(np.float64))
    sure = chances[wrong, taken[wrong]]
    order = wrong[np.argsort(-np.nan_to_num(sure, nan=-1.0), kind="stable")][:MISTAKES_MOST]
    return SplitPredictions(
        split,
        confusion(read),
        roc_curves(read, most=ROC_MOST),
        calibration(read),
        tuple(
            Mistake(
                image=str(read.ids[place]),
                place=int(place),
                patient=read.patients[place] if read.patients else None,
                label=read.classes[read.labels[place]],
                predicted=read.classes[taken[place]],
                probability=float(chances[place, taken[place]]),
            )
            for place in order
        ),
        len(wrong),
    )
