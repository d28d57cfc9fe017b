"""A study's page: the question and its answer first, then what the answer rests on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tuner.answers.compare import Comparison, Row, compare, table
from tuner.answers.plain import plain
from tuner.answers.question import FACTORS_MOST, answer
from tuner.answers.setting_comparison import check, check_sentence, compare_settings, why_not
from tuner.answers.settings import has_replicates, settings, short_names
from tuner.answers.table import Table
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.errors import TunerError, UserError
from tuner.names import meant
from tuner.results import Curve, Results, curves, setting_curves
from tuner.store.overview import Overview, overview
from tuner.store.studies import Study

CURVES_MOST = 8
"""Settings whose curves are drawn, the best ones; more lines than colours say nothing."""
POINTS_MOST = 600
"""Points of a line that a browser is sent; more than that no screen shows apart."""
CURVES = {
    "val_loss": "validation loss (nats)",
    "train_nll": "training loss (nats)",
    "val_acc": "validation accuracy",
    "train_acc": "training accuracy",
}


@dataclass(frozen=True)
class ComparedLevels:
    """Levels of a factor, or whole settings, as they compare by the study's metric."""

    comparison: Comparison
    on_test: str
    """What the leading one shows on test images, in a sentence; "" where there is none."""

    JSON: ClassVar = ("comparison", "on_test")

    whole: bool = False
    """Whether its levels are whole settings, which are shown the best first."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """The levels in the order of the study file, whole settings by their means."""
        sign = -1.0 if self.comparison.measure.larger else 1.0
        rows = self.comparison.rows
        if not self.whole:
            return rows
        return tuple(
            sorted(rows, key=lambda row: sign * row.mean.value if row.mean else float("inf"))
        )

    @property
    def table(self) -> Table:
        """The levels with means, differences and verdicts."""
        shown = table(replace(self.comparison, rows=self.rows))
        head = ("setting", *shown.head[1:]) if self.whole else shown.head
        return replace(shown, head=head)

    @property
    def chart(self) -> "Chart | None":
        """The means with their intervals, to be drawn."""
        rows = [
            (name, mark, row.mean)
            for row, (name, *_, mark) in zip(self.rows, self.table.rows, strict=True)
            if row.mean is not None
        ]
        return Chart.of(rows) if len(rows) > 1 else None


@dataclass(frozen=True)
class Bar:
    """One level in a chart of intervals, in shares of the chart's width."""

    name: str
    standing: str
    low: float
    mean: float
    high: float


@dataclass(frozen=True)
class Chart:
    """Means with intervals beside each other."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, Any]]) -> "Chart | None":
        """Lay out means with their limits; None where they cannot be drawn."""
        ends = [value for _, _, mean in rows for value in (mean.low, mean.high)]
        if not np.isfinite(ends).all():
            return None
        low, high = min(ends), max(ends)
        width = (high - low) or abs(high) or 1.0
        low, high = low - 0.03 * width, high + 0.03 * width

        def place(value: float) -> float:
            return round(float((value - low) / (high - low)), 4)

        ticks = _ticks(low, high)
        return cls(
            tuple(
                Bar(name, mark, place(mean.low), place(mean.value), place(mean.high))
                for name, mark, mean in rows
            ),
            tuple((place(value), f"{value:.6g}".replace("-", "−")) for value in ticks),
        )


@dataclass(frozen=True)
class Answered:
    """The answer to the study's question, and whether it is that of the newest trials."""

    sentences: tuple[str, ...]
    current: bool


@dataclass(frozen=True)
class Comparisons:
    """What the answer rests on: settings, and each factor, by the study's metric."""

    settings: ComparedLevels | None
    factors: tuple[ComparedLevels, ...]
    remark: str


@dataclass(frozen=True)
class StudyPage:
    """Everything on a study's page."""

    study: str
    overview: Overview
    answer: Answered | None
    comparisons: Comparisons | None
    groups: tuple[str, ...]
    """What curves can be drawn by: settings, or a factor."""
    group: str
    curve: str

    JSON: ClassVar = ("study", "overview", "answer", "comparisons")


def study_page(request: Request) -> Response:
    """Write a study's page."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    groups = _groups(study)
    data = StudyPage(
        study=study.title,
        overview=desk.read("overview", lambda connection: overview(connection, study), study),
        answer=_answer(desk, study),
        comparisons=_comparisons(desk, study),
        groups=groups,
        group=_chosen(request, "group", groups),
        curve=_chosen(request, "curve", tuple(CURVES)),
    )
    return rendering.page(request, "study", data, study=study, curves=CURVES)


def _answer(desk: Desk, study: Study) -> Answered | None:
    try:
        kept = desk.think("answer", _answered, study)
    except TunerError as error:
        # Told in its place: the rest of the page does not depend on it.
        return Answered((str(error),), current=True)
    return None if kept is None else Answered(kept.value, kept.current)


def _comparisons(desk: Desk, study: Study) -> Comparisons | None:
    try:
        kept = desk.think("comparisons", _compared, study)
    except TunerError as error:
        return Comparisons(None, (), str(error))
    return None if kept is None else kept.value


def _answered(results: Results) -> tuple[str, ...]:
    try:
        return answer(results)
    except UserError as error:
        return (str(error),)


def _groups(study: Study) -> tuple[str, ...]:
    factors = tuple(study.spec.varied)
    return ("setting", *factors) if len(factors) != 1 else (*factors, "setting")


def _chosen(request: Request, name: str, choices: Sequence[str]) -> str:
    wanted = request.query_params.get(name) or choices[0]
    if wanted not in choices:
        raise UserError(
            f"{wanted!r} is not a {name} of this study; it has {', '.join(choices)}."
            f"{meant(wanted, choices)}"
        )
    return wanted


def _compared(results: Results) -> Comparisons:
    whole: ComparedLevels | None = None
    factors: list[ComparedLevels] = []
    remark = why_not(results)
    try:
        best = compare_settings(results)
        if best is not None:
            whole = ComparedLevels(
                best, check_sentence(check(results, best, whole=True)), whole=True
            )
    except UserError as error:
        remark = str(error)
    few = 0 < len(results.comparable) <= FACTORS_MOST
    if few and not (whole is not None and len(results.spec.varied) == 1):
        try:
            factors = [
                ComparedLevels(one, check_sentence(check(results, one))) for one in compare(results)
            ]
        except UserError as error:
            remark = remark or str(error)
    return Comparisons(whole, tuple(factors), remark)


# Training curves, as data for the page's charts


@dataclass(frozen=True)
class Line:
    """One line of a chart: a mean over seeds, and the band from the lowest to the highest."""

    name: str
    seeds: int
    stopped: int
    best_epoch: int
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class Curves:
    """Lines over epochs."""

    label: str
    epochs: list[int]
    lines: tuple[Line, ...]
    note: str


def curves_data(request: Request) -> Response:
    """Write the lines of the study's chart as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    group = _chosen(request, "group", _groups(study))
    curve = _chosen(request, "curve", tuple(CURVES))
    kept = desk.think(("curves", group, curve), lambda r: _lines(r, group, curve), study)
    if kept is None:
        return Response(status_code=202)
    text = rendering.mark(repr(kept.value))
    if request.headers.get(rendering.HAVE) == text:
        return Response(status_code=204)
    return JSONResponse(plain(kept.value), headers={rendering.HAVE: text})


def _lines(results: Results, group: str, name: str) -> Curves:
    note = ""
    if group == "setting":
        named, note = _best_settings(results)
        found = {int(str(one.level)): one for one in setting_curves(results, list(named))}
        drawn = [(label, found[number]) for number, label in named.items() if number in found]
    else:
        by_level = {one.level: one for one in curves(results, group)}
        levels = results.spec.in_order(group, by_level)[:CURVES_MOST]
        if len(by_level) > len(levels):
            note = f"{len(levels)} of {len(by_level)} levels of {group} are shown."
        drawn = [(f"{group}={rendering.cell(level)}", by_level[level]) for level in levels]
    lines = [_line(label, curve, name) for label, curve in drawn if curve.epochs]
    epochs = max((len(one.mean) for one in lines), default=0)
    places = _places(epochs, [one.best_epoch for one in lines])
    return Curves(
        CURVES[name],
        [place + 1 for place in places],
        tuple(_thinned(one, places) for one in lines),
        note,
    )


def _best_settings(results: Results) -> tuple[dict[int, str], str]:
    """Return the best settings by number with their names, and a remark on those left out."""
    ranked = [one for one in settings(results) if one.rank is not None]
    shown = ranked[:CURVES_MOST]
    names = short_names(shown, results.spec)
    note = ""
    if len(ranked) > len(shown):
        note = f"The best {len(shown)} of {len(ranked)} settings are shown."
    elif has_replicates(results.spec) and not ranked:
        note = "No setting has a complete seed yet."
    return {one.configuration: names[one.configuration] or "setting" for one in shown}, note


def _line(label: str, curve: Curve, name: str) -> Line:
    values = curve.by_seed[name]
    mean, low, high = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
    judged = mean if name.endswith(("loss", "nll")) else -mean
    best = int(np.nanargmin(judged)) + 1 if np.isfinite(judged).any() else 0
    return Line(label, curve.seeds, curve.stopped, best, *map(_numbers, (mean, low, high)))


def _numbers(values: Any) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def _places(epochs: int, best: Sequence[int]) -> list[int]:
    """Return which epochs are drawn: all, or as many as a screen has room for, and the best."""
    if epochs <= POINTS_MOST:
        return list(range(epochs))
    spread = {round(place) for place in np.linspace(0, epochs - 1, POINTS_MOST)}
    return sorted(spread | {epoch - 1 for epoch in best if epoch})


def _thinned(line: Line, places: Sequence[int]) -> Line:
    def thin(values: list[float | None]) -> list[float | None]:
        return [values[place] if place < len(values) else None for place in places]

    return Line(
        line.name, line.seeds, line.stopped, line.best_epoch,
        thin(line.mean), thin(line.low), thin(line.high),
    )  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """Return some round values between two."""
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first = np.ceil(low / step) * step
    return [float(value) for value in np.arange(first, high, step)]
