"""Keeps one device and the data of recent trials ready, and starts runs on them."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuner.records import DataIdentity, Dataset, Identity, Job, Value
from tuner.spec.study import WEIGHTS
from tuner.train.checkpoints import keys
from tuner.train.checkpoints.keys import Base, shaping
from tuner.train.checkpoints.numerics import numerics
from tuner.train.code import Code
from tuner.train.data import Prepared, prepare
from tuner.train.device import Device, open_device
from tuner.train.identity import data_identity, identity
from tuner.train.losses import choose_loss
from tuner.train.objective import FoundObjective, Progress, find, source_fingerprint
from tuner.train.outputs import check_outputs
from tuner.train.own_metrics import OwnMetrics, check_metric
from tuner.train.passes import training_bounds
from tuner.train.recipe import read_recipe
from tuner.train.run import Run
from tuner.train.seeds import seed_initialisation

KEPT = 3
"""How many prepared data sets are kept; a study that varies a data key alternates between a few."""


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
        self._identities: dict[tuple[str, str], DataIdentity] = {}

    def begin(self, job: Job) -> Run:
        """Return a run of the job on a new model, preparing its data if necessary."""
        found = self.found(job)
        data = self.prepared(job)
        recipe = read_recipe(job.parameters)
        loss = choose_loss(recipe, len(data.classes), data.train.true, self._device.torch)
        own = self._own_metrics(found, job, data)
        seed_initialisation(job.seed)
        # Built on the CPU for every device, so that equal seeds start from equal weights. The
        # builder does not get the parameters that checkpoint keys contain only as rates: a model
        # that could read its learning rate or its length would be shared wrongly.
        model = found.build_model(shaping(job.parameters), data.inputs, loss.outputs)
        model.to(self._device.torch)
        noticed = check_outputs(found, model, data, loss)
        run = Run(job, model, loss, data, self._device, own)
        # Identified after a model was built and used, when all code is loaded.
        notes = {**run.setup.notes, **_code_notes(found.code())}
        run.setup = replace(run.setup, notes={**notes, **({"output": noticed} if noticed else {})})
        return run

    def dataset(self, job: Job) -> Dataset:
        """Return the description of the job's data that the store keeps."""
        return self.prepared(job).describe()

    def base(self, job: Job, *, together: bool = False) -> Base:
        """Return everything that determines the job's training here before its first epoch.

        In a pack by torch.func (`Run.together`) a training rounds differently than alone.
        """
        found = self.found(job)
        return Base(
            source=source_fingerprint(found),
            data=self.prepared(job).content,
            numerics=numerics(self._device) | ({"packs": "torch.func"} if together else {}),
            seed=job.seed,
            metric=job.metric,
            metrics=tuple(metric.name for metric in job.metrics),
            parameters=_by_content(shaping(job.parameters)),
        )

    def path(self, job: Job, *, together: bool = False) -> list[str]:
        """Return the checkpoint key after each of the job's epochs.

        Empty if it is not known which code runs, so that nothing is stored and reused.
        """
        if self.code(job).doubts:
            return []
        recipe = read_recipe(job.parameters)
        images = len(self.prepared(job).train)
        steps = len(training_bounds(images, recipe.batch_size))
        return keys.path(self.base(job, together=together), recipe, steps)

    def found(self, job: Job) -> FoundObjective:
        """Return the job's objective."""
        return find(job.objective, self._folders)

    def code(self, job: Job) -> Code:
        """Return the code that trains the job in this process."""
        return self.found(job).code()

    def identity(self, job: Job) -> Identity:
        """Return the identity of the job's code and data, for the store to compare."""
        self.prepared(job)
        return identity(self.code(job), self._identities[self._data_key(job)])

    def prepared(self, job: Job) -> Prepared:
        """Return the job's data, ready on the device."""
        key = self._data_key(job)
        if key not in self._prepared:
            while len(self._prepared) >= KEPT:
                self._prepared.popitem(last=False)
            loaded = self.found(job).load_data(job.data, self._cache, self._progress)
            prepared = prepare(loaded, self._device.torch)
            self._identities[key] = data_identity(loaded, job.data, prepared.content)
            self._prepared[key] = prepared
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _own_metrics(self, found: FoundObjective, job: Job, data: Prepared) -> OwnMetrics:
        """Return the job's own metrics, tried out so that a fault costs no training."""
        own, splits = OwnMetrics(found, job.metrics), (data.truth("val"), data.truth("test"))
        for truth in splits:
            if truth is not None:
                own.try_out(truth)
        check_metric(job.metric, job.metrics, splits[0])
        return own

    def _data_key(self, job: Job) -> tuple[str, str]:
        return str(self.found(job).folder), json.dumps(dict(job.data), sort_keys=True)


def _code_notes(code: Code) -> dict[str, str]:
    packages = "".join(f", {name} {version}" for name, version in sorted(code.packages.items()))
    notes = {"code": f"{code.fingerprint[:12]}: {len(code.files)} files{packages}"}
    if code.doubts:
        why = "; ".join(code.doubts)
        notes["reuse"] = (
            f"disabled (and no checkpoints), because the code could not be identified: {why}"
        )
    return notes


def _by_content(parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Identify a file of weights by its content, because the file at a path may change."""
    path = parameters.get(WEIGHTS)
    if not isinstance(path, str) or not path:
        return dict(parameters)
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {**parameters, WEIGHTS: f"sha256:{digest}"}
