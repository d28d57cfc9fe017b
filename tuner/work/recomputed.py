"""Recomputes the validation loss from a trial's predictions and compares it with the epoch's.

Both come from the same weights on the same images. If they differ, the curve and the
predictions belong to different networks, as when a checkpoint of other code was reused.
This runs outside the trainer, on the data about to be stored.
"""

import math
from collections.abc import Mapping

from tuner.records import Dataset, Epoch, Result
from tuner.train.metrics import mean_nll

TOLERANCE = 1e-3
"""How much the losses may differ: absolute up to 1 nat, relative above.

Evaluation always uses float32 products without TF32, whatever `precision` is, in the same batches
and with deterministic kernels. If a GPU library still chooses another kernel the second time, that
changes a logit by some 1e-6 of its size per layer, and the mean over the images by less. Two
different networks agree this closely only by accident. val_loss is the plain negative
log-likelihood, so class weights, label smoothing and the training loss do not enter it. No other
figure is compared: one image on the edge between two classes changes the accuracy of a small split
by a lot.
"""


def disagreement(data: Dataset, result: Result, curve: Mapping[int, Epoch]) -> str | None:
    """Return how an epoch's loss differs from that of its predictions; None if it does not."""
    labels = next((split.labels for split in data.labels if split.split == "val"), None)
    if labels is None:
        return None
    epochs = {"best": result.best.epoch, "last": result.last.epoch}
    for predictions in result.predictions:
        epoch = curve.get(epochs[predictions.at])
        # A non-finite loss ended its training: the trial is stored as diverged.
        if predictions.split != "val" or epoch is None or not math.isfinite(epoch.val_loss):
            continue
        again = mean_nll(predictions.log_probabilities, labels)
        # Written with `not` so that a NaN in the predictions counts as a difference.
        if not abs(epoch.val_loss - again) <= TOLERANCE * max(1.0, abs(epoch.val_loss)):
            return (
                f"val_loss of epoch {epoch.epoch} was {epoch.val_loss:.6g}, but the predictions "
                f"of that epoch's weights give {again:.6g}: the curve and the predictions come "
                "from different networks. Check whether the model's output is random in "
                "evaluation, keeps state outside its parameters and buffers, or comes from code "
                "that changed where tuner cannot see it; then retry the trial."
            )
    return None
