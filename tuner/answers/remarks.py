"""Warnings about networks whose figures mislead: one class only, or unusual outputs."""

from collections.abc import Iterator, Sequence

from tuner.answers.words import percent
from tuner.results import TrialRow

__all__ = ["remarks"]

SPLITS = {"val": "validation", "test": "test"}


def remarks(rows: Sequence[TrialRow], prefix: str = "") -> Iterator[str]:
    """Yield a sentence for networks that predict a single class, or have unusual outputs.

    `prefix` selects the figures: "" for the best epoch, "last_" for the last.
    """
    complete = [row for row in rows if row.complete]
    for split, name in SPLITS.items():
        of = [row for row in complete if split in row.one_class]
        if of:
            shares = sorted(row[f"{prefix}{split}_acc"] for row in of)
            share = " to ".join(dict.fromkeys(map(percent, (shares[0], shares[-1]))))
            yield (
                f"{_trials(of, complete)} all {name} images are predicted as one class, so the "
                f"accuracy ({share}) is just that class's proportion. Look at balanced accuracy "
                "and AUC (--show classes), and try class_weights = 'balanced' or another metric."
            )
    for remark in dict.fromkeys(row.remark for row in complete if row.remark):
        of = [row for row in complete if row.remark == remark]
        yield f"{_trials(of, complete)} {remark}."


def _trials(some: Sequence[TrialRow], complete: Sequence[TrialRow]) -> str:
    if len(complete) == 1:
        return f"In trial {some[0]['trial']}"
    if len(some) == len(complete):
        return f"In all {len(complete)} complete trials"
    if len(some) == 1:
        return f"In 1 of {len(complete)} complete trials (trial {some[0]['trial']})"
    return f"In {len(some)} of {len(complete)} complete trials"
