"""The whole database as metrics for Prometheus: one page, read from one snapshot."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from tuner.store import totals
from tuner.store.tallies import CLAIM_BOUNDS
from tuner.version import version

if TYPE_CHECKING:
    from tuner.dashboard.desk import Desk
    from tuner.exposition import MetricsPage
    from tuner.store.totals import Totals

KEPT_SECONDS = 5.0
"""Seconds for which every scraper gets the same page."""
EVENTS = {
    "lost": ("tuner_leases_lost_total", "Leases of silent workers that others took over."),
    "interrupted": ("tuner_interruptions_total", "Attempts that were killed from outside."),
    "attempt failed": ("tuner_failed_attempts_total", "Attempts that ended in an error."),
}


def metrics(request: Request) -> Response:
    """Return the page in a format that the scraper accepts."""
    desk: Desk = request.app.state.desk
    page = as_page(desk.sample("metrics", totals.read, KEPT_SECONDS))
    body, media = page.encoded(request.headers.get("accept", ""))
    return Response(body, media_type=media)


def as_page(of: "Totals") -> "MetricsPage":
    """Return the metrics of a database."""
    from tuner.exposition import MetricsPage

    page = MetricsPage()
    page.gauge("tuner_build_info", "The version of tuner.", {(version(),): 1}, "version")
    page.gauge(
        "tuner_studies",
        "Studies by state; those in the archive are apart.",
        {(state,): count for state, count in of.states.items()},
        "state",
    )
    page.gauge(
        "tuner_study_state",
        "1 for the state that a study is in.",
        {(study.name, study.state): 1 for study in of.studies},
        *("study", "state"),
    )
    page.gauge(
        "tuner_trials",
        "Trials by state; all states together are the study's budget.",
        {
            (study.name, state): count
            for study in of.studies
            for state, count in study.trials.items()
        },
        *("study", "state"),
    )
    for name, about, attribute in (
        ("tuner_epochs", "Epochs as they are stored, without reused ones.", "epochs"),
        ("tuner_workers", "Workers that were seen in the last 20 seconds.", "workers"),
        ("tuner_settings_queued", "Settings that wait because people want them first.", "queued"),
    ):
        values = {(study.name,): getattr(study, attribute) for study in of.studies}
        page.gauge(name, about, values, "study")
    for kind, (name, about) in EVENTS.items():
        page.counter(name, about, {(one.name,): one.events[kind] for one in of.studies}, "study")
    page.counter(
        "tuner_busy_seconds_total",
        "How long workers have held trials, all workers together.",
        {(study.name,): study.busy_seconds for study in of.studies},
        "study",
    )
    page.counter(
        "tuner_epochs_trained_total",
        "Epochs that workers have trained and stored, also those that were trained again.",
        {(study.name,): study.tally.epochs for study in of.studies},
        "study",
    )
    page.counter(
        "tuner_database_retries_total",
        "Transactions that workers tried again, because the database was away or refused them.",
        {(study.name,): study.tally.retries for study in of.studies},
        "study",
    )
    page.histogram(
        "tuner_claim_seconds",
        "How long workers waited for the answer to a claim; of studies with workers lately.",
        CLAIM_BOUNDS,
        {
            (study.name,): (study.tally.claims, study.tally.claim_seconds)
            for study in of.studies
            if study.claiming
        },
        "study",
    )
    for name, about, attribute in (
        ("tuner_gpu_utilization_ratio", "Share of time that a GPU is at work.", "utilization"),
        ("tuner_gpu_memory_used_bytes", "Memory of a GPU in use, by anybody.", "memory"),
        ("tuner_gpu_memory_total_bytes", "Memory of a GPU.", "memory_total"),
    ):
        loads = {
            place: value
            for place, gpu in of.gpus.items()
            if (value := getattr(gpu, attribute)) is not None
        }
        page.gauge(name, about, loads, *("host", "device"))
    return page
