"""Plots of a study: drawn by Matplotlib, with their finding as the title.

Other rooms use these names. Each is loaded when it is first used: Matplotlib takes long to load,
and checking options does not need it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.faces import face

MARK = "tuner, by Matplotlib"
"""The creator in every picture's file, by which an earlier picture is recognised."""

GO_WITH = {
    "by": ("curves", "schedules", "effects", "val-test"),
    "metric": ("effects", "influence", "parallel"),
    "trial": ("confusion", "roc", "reliability"),
    "split": ("confusion", "roc", "reliability"),
}
"""The kinds of pictures that use each option."""


def misplaced(kind: str, wishes: Mapping[str, object]) -> str | None:
    """Return an option that this kind of picture does not use, if one is given."""
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
