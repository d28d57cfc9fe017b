"""Resumes a training from the longest stored prefix of its path."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuner.train.checkpoints.fit import UnfitError
from tuner.train.checkpoints.manifest import mark_reused
from tuner.train.checkpoints.timely import Lookups
from tuner.train.checkpoints.tree import Stored, Tree
from tuner.train.run import Run
from tuner.train.state import TrainingState


def resume(run: Run, tree: Tree | Lookups, path: Sequence[str], labels: Mapping[str, str]) -> int:
    """Restore a new run from the tree and return how many epochs it then has.

    Epochs trained by a trial with other labels are marked as reused.
    """
    limit = len(path)
    while stored := tree.longest(path[:limit]):
        try:
            run.restore(own_state(stored, labels))
        except UnfitError as unfit:
            if unfit.ended_after is None:
                tree.condemn(stored.key, str(unfit))
            limit = stored.epoch - 1 if unfit.ended_after is None else unfit.ended_after
        else:
            return stored.epoch
    return 0


def own_state(stored: Stored, labels: Mapping[str, str]) -> TrainingState:
    """Return a stored state for the trial with these labels to continue from."""
    if dict(stored.description.labels) == dict(labels):
        return stored.state
    return replace(stored.state, curve=mark_reused(stored.state.curve))
