"""The validation loss computed again from a trial's predictions, compared with its epochs' loss.

Both come from the same weights on the same images. Where they differ, the curve
belongs to another network than the predictions, as when a checkpoint of other
code was reused. Computed here, outside the trainer, from what is about to be stored.
"""

import math
from collections.abc import Mapping

from tuner.records import Dataset, Epoch, Result
from tuner.train.metrics import mean_nll

TOLERANCE = 1e-3
"""By how much the losses may differ, relative above 1 nat.

Evaluation takes float32 products whatever `precision` is, without TF32, in the same batches and by
deterministic kernels. A GPU library that still chooses another kernel the second time changes a
logit by some 1e-6 of its size per layer, and the mean over the images by less. Two different
networks agree this closely only by accident. val_loss is the plain negative log-likelihood, so
class weights, label smoothing and the training loss do not enter it. No other figure is compared:
one image on the edge between two classes moves an accuracy of a small split by a lot.
"""


def disagreement(data: Dataset, result: Result, curve: Mapping[int, Epoch]) -> str | None:
    """Say where the predictions of the best or the last epoch have another loss than the epoch."""
    labels = next((one.labels for one in data.labels if one.split == "val"), None)
    if labels is None:
        return None
    epochs = {"best": result.best.epoch, "last": result.last.epoch}
    for predictions in result.predictions:
        epoch = curve.get(epochs[predictions.at])
        # A loss that is not a number ended its training: the trial is stored as diverged.
        if predictions.split != "val" or epoch is None or not math.isfinite(epoch.val_loss):
            continue
        again = mean_nll(predictions.log_probabilities, labels)
        # Written so that a NaN of the predictions disagrees.
        if not abs(epoch.val_loss - again) <= TOLERANCE * max(1.0, abs(epoch.val_loss)):
            return (
                f"val_loss of epoch {epoch.epoch} was {epoch.val_loss:.6g}, but the predictions "
                f"of that epoch's weights give {again:.6g}: the curve and the predictions come "
                "from different networks. Check whether the model's output is random in "
                "evaluation, keeps state outside its parameters and buffers, or comes from code "
                "that changed where tuner cannot see it; then retry the trial."
            )
    return None
