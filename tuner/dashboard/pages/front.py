"""The first page: all studies, with their answers in a sentence."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from tuner.answers.gap import gap
from tuner.answers.question import answer
from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.errors import TunerError, UserError
from tuner.results import Results
from tuner.statistics import Interval
from tuner.store import studies
from tuner.store.overview import Counts, count_each, workers_each
from tuner.store.studies import Study


@dataclass(frozen=True)
class Found:
    """What a study has found so far."""

    verdict: str
    """In a sentence; why there is none where there is none."""
    gap: Interval | None
    """Validation minus test accuracy, where both are measured."""


@dataclass(frozen=True)
class Card:
    """One study on the first page."""

    study: str
    question: str
    objective: str
    metric: str
    state: str
    reason: str
    launched: datetime
    counts: Counts
    workers: int
    found: Found | None = None
    """None while it is being found out."""

    JSON: ClassVar = (
        *("study", "question", "objective", "metric", "state", "reason", "launched", "counts"),
        *("workers", "verdict=found.verdict", "gap=found.gap"),
    )


@dataclass(frozen=True)
class Front:
    """All studies, the newest first."""

    studies: tuple[Card, ...]
    search: str
    total: int


def front(request: Request) -> Response:
    """Write the first page."""
    desk: Desk = request.app.state.desk
    search = request.query_params.get("q", "").strip()
    found = desk.read("front", _cards)
    shown = [
        replace(card, found=_found(desk, study))
        for study, card in found
        if _matches(card, search.lower().split())
    ]
    return rendering.page(request, "front", Front(tuple(shown), search, len(found)))


def _cards(connection: sa.Connection) -> list[tuple[Study, Card]]:
    stored = studies.listing(connection)[::-1]
    counts, workers = count_each(connection, stored), workers_each(connection)
    return [
        (
            study,
            Card(
                study=study.title,
                question=study.spec.question,
                objective=study.spec.objective,
                metric=study.spec.search.metric,
                state=study.state,
                reason=study.reason,
                launched=study.created,
                counts=counts[study.study_id],
                workers=workers.get(study.study_id, 0),
            ),
        )
        for study in stored
    ]


def _matches(card: Card, wanted: list[str]) -> bool:
    text = f"{card.study} {card.question} {card.objective} {card.state}".lower()
    return all(word in text for word in wanted)


def _found(desk: Desk, study: Study) -> Found | None:
    try:
        kept = desk.verdict(_find, study)
    except TunerError as error:
        return Found(str(error), None)
    return None if kept is None else kept.value


def _find(results: Results) -> Found:
    try:
        verdict = answer(results)[0]
    except UserError as error:
        verdict = str(error)
    try:
        difference = gap(results).gap if results.tested else None
    except UserError:
        difference = None
    return Found(verdict, difference)
