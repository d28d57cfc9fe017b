"""Whether predictions agree with the stored ones within the tolerance, or how much they differ."""

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable
from tuner.winner.document import TOLERANCE, Agreement

Logs = NDArray[np.float32]


def compare(found: Logs, stored: Logs) -> Agreement:
    """Compare log-probabilities of the same images."""
    same = (found.view(np.uint32) == stored.view(np.uint32)) | (np.isnan(found) & np.isnan(stored))
    with np.errstate(invalid="ignore"):
        apart = np.abs(found.astype(np.float64) - stored.astype(np.float64))
        apart /= np.maximum(1.0, np.abs(stored.astype(np.float64)))
    # Equal infinities have difference 0; an infinity and a finite number, an infinite difference.
    apart[same] = 0.0
    largest = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
    return Agreement(
        images=len(found),
        equal=int(same.all(axis=1).sum()),
        largest_difference=min(largest, float(np.finfo(np.float64).max)),
        changed_classes=int((most_probable(found) != most_probable(stored)).sum()),
    )


def joined(parts: list[Agreement]) -> Agreement:
    """Return the agreement over several groups of images."""
    return Agreement(
        images=sum(agreement.images for agreement in parts),
        equal=sum(agreement.equal for agreement in parts),
        largest_difference=max((agreement.largest_difference for agreement in parts), default=0.0),
        changed_classes=sum(agreement.changed_classes for agreement in parts),
    )


def words(agreement: Agreement, split: str) -> str:
    """Say how well the predictions of a split agree with the stored ones."""
    if agreement.matches:
        how = f"(largest difference {_short(agreement.largest_difference)} nats)"
        if agreement.exact:
            how = "exactly"
        if agreement.images == 1:
            return f"The {split} prediction matches the stored one {how}."
        return f"All {agreement.images:,} {split} predictions match the stored ones {how}."
    changed = "no class changes"
    if agreement.changed_classes:
        images = "image changes" if agreement.changed_classes == 1 else "images change"
        changed = f"{agreement.changed_classes:,} {images} class"
    return (
        f"Some of {agreement.images:,} {split} predictions differ from the stored ones by up to "
        f"{_short(agreement.largest_difference)} nats, more than the tolerance of "
        f"{_short(TOLERANCE)} that rounding explains; {changed}."
    )


def _short(value: float) -> str:
    """Format a small number: 3e-7, 0.03."""
    if 0 < value < 0.001:
        digits, _, power = f"{value:.0e}".partition("e")
        return f"{digits}e{int(power)}"
    return f"{value:.2g}"
