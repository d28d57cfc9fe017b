"""Trials or settings side by side: differences, verdicts, and images on which they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers import words
from tuner.answers.columns import unit_of
from tuner.answers.pair import Pair, class_table, pair, pair_table
from tuner.answers.plain import plain
from tuner.answers.setting_diff import (
    SettingDiff,
    changes_table,
    diff_settings,
    figures_table,
    setting_named,
)
from tuner.answers.settings import Setting
from tuner.answers.settings import name as setting_name
from tuner.answers.table import Table
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.dashboard.images import Pictures, TrialImages, WantedImage
from tuner.dashboard.pages.curves import Curves, Line, scale_of, with_unit
from tuner.dashboard.pages.trial import pictures_of, trial_charts
from tuner.errors import UserError
from tuner.records import SHARE, SplitName, most_probable
from tuner.results import (
    Curve,
    Predicted,
    Results,
    TrialRow,
    by_number,
    epoch_columns,
    setting_curves,
    trial_rows,
)
from tuner.statistics import share_of
from tuner.store.studies import Study

SIDES_MOST = 8
"""The most trials or settings compared at a time; there are no more colours."""
APART_MOST = 100
"""The most images on which they disagree that are listed."""
PICTURES_MOST = 60
"""The most of these that are shown as thumbnails."""


@dataclass(frozen=True)
class TrialPrediction:
    """One trial's prediction for an image."""

    trial: int
    right: bool
    taken_for: str
    probability: float


@dataclass(frozen=True)
class DisagreedImage:
    """An image that some trials classify correctly and others do not."""

    image: str
    place: int
    """Its index in the split of the first trial, which is in its thumbnail's address."""
    patient: str | None
    label: str
    taken: tuple[TrialPrediction, ...]
    """By trial, in the order of the comparison."""


@dataclass(frozen=True)
class Disagreements:
    """The images on which trials disagree, with the most confident mistakes first."""

    trials: tuple[int, ...]
    split: SplitName
    listed: tuple[DisagreedImage, ...]
    total: int
    shared: int
    """The number of images that all of them predicted."""
    images: TrialImages | None
    pictures: Pictures = field(default=Pictures("away"))

    JSON: ClassVar = ("trials", "split", "listed", "total", "shared", "pictures")

    @property
    def shown(self) -> tuple[DisagreedImage, ...]:
        """Those shown as thumbnails."""
        return self.listed[:PICTURES_MOST]

    @property
    def wanted(self) -> tuple[WantedImage, ...]:
        """Their images."""
        return tuple(WantedImage(one.place, one.image, one.label) for one in self.shown)


@dataclass(frozen=True)
class ComparedTrials:
    """A comparison of trials."""

    study: str
    trials: tuple[int, ...]
    differing: tuple[tuple[str, tuple[Any, ...]], ...]
    """Parameters in which they differ, with each one's value."""
    pair: Pair | None
    """The pairwise comparison, if there are two."""
    table: Table
    apart: Disagreements

    JSON: ClassVar = ("study", "trials", "differing", "verdict", "pair", "apart")

    @property
    def verdict(self) -> str:
        """The result in plain words."""
        if self.pair is not None:
            return self.pair.verdict
        return (
            f"These {len(self.trials)} trained networks disagree on {self.apart.total:,} of the "
            f"{words.count(self.apart.shared, f'{self.apart.split} image')} that all of them "
            "predicted. To test two of them, compare just those two; but for a pair picked out of "
            "many, p is too optimistic."
        )

    @property
    def class_table(self) -> Table | None:
        """Two trials' recall by class."""
        return class_table(self.pair) if self.pair is not None and self.pair.of_classes else None


@dataclass(frozen=True)
class SettingsPage:
    """A comparison of settings: the first with each other one."""

    study: str
    settings: tuple[Setting, ...]
    names: tuple[str, ...]
    differing: tuple[tuple[str, tuple[Any, ...]], ...]
    diffs: tuple[SettingDiff, ...] | None
    """None while they are being computed."""
    apart: Disagreements | None
    """For the median seeds; None if a setting has none."""

    JSON: ClassVar = ("study", "settings", "differing", "comparisons=diffs", "apart")

    @property
    def tables(self) -> tuple[tuple[SettingDiff, Table, Table], ...]:
        """Each comparison with its tables of changes and figures."""
        return tuple((one, changes_table(one), figures_table(one)) for one in self.diffs or ())


def compare_page(request: Request) -> Response:
    """Return the comparison of trials, or of settings."""
    if "settings" in request.query_params:
        return _settings_page(request)
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    numbers = _trials(request)

    def ask(results: Results) -> ComparedTrials:
        found = pair(results, (numbers[0], numbers[1])) if len(numbers) == 2 else None
        rows = by_number(trial_rows(results.connection, study, numbers))
        split: SplitName = found.split if found else results.usual_split(numbers[0])
        read = [results.predicted(number, split) for number in numbers]
        return ComparedTrials(
            study=study.title,
            trials=numbers,
            differing=_differing(
                ("seed", *results.spec.varied), [rows[number] for number in numbers]
            ),
            pair=found,
            table=pair_table(found, study.title) if found else _table(read, study.title),
            apart=_apart(results, rows[numbers[0]], read, split),
        )

    data = desk.ask(("compare", numbers), ask, study)
    data = replace(data, apart=_with_pictures(request, study, data.apart))
    return rendering.page(request, "compare", data, study=study, charts=trial_charts(study))


def _settings_page(request: Request) -> Response:
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    ranks = _settings(request)

    def ask(results: Results) -> SettingsPage:
        chosen = tuple(setting_named(results, rank) for rank in ranks)
        medians = [one.median for one in chosen if one.median is not None]
        apart = None
        if len(medians) == len(chosen):
            split = results.usual_split(medians[0]["trial"])
            read = [results.predicted(row["trial"], split) for row in medians]
            apart = _apart(results, medians[0], read, split)
        return SettingsPage(
            study=study.title,
            settings=chosen,
            names=tuple(setting_name(one.values) for one in chosen),
            differing=_differing(results.spec.varied, [one.values for one in chosen]),
            diffs=None,
            apart=apart,
        )

    def compare(results: Results) -> tuple[SettingDiff, ...]:
        return tuple(diff_settings(results, (ranks[0], other)) for other in ranks[1:])

    data = desk.ask(("compare settings", ranks), ask, study)
    kept = desk.think(("settings", ranks), compare, study)
    data = replace(
        data,
        diffs=None if kept is None else kept.value,
        apart=None if data.apart is None else _with_pictures(request, study, data.apart),
    )
    return rendering.page(
        request, "compare_settings", data, study=study, charts=trial_charts(study)
    )


def compare_curves(request: Request) -> Response:
    """Return the curves of compared trials or settings in one chart, as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    charts = trial_charts(study)
    wanted = request.query_params.get("curve") or next(iter(charts))
    if wanted not in charts:
        raise UserError(f"{wanted!r} is not a curve of a trial; use one of {', '.join(charts)}.")
    # A trial has two lines, training and validation; the second one is compared.
    label, series = charts[wanted]
    _, column = series[-1]
    if "settings" in request.query_params:
        ranks = _settings(request)
        data = desk.ask(
            ("settings' curves", ranks, column),
            lambda results: _setting_curves(results, ranks, column, f"validation {label}"),
            study,
        )
    else:
        numbers = _trials(request)
        data = desk.ask(
            ("trials' curves", numbers, column),
            lambda results: _trial_curves(results, numbers, column, f"validation {label}"),
            study,
        )
    text = rendering.mark(repr(data))
    if request.headers.get(rendering.HAVE) == text:
        return Response(status_code=204)
    return JSONResponse(plain(data), headers={rendering.HAVE: text})


def _trials(request: Request) -> tuple[int, ...]:
    wanted = request.query_params.get("trials", "").split(",")
    numbers = [rendering.number_in(one) for one in wanted]
    found = tuple(dict.fromkeys(number for number in numbers if number is not None))
    if None in numbers or not 2 <= len(found) <= SIDES_MOST or len(found) < len(numbers):
        raise UserError(f"Two to {SIDES_MOST} different trials are compared: /compare?trials=3,5.")
    return found


def _settings(request: Request) -> tuple[str, ...]:
    wanted = request.query_params.get("settings", "").split(",")
    ranks = [rendering.number_in(one) for one in wanted]
    if None in ranks or not 2 <= len(set(ranks)) == len(ranks) <= SIDES_MOST:
        raise UserError(
            f"Two to {SIDES_MOST} different settings are compared, by rank: /compare?settings=1,2."
        )
    return tuple(map(str, ranks))


def _differing(
    names: Sequence[str], rows: Sequence[Any]
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    found = [(name, tuple(row[name] for row in rows)) for name in names]
    return tuple((name, values) for name, values in found if len(set(map(repr, values))) > 1)


def _table(read: Sequence[Predicted], study: str) -> Table:
    """Return the accuracy of several trials, each over its own images."""
    rows = []
    for one in read:
        hits = most_probable(one.log_probabilities) == one.labels
        share = share_of(hits.astype(np.float64), one.clusters)
        rows.append((str(one.trial), f"{len(one.labels):,}", words.with_ends(SHARE, share)))
    title = f"{study}: accuracy on {read[0].split} images, 95% intervals over images"
    return Table(("trial", "images", "accuracy"), tuple(rows), title)


def _apart(
    results: Results, row: TrialRow, read: Sequence[Predicted], split: SplitName
) -> Disagreements:
    """Find the images on which trials disagree, among those that all predicted."""
    first = read[0]
    places = [{image: at for at, image in enumerate(one.ids)} for one in read]
    shared = [image for image in first.ids if all(image in held for held in places)]
    at = np.array([[held[image] for image in shared] for held in places], dtype=np.int64)
    taken = np.array(
        [most_probable(one.log_probabilities)[at[side]] for side, one in enumerate(read)]
    ).reshape(len(read), len(shared))
    labels = first.labels[at[0]] if shared else np.array([], dtype=np.int64)
    if any((one.labels[at[side]] != labels).any() for side, one in enumerate(read)):
        raise UserError(
            f"Trials {words.listed([str(one.trial) for one in read])} were measured with different "
            "labels for the same images, so they cannot be compared."
        )
    hits = taken == labels
    chances = np.array(
        [
            np.exp(one.log_probabilities[at[side], taken[side]].astype(np.float64))
            for side, one in enumerate(read)
        ]
    ).reshape(len(read), len(shared))
    differ = np.flatnonzero(hits.any(axis=0) & ~hits.all(axis=0))
    surest = np.nan_to_num(np.where(hits, -1.0, chances), nan=-1.0).max(axis=0, initial=-1.0)
    order = differ[np.argsort(-surest[differ], kind="stable")]
    return Disagreements(
        trials=tuple(one.trial for one in read),
        split=split,
        listed=tuple(
            DisagreedImage(
                image=shared[one],
                place=int(at[0, one]),
                patient=first.patients[at[0, one]] if first.patients else None,
                label=first.classes[labels[one]],
                taken=tuple(
                    TrialPrediction(
                        predicted.trial,
                        bool(hits[side, one]),
                        predicted.classes[taken[side, one]],
                        float(chances[side, one]),
                    )
                    for side, predicted in enumerate(read)
                ),
            )
            for one in order[:APART_MOST]
        ),
        total=len(order),
        shared=len(shared),
        images=TrialImages.of(results, row),
    )


def _with_pictures(request: Request, study: Study, apart: Disagreements) -> Disagreements:
    pictures = pictures_of(request, study, apart.images, apart.split, apart.wanted)
    return replace(apart, pictures=pictures)


def _trial_curves(results: Results, numbers: Sequence[int], column: str, label: str) -> Curves:
    columns = epoch_columns(results.spec)
    by_trial: dict[int, dict[int, float | None]] = {number: {} for number in numbers}
    for cells in results.epochs(numbers):
        row = dict(zip(columns, cells, strict=True))
        value = row[column]
        finite = value is not None and np.isfinite(value)
        by_trial[row["trial"]][row["epoch"]] = float(value) if finite else None
    epochs = sorted({epoch for of in by_trial.values() for epoch in of})
    lines = (
        Line(f"trial {number}", 1, 0, 0, [of.get(epoch) for epoch in epochs], [], [])
        for number, of in by_trial.items()
    )
    unit = unit_of(column, results.spec.metrics)
    return Curves(with_unit(label, unit), epochs, tuple(lines), "", scale=scale_of(unit))


def _setting_curves(results: Results, ranks: Sequence[str], column: str, label: str) -> Curves:
    chosen = [setting_named(results, rank) for rank in ranks]
    found: dict[int, Curve] = {
        int(str(one.level)): one
        for one in setting_curves(results, [one.configuration for one in chosen])
    }
    lines = []
    for setting in chosen:
        curve = found.get(setting.configuration)
        if curve is None or column not in curve.by_seed or not curve.epochs:
            continue
        values = curve.by_seed[column]
        spread = (values.mean(axis=0), values.min(axis=0), values.max(axis=0))
        mean, low, high = map(_finite, spread)
        name = setting_name(setting.values)
        lines.append(Line(name, curve.seeds, curve.stopped, 0, mean, low, high))
    longest = max((len(line.mean) for line in lines), default=0)
    epochs = list(range(1, longest + 1))
    padded = tuple(
        replace(
            line,
            mean=_padded(line.mean, longest),
            low=_padded(line.low, longest),
            high=_padded(line.high, longest),
        )
        for line in lines
    )
    unit = unit_of(column, results.spec.metrics)
    return Curves(with_unit(label, unit), epochs, padded, "", scale=scale_of(unit))


def _finite(values: Any) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _padded(values: list[float | None], length: int) -> list[float | None]:
    return [*values, *[None] * (length - len(values))]
