"""Why validation and test differ: overfitting, another distribution, both, or only chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.statistics.variance import Interval

Cause = Literal[
    "overfitting",
    "different distribution",
    "both",
    "neither: within sampling error",
    "unexplained",
    "not examined",
    "too few patients",
]

WORDS: Mapping[Cause, str] = {
    "overfitting": "The settings fit their training images better than new ones of the same kind; "
    "test is no different from validation in that.",
    "different distribution": "Test images come from another distribution than training images. "
    "No setting of this study fixes that; other training data or augmentation might.",
    "both": "The settings fit their training images better than new ones of the same kind, and "
    "test images come from another distribution besides.",
    "neither: within sampling error": "The gap is within sampling error, so there is no cause to "
    "look for.",
    "unexplained": "There is a gap, and test images differ from training images no more than "
    "validation images do: a difference in the labels, or in what the probe does not see.",
    "not examined": "There is a gap, and the images were not examined.",
    "too few patients": "Validation or test has too few patients to say whether the two differ.",
}


@dataclass(frozen=True)
class Probed:
    """How well two splits can be told apart: 0.5 is chance."""

    auc: Interval

    @property
    def tells_apart(self) -> bool:
        """Whether that is beyond chance."""
        return self.auc.low > 0.5


def probes(body: Mapping[str, Any] | None) -> dict[str, Probed]:
    """Return the newest examination's probes by the split that was compared with training.

    Where several data settings were examined, the one that tells most apart counts.
    """
    found: dict[str, Probed] = {}
    for examined in (body or {}).get("data", []):
        for one in examined.get("probes", []):
            probed = Probed(Interval(one["auc"], one["low"], one["high"]))
            known = found.get(one["second"])
            if known is None or probed.auc.value > known.auc.value:
                found[one["second"]] = probed
    return found


def cause(gap: Interval, fitted: Interval | None, probed: Mapping[str, Probed]) -> Cause:
    """Say why there is a gap, from what training adds and from what the images show.

    `fitted` is training accuracy minus validation accuracy. A shift counts
    where test images differ from training images by more than validation's do.
    """
    overfits = fitted is not None and fitted.low > 0
    apart = gap.low > 0 or gap.high < 0
    val, test = probed.get("val"), probed.get("test")
    shifted = (
        apart
        and test is not None
        and test.tells_apart
        and (val is None or test.auc.low > val.auc.value)
    )
    if shifted:
        return "both" if overfits else "different distribution"
    if not apart:
        return "overfitting" if overfits else "neither: within sampling error"
    if test is None:
        return "not examined"
    return "unexplained"
