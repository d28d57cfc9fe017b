"""Checks a model's outputs: how many there are, and whether they were squashed already."""

from torch import Tensor

SQUASHED = {"SoftmaxBackward0": "a softmax", "SigmoidBackward0": "a sigmoid"}
"""Autograd's names of operations after which no loss here trains well."""
RESHAPING = ("View", "Squeeze", "Unsqueeze", "Reshape", "UnsafeView", "Alias", "ToCopy", "Clone")
"""Operations that change no value, and are skipped."""


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


def remark(what: str, loss: str) -> str:
    """Return what is wrong with squashed outputs, as the end of a sentence."""
    return (
        f"the model ends in {what}, but loss = '{loss}' expects raw outputs (logits): it learns "
        f"slowly, and its probabilities are never confident. Remove {what}"
    )
