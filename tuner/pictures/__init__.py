"""Pictures of a study: drawn by Matplotlib, titled with what is seen.

This is what other rooms may use. A name is loaded when it is first used: Matplotlib takes long to
load, and to say which options go together needs none of it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.faces import face

MARK = "tuner, by Matplotlib"
"""In every picture's file as its creator: by this an earlier one is recognised."""

GO_WITH = {
    "by": ("curves", "schedules", "effects", "val-test"),
    "metric": ("effects", "influence", "parallel"),
    "trial": ("confusion", "roc", "reliability"),
    "split": ("confusion", "roc", "reliability"),
}
"""Which pictures each wish changes."""


def misplaced(kind: str, wishes: Mapping[str, object]) -> str | None:
    """Return a wish that the picture is drawn without, if one is made."""
    made = (name for name, value in wishes.items() if value is not None)
    return next((name for name in made if kind not in GO_WITH[name]), None)


if TYPE_CHECKING:
    from tuner.pictures.canvas import FORMATS, Picture
    from tuner.pictures.kinds import KINDS, draw
    from tuner.pictures.searches import draw_searches
    from tuner.pictures.subject import Subject
else:
    __getattr__ = face(
        __name__,
        {
            "canvas": "FORMATS Picture",
            "kinds": "KINDS draw",
            "searches": "draw_searches",
            "subject": "Subject",
        },
    )
