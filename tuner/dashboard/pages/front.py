"""The front page: all studies, each with its verdict in a sentence."""

from collections.abc import Mapping
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
from tuner.records import Unit, metric_of
from tuner.results import Results
from tuner.statistics import Interval
from tuner.store import studies
from tuner.store.overview import Counts, count_each, workers_each
from tuner.store.studies import Study

SIZE = 50
"""Studies per page; each one's verdict must be computed."""


@dataclass(frozen=True)
class Leader:
    """The best setting, or trial if settings have one seed."""

    trial: int
    """The trial of the median seed."""
    value: float
    """The study's metric, as a mean over seeds."""
    seeds: int


@dataclass(frozen=True)
class StudyVerdict:
    """A study's results so far."""

    verdict: str
    """The verdict in a sentence, or why there is none."""
    gap: Interval | None
    """Validation minus test accuracy, if both are measured."""
    best: "Leader | None" = None


@dataclass(frozen=True)
class Card:
    """One study on the front page."""

    study: str
    question: str
    objective: str
    metric: str
    unit: Unit
    """Of the metric."""
    state: str
    reason: str
    launched: datetime
    counts: Counts
    hosts: Mapping[str, int]
    """The number of its workers, by host."""
    tags: tuple[str, ...]
    archived: bool
    found: StudyVerdict | None = None
    """None while it is being computed."""

    JSON: ClassVar = (
        *("study", "question", "objective", "metric", "state", "reason", "launched", "counts"),
        *("workers", "hosts", "tags", "archived"),
        *("verdict=found.verdict", "gap=found.gap", "best=found.best"),
    )

    @property
    def workers(self) -> int:
        """The number of its workers."""
        return sum(self.hosts.values())


@dataclass(frozen=True)
class Front:
    """One page of studies, newest first."""

    studies: tuple[Card, ...]
    search: str
    matching: int
    total: int
    before: int | None
    """The study before which the next page starts; None on the last one."""
    archive: bool
    """Whether archived studies are shown."""
    hidden: int
    """The number of studies in the other list."""


def front(request: Request) -> Response:
    """Return the front page."""
    desk: Desk = request.app.state.desk
    search = request.query_params.get("q", "").strip()
    before = rendering.number_in(request.query_params.get("before", ""))
    every = desk.read("front", _cards)
    archive = "archived" in request.query_params
    stored = [one for one in every if one[1].archived == archive]
    matching = [one for one in stored if _matches(one[1], search.lower().split())]
    # A page starts after a study, not at an offset, so new studies do not shift pages.
    rest = [one for one in matching if before is None or one[0].study_id < before]
    shown = rest[:SIZE]
    data = Front(
        # Verdicts are only computed for the studies shown.
        studies=tuple(replace(card, found=verdict(desk, study)) for study, card in shown),
        search=search,
        matching=len(matching),
        total=len(stored),
        archive=archive,
        hidden=len(every) - len(stored),
        before=shown[-1][0].study_id if len(rest) > len(shown) else None,
    )
    return rendering.page(request, "front", data)


def _cards(connection: sa.Connection) -> list[tuple[Study, Card]]:
    stored = studies.listing(connection)[::-1]
    counts, hosts = count_each(connection, stored), workers_each(connection)
    return [
        (
            study,
            Card(
                study=study.title,
                question=study.spec.question,
                objective=study.spec.objective,
                metric=study.spec.search.metric,
                unit=metric_of(study.spec.search.metric, study.spec.metrics).read_in,
                state=study.state,
                reason=study.reason,
                launched=study.created,
                counts=counts[study.study_id],
                hosts=hosts.get(study.study_id, {}),
                tags=study.tags,
                archived=study.archived is not None,
            ),
        )
        for study in stored
    ]


def _matches(card: Card, wanted: list[str]) -> bool:
    text = (
        f"{card.study} {card.question} {card.objective} {card.state} {' '.join(card.tags)}".lower()
    )
    return all(word in text for word in wanted)


def verdict(desk: Desk, study: Study) -> StudyVerdict | None:
    """Return a study's verdict; None while it is computed, which this begins."""
    try:
        kept = desk.verdict(_find, study)
    except TunerError as error:
        return StudyVerdict(str(error), None)
    return None if kept is None else kept.value


def _find(results: Results) -> StudyVerdict:
    try:
        verdict = answer(results)[0]
    except UserError as error:
        verdict = str(error)
    try:
        difference = gap(results).gap if results.tested else None
    except UserError:
        difference = None
    ranked = results.ranked_settings
    best = Leader(ranked[0].median.number, ranked[0].mean, len(ranked[0].seeds)) if ranked else None
    return StudyVerdict(verdict, difference, best)
