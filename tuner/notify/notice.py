"""A notice: what happened in a study, as JSON for programs and as a text for a chat."""

import logging
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from tuner.answers import words
from tuner.answers.question import answer
from tuner.errors import TunerError
from tuner.results import Results
from tuner.store.database import is_outage
from tuner.store.notices import Happened
from tuner.store.overview import Counts, count
from tuner.store.studies import Study

logger = logging.getLogger(__name__)

FAILED_MOST = 20
"""Failed trials listed by number; further ones are only counted."""
REASON_MOST = 300
EVENTS = {
    "complete": "study_complete",
    "spent": "study_spent",
    "stopped": "study_stopped",
    "paused": "study_paused",
    "failed": "trials_failed",
}


def compose(results: Results, events: Sequence[Happened], dashboard: str | None) -> dict[str, Any]:
    """Return the notice of some events of one study: at most one end, and trials that failed."""
    study = results.study
    end = next((event for event in events if event.kind != "failed"), None)
    failed = [event for event in events if event.kind == "failed"]
    first = end or failed[0]
    counts = count(results.connection, study)
    verdict = () if end is None or end.kind == "paused" else _verdict(results)
    sentence = _sentence(study, end, failed, counts)
    link = None if dashboard is None else f"{dashboard.rstrip('/')}/studies/{study.full_name}"
    shown = [sentence, *verdict, *([link] if link else [])]
    return {
        # The same whenever this event is sent, also by another process.
        "id": f"{study.full_name}-{first.event_id}",
        "event": EVENTS[first.kind],
        "at": first.at.astimezone(UTC).isoformat(timespec="seconds"),
        "study": study.full_name,
        "question": study.spec.question,
        "sentence": sentence,
        "verdict": list(verdict),
        "reason": first.text,
        "trials": {
            "budget": counts.total,
            "complete": counts.complete,
            "pruned": counts.pruned,
            "diverged": counts.diverged,
            "failed": counts.failed,
            "running": counts.running,
            "waiting": counts.waiting,
            "paused": counts.paused,
        },
        "failed": [{"trial": event.number, "reason": event.text} for event in failed[:FAILED_MOST]],
        "link": link,
        "text": for_chat("\n".join(shown)),
    }


def for_chat(text: str) -> str:
    """Escape Slack's markup: a reason that contains <!channel> must not alert anyone."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _verdict(results: Results) -> tuple[str, ...]:
    try:
        return answer(results)
    except TunerError as error:
        return (str(error),)
    # The end of the study is reported even if its answer cannot be computed.
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("%s: its verdict was not computed", results.study.title)
        return ()


def _sentence(
    study: Study, end: Happened | None, failed: Sequence[Happened], counts: Counts
) -> str:
    also = f" {_failures(failed)}" if failed else ""
    done = f"{counts.ended:,} of {words.count(counts.total, 'trial')} ended"
    if end is None:
        return f"{study.title}: {_failures(failed)} {done[0].upper()}{done[1:]}."
    if end.kind == "complete":
        return f"{study.title} is complete: {done}.{also}"
    if end.kind == "spent":
        return f"{study.title} has ended: {_short(end.text)} ({done}).{also}"
    return f"{study.title} is {end.kind}: {_short(end.text)} ({done}).{also}"


def _failures(failed: Sequence[Happened]) -> str:
    if len(failed) == 1:
        return f"Trial {failed[0].number} failed: {_short(failed[0].text)}."
    numbers = ", ".join(str(event.number) for event in failed[:FAILED_MOST])
    more = f" and {len(failed) - FAILED_MOST:,} more" if len(failed) > FAILED_MOST else ""
    return f"Trials {numbers}{more} failed; the last one: {_short(failed[-1].text)}."


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= REASON_MOST else f"{line[:REASON_MOST]} …"
