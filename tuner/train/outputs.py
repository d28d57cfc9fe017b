"""Looks at what a model gives: how many outputs, and whether they were squashed already."""

from torch import Tensor

SQUASHED = {"SoftmaxBackward0": "a softmax", "SigmoidBackward0": "a sigmoid"}
"""Operations, by autograd's names for them, behind which no loss here can be trained well."""
RESHAPING = ("View", "Squeeze", "Unsqueeze", "Reshape", "UnsafeView", "Alias", "ToCopy", "Clone")
"""Operations behind which one looks further: they change no value."""


def squashed(outputs: Tensor) -> str:
    """Return which squashing operation outputs come out of, or nothing.

    Its history says so for certain, whether a module or a function did it. From the values
    nobody could: a logit may lie between 0 and 1 as well.
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
    """Say what is wrong with squashed outputs, as the end of a sentence."""
    return (
        f"the model ends in {what}, and loss = '{loss}' takes raw outputs (logits): it learns "
        f"slowly, and its probabilities are never sure. Leave {what} out"
    )
