"""Keeps one device and the data of recent trials warm, and begins one run after another."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from tuner.errors import DataError, ObjectiveError
from tuner.records import Dataset, Job
from tuner.train.data import Feed, Prepared, prepare
from tuner.train.device import Device, open_device
from tuner.train.losses import Loss, choose_loss
from tuner.train.objective import Found, Progress, find
from tuner.train.recipe import read_recipe
from tuner.train.run import Run
from tuner.train.seeds import seed_initialisation

KEPT = 3
"""Data sets kept prepared at a time; a study that varies a data key moves between a few."""


class Workbench:
    """A device with prepared data, on which trials are trained one after another."""

    def __init__(
        self, device: str, threads: int, cache: Path, folders: Sequence[Path], progress: Progress
    ) -> None:
        self._device: Device = open_device(device, threads)
        self._cache = cache
        self._folders = tuple(folders)
        self._progress = progress
        self._prepared: OrderedDict[tuple[str, str], Prepared] = OrderedDict()

    def begin(self, job: Job) -> Run:
        """Return a run of the job on a fresh model; its data are prepared if they are not yet."""
        found = find(job.objective, self._folders)
        data = self._data(found, job)
        loss = choose_loss(read_recipe(job.parameters).loss, len(data.classes))
        _check_metric(job, data)
        seed_initialisation(job.seed)
        # Built on the CPU whatever the device, so that equal seeds begin with equal weights.
        model = found.build_model(job.parameters, data.inputs, loss.outputs)
        model.to(self._device.torch)
        _check_outputs(found, model, data, loss)
        return Run(job, model, loss, data, self._device)

    def dataset(self, job: Job) -> Dataset:
        """Return what the store keeps of the data that the job trains on."""
        return self._data(find(job.objective, self._folders), job).describe()

    def _data(self, found: Found, job: Job) -> Prepared:
        key = (str(found.folder), json.dumps(dict(job.data), sort_keys=True))
        if key not in self._prepared:
            while len(self._prepared) >= KEPT:
                self._prepared.popitem(last=False)
            loaded = found.load_data(job.data, self._cache, self._progress)
            self._prepared[key] = prepare(loaded, self._device.torch)
        self._prepared.move_to_end(key)
        return self._prepared[key]


def _check_metric(job: Job, data: Prepared) -> None:
    missing = set(range(len(data.classes))) - set(data.val.true.tolist())
    if job.metric == "val_auc" and missing:
        names = ", ".join(data.classes[label] for label in sorted(missing))
        raise DataError(
            f"val_auc cannot be the metric: the validation split has no image of class {names}; "
            "choose another metric or another split"
        )


def _check_outputs(found: Found, model: nn.Module, data: Prepared, loss: Loss) -> None:
    """Fail before the first epoch if the model does not fit the images or the loss."""
    expected = (1, loss.outputs)
    model.eval()
    try:
        with torch.inference_mode():
            shape = tuple(model(Feed(data, data.val, 1).between(0, 1)).shape)
    # The model is the objective's own code: whatever it raises is a fault of the objective.
    except Exception as error:
        raise ObjectiveError(
            f"the model of objective {found.name!r} fails on an image of shape {data.inputs}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if shape != expected:
        raise ObjectiveError(
            f"the model of objective {found.name!r} gives outputs of shape {shape} for one image; "
            f"loss {loss.name!r} needs {expected}"
        )
