"""A study's page: the question and its answer first, then the evidence."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from tuner.answers.compare import compare
from tuner.answers.forecast import BudgetWords, Forecast, budget_words, forecast
from tuner.answers.question import FACTORS_MOST, answer
from tuner.answers.setting_comparison import check, check_sentence, compare_settings, why_not
from tuner.dashboard import rendering
from tuner.dashboard.desk import PATIENCE, Desk
from tuner.dashboard.pages import evidence
from tuner.dashboard.pages.curves import CurveLines, find_curves
from tuner.dashboard.pages.evidence import Board, ComparedLevels, Influences, ValTest
from tuner.dashboard.pages.view import View, curve_kinds, groups
from tuner.errors import TunerError, UserError
from tuner.results import Results
from tuner.store.overview import Overview
from tuner.store.studies import Study

Value = TypeVar("Value")


@dataclass(frozen=True)
class Answered:
    """The answer to the study's question, and whether it includes the newest trials."""

    sentences: tuple[str, ...]
    current: bool


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of settings, and of each factor, by the study's metric."""

    settings: ComparedLevels | None
    factors: tuple[ComparedLevels, ...]
    remark: str


@dataclass(frozen=True)
class StudyPage:
    """The requested parts of a study's page; None for those not requested or being computed."""

    study: str
    overview: Overview
    view: View
    groups: tuple[str, ...]
    answer: Answered | None = None
    comparisons: Comparisons | None = None
    val_test: ValTest | None = None
    influence: Influences | None = None
    leaderboard: Board | None = None
    curves: CurveLines | None = None
    """The curves of the first chart, sent with the page so that it need not request them."""
    error: str = ""
    """Why the conditions could not be parsed; then everything is shown."""

    JSON: ClassVar = (
        *("study", "overview=for_programs", "answer", "comparisons", "val_test", "influence"),
        "leaderboard",
    )

    @property
    def forecast(self) -> Forecast | None:
        """The forecast for the rest of the study."""
        return forecast(self.overview)

    @property
    def budget(self) -> BudgetWords | None:
        """Sentences on the budget: spent, needed, and whether it is enough."""
        return budget_words(self.overview)

    @property
    def for_programs(self) -> dict[str, Any]:
        """The overview with the forecast, and without the metric's unit."""
        stored = {name: value for name, value in vars(self.overview).items() if name != "unit"}
        return {**stored, "forecast": self.forecast}


def study_page(request: Request) -> Response:
    """Return a study's page, a part of it, or all of it as JSON."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    part = request.query_params.get("part")
    wanted = {part} if part is not None else {"answer", "curves"}
    if request.url.path.endswith(".json"):
        wanted = {"answer", "comparisons", "val_test", "influence", "leaderboard"}
    view, error = _view(request, study)
    chosen = (view.conditions, view.stopped)

    def asked(name: str, ask: Callable[[], Value]) -> Value | None:
        # Parts that are not shown are not computed: the first view of a large study only waits for
        # its answer, and charts further down are requested when they come into view.
        return ask() if name in wanted else None

    # Started together with the answer, for which the page may wait a moment.
    asked("curves", lambda: _sent(desk, study, view))

    data = StudyPage(
        study=study.title,
        overview=desk.overview(study),
        view=view,
        groups=groups(study),
        answer=asked("answer", lambda: answered(desk, study)),
        comparisons=asked("comparisons", lambda: _comparisons(desk, study)),
        val_test=asked(
            "val_test",
            lambda: _thought(desk, study, ("val_test", *chosen),
                             lambda results: evidence.val_test(results, view)),
        ),
        influence=asked(
            "influence", lambda: _thought(desk, study, "influence", evidence.influences)
        ),
        leaderboard=asked(
            "leaderboard",
            lambda: _thought(desk, study, ("leaderboard", *chosen, view.top),
                             lambda results: evidence.board(results, view)),
        ),
        curves=asked("curves", lambda: _sent(desk, study, view)),
        error=error,
    )  # fmt: skip
    return rendering.page(request, "study", data, study=study, curves=curve_kinds(study))


def _view(request: Request, study: Study) -> tuple[View, str]:
    try:
        return View.of(request, study), ""
    except UserError as refused:
        if not request.query_params.get("q"):
            raise
        # The typed text stays in its field, with the error.
        unfiltered = View.of(request, study, filtered=False)
        return unfiltered, str(refused)


def _sent(desk: Desk, study: Study, view: View) -> CurveLines | None:
    """Return the curves that are sent with the page; None if there are none yet."""
    try:
        return find_curves(desk, study, view, patience=0.0)
    except TunerError:
        # The rest of the page does not depend on them. Their chart requests them, and shows why.
        return None


def _thought(
    desk: Desk, study: Study, question: object, ask: Callable[[Results], Value]
) -> Value | None:
    kept = desk.think(question, ask, study)
    return None if kept is None else kept.value


def answered(desk: Desk, study: Study, patience: float = PATIENCE) -> Answered | None:
    """Return the answer to a study's question; None while it is computed for the first time."""
    try:
        kept = desk.think("answer", _answered, study, patience)
    except TunerError as error:
        # Shown in place of the answer: the rest of the page does not depend on it.
        return Answered((str(error),), current=True)
    return None if kept is None else Answered(kept.value, kept.current)


def _answered(results: Results) -> tuple[str, ...]:
    try:
        return answer(results)
    except UserError as error:
        return (str(error),)


def _comparisons(desk: Desk, study: Study) -> Comparisons | None:
    try:
        return _thought(desk, study, "comparisons", _compared)
    except TunerError as error:
        return Comparisons(None, (), str(error))


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
