"""Checks a model's outputs: how many there are, and whether they were squashed already."""

from torch import Tensor, nn

from tuner.errors import ObjectiveError
from tuner.train.data import Feed, Prepared
from tuner.train.losses import Loss
from tuner.train.objective import FoundObjective

SQUASHED = {"SoftmaxBackward0": "a softmax", "SigmoidBackward0": "a sigmoid"}
"""Autograd's names of operations after which no loss here trains well."""
RESHAPING = ("View", "Squeeze", "Unsqueeze", "Reshape", "UnsafeView", "Alias", "ToCopy", "Clone")
"""Operations that change no value, and are skipped."""


def check_outputs(found: FoundObjective, model: nn.Module, data: Prepared, loss: Loss) -> str:
    """Raise before the first epoch if the model does not fit the images or the loss.

    Returns a remark if its outputs are unusual but trainable.
    """
    expected = (1, loss.outputs)
    model.eval()
    try:
        # With gradients, as in training: the autograd graph shows how outputs were computed.
        outputs = model(Feed(data, data.val, 1).between(0, 1))
        shape = tuple(outputs.shape)
    # The model is the objective's own code, so any exception is a fault of the objective.
    except Exception as error:
        raise ObjectiveError(
            f"the model of objective {found.name!r} fails on an image of shape "
            f"{data.inputs}{found.place_of(error)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if shape != expected:
        raise ObjectiveError(
            f"the model of objective {found.name!r} gives outputs of shape {shape} for one image; "
            f"loss {loss.name!r} needs {expected}"
        )
    if what := squashed(outputs):
        return (
            f"the model ends in {what}, but loss = '{loss.name}' expects raw outputs (logits): it "
            f"learns slowly, and its probabilities are never confident. Remove {what}"
        )
    return ""


def squashed(outputs: Tensor) -> str:
    """Return the squashing operation that produced the outputs, or an empty text.

    The autograd graph shows it reliably, whether a module or a function did it. The values
    do not: a logit may be between 0 and 1 as well.
    """
    step = outputs.grad_fn
    while step is not None:
        name = step.name()
        if name in SQUASHED:
            return SQUASHED[name]
        if not name.startswith(RESHAPING):
            return ""
        step = step.next_functions[0][0]
    return ""
