"""Pictures of a study: drawn by Matplotlib, titled with what is seen."""

from collections.abc import Mapping

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
