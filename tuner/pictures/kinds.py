"""The kinds of pictures of a study, by name."""

from collections.abc import Callable, Mapping

from tuner.errors import UserError
from tuner.names import meant
from tuner.pictures.canvas import Picture
from tuner.pictures.courses import draw_curves, draw_schedules
from tuner.pictures.effects import draw_effects, draw_influence
from tuner.pictures.gaps import draw_gap, draw_val_test
from tuner.pictures.predictions import draw_confusion, draw_reliability, draw_roc
from tuner.pictures.search import draw_history, draw_parallel
from tuner.pictures.subject import Subject

KINDS: Mapping[str, Callable[[Subject], Picture]] = {
    "curves": draw_curves,
    "schedules": draw_schedules,
    "effects": draw_effects,
    "val-test": draw_val_test,
    "gap": draw_gap,
    "influence": draw_influence,
    "parallel": draw_parallel,
    "history": draw_history,
    "confusion": draw_confusion,
    "roc": draw_roc,
    "reliability": draw_reliability,
}


def draw(name: str, subject: Subject) -> Picture:
    """Draw one kind of picture."""
    if name not in KINDS:
        raise UserError(f"Unknown plot kind {name!r}; use {', '.join(KINDS)}.{meant(name, KINDS)}")
    return KINDS[name](subject)
