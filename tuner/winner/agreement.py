"""How far predictions agree with the stored ones: by the bit, and if not, by how much."""

import numpy as np
from numpy.typing import NDArray

from tuner.records import most_probable
from tuner.winner.document import Agreement

Logs = NDArray[np.float32]


def compare(found: Logs, stored: Logs) -> Agreement:
    """Hold log-probabilities of the same images against each other."""
    same = (found.view(np.uint32) == stored.view(np.uint32)) | (np.isnan(found) & np.isnan(stored))
    with np.errstate(invalid="ignore"):
        apart = np.abs(found.astype(np.float64) - stored.astype(np.float64))
    # Two infinities that are equal differ by nothing; one that is alone by more than any number.
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


def words(agreement: Agreement, what: str) -> str:
    """Say how far predictions of some images agree with the stored ones."""
    if agreement.exact:
        if agreement.images == 1:
            return f"The prediction of {what} equals the stored one, bit for bit."
        return f"All {agreement.images:,} predictions of {what} equal the stored ones, bit for bit."
    changed = "no class changes"
    if agreement.changed_classes:
        images = "image is" if agreement.changed_classes == 1 else "images are"
        changed = f"{agreement.changed_classes:,} {images} taken for another class"
    return (
        f"{agreement.images - agreement.equal:,} of {agreement.images:,} predictions of {what} "
        f"differ from the stored ones, by {agreement.largest_difference:.2g} nats at most; "
        f"{changed}."
    )
