"""Recovers the weights of trials, in a separate process that has no database password.

They are in the trial's last checkpoint, if that still exists; otherwise the trial is trained again
from the latest checkpoint on its path. In both cases, their predictions are compared with the
stored ones.
"""

import copy
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from tuner.errors import DataError, MachineError, TunerError, UserError
from tuner.questions import Body, Progress, serve
from tuner.records import Job
from tuner.train.checkpoints.fit import UnfitError
from tuner.train.checkpoints.resume import own_state, resume
from tuner.train.checkpoints.timely import LOOKUP_SECONDS, Lookups, opened, timely
from tuner.train.checkpoints.tree import Tree
from tuner.train.data import Prepared, Resident
from tuner.train.device import open_device
from tuner.train.losses import output_count
from tuner.train.recipe import read_recipe
from tuner.train.run import Run
from tuner.train.workbench import Workbench
from tuner.version import version
from tuner.winner import document, exported, kept
from tuner.winner.agreement import compare
from tuner.winner.document import (
    Agreement,
    EnsembleNetwork,
    EvaluationSetup,
    Files,
    Model,
    Preprocessing,
)
from tuner.winner.kept import JUDGED, StoredPredictions
from tuner.winner.pictures import ImageReader, compare_files
from tuner.winner.plain import card_lines, network_lines
from tuner.winner.predictor import Averaged, Predictor

logger = logging.getLogger(__name__)

LOOKED_AT = 16
"""Files that are decoded to check whether tuner's decoder gives the study's pixels."""


@dataclass(frozen=True)
class TrialOrder:
    """A trial whose weights are to be recovered."""

    job: Job
    trial: int
    epoch: int
    """The epoch of the weights."""
    last_epoch: int
    last_val_loss: float | None
    """As stored; identifies the checkpoint of the training run that the study kept."""
    labels: Mapping[str, str]
    """The labels that identify this trial's checkpoints."""


@dataclass(frozen=True)
class Order:
    """An order to recover trials' weights into a folder that contains their predictions."""

    trials: tuple[TrialOrder, ...]
    """One trial, or all seeds of a setting, whose mean predictions are in the folder."""
    about: Mapping[str, Any]
    """What the document says about study and trial."""
    data_fingerprint: str
    checkpoints: str | None
    device: str
    threads: int
    cache: Path
    folders: tuple[Path, ...]
    folder: Path
    form: str | None = None
    """`torchscript` or `onnx`, to also write the network as one file."""

    @classmethod
    def read(cls, body: Body) -> "Order":
        """Read an order from JSON."""
        paths = {"cache": Path(body["cache"]), "folder": Path(body["folder"])}
        folders = tuple(Path(one) for one in body["folders"])
        trials = tuple(
            TrialOrder(**{**trial, "job": Job.read(trial["job"])}) for trial in body["trials"]
        )
        return cls(**{**body, "trials": trials, **paths, "folders": folders})


def fulfil(order: Order, progress: Progress) -> tuple[Model, list[str]]:
    """Write weights and predictions into the folder; return the document.

    Also returns lines of plain PyTorch that load the network, if possible.
    """
    bench = Workbench(order.device, order.threads, order.cache, order.folders, progress)
    job, several = order.trials[0].job, len(order.trials) > 1
    data = bench.prepared(job)
    _check_data(job, order, data)
    weights: dict[str, Tensor] = {}
    origins: list[str] = []
    for number, trial in enumerate(order.trials):
        run = bench.begin(trial.job)
        origins.append(_bring_to_end(order, trial, bench, run, progress))
        state = run.state()
        found = state.best_weights if order.about["at"] == "best" else state.weights
        prefix = f"members.{number}." if several else ""
        weights |= {
            prefix + name: value.detach().to(torch.device("cpu")).contiguous()
            for name, value in found.items()
        }
    content = save(weights, {"format": "pt"})
    held = _with_pixels(order, data)
    files = {document.WEIGHTS: content, document.PREDICTIONS: held.content()}
    model = _model(order, bench, run.evaluation_size, origins, files)
    for name, written in files.items():
        _write(order.folder / name, written)
    # From the written bytes, in the same way as `tuner predict`.
    device = open_device(order.device, order.threads)
    predictor = Predictor(model, load(content), bench.found(job), device)
    agreement = _agreement(data, predictor, held, progress)
    if order.form is not None:
        splits = _residents(data)
        form = cast(exported.Form, order.form)
        exported.write(
            form, predictor.network, model, splits=splits, stored=held, folder=order.folder
        )
    return model.model_copy(update={"agreement": agreement}), _plain_lines(predictor, model)


def _plain_lines(predictor: Predictor, model: Model) -> list[str]:
    """Return the model card's lines of plain PyTorch; empty for an objective's own network."""
    network = copy.deepcopy(predictor.network).to("cpu")
    one = network.members[0] if isinstance(network, Averaged) else network
    assert isinstance(one, nn.Module)
    lines = network_lines(one, model.parameters)
    outputs = output_count(read_recipe(model.parameters), len(model.classes))
    return [] if lines is None else card_lines(model, lines, outputs)


def _bring_to_end(
    order: Order, trial: TrialOrder, bench: Workbench, run: Run, progress: Progress
) -> str:
    """Bring a new run to its last epoch by the shortest way; return where it came from."""
    tree = _opened(order.checkpoints)
    lookups = None if tree is None else Lookups(tree)
    known = resume(run, lookups, bench.path(trial.job), trial.labels) if lookups else 0
    if tree is not None and known < trial.last_epoch and _takes_own_last(trial, bench, tree, run):
        return "the trial's last checkpoint, made on other numerics or by another version of tuner"
    if known >= trial.last_epoch:
        return "the trial's last checkpoint"
    what = "training again" if len(order.trials) == 1 else f"training trial {trial.trial} again"
    for epoch in run.epochs(lambda: None):
        progress(what, epoch.epoch, trial.last_epoch)
    if run.diverged:
        raise MachineError(
            f"The trial diverges when it is trained again here (epoch {len(run.curve)}), but did "
            "not when the study was trained: the machine, torch or the objective's code is "
            "different. Save the model where the study was trained."
        )
    start = f"on from the checkpoint at epoch {known}" if known else "from its first epoch"
    return f"trained again {start}: no complete checkpoint was available"


def _opened(location: str | None) -> Tree | None:
    """Open the checkpoints; without them, recovery only takes longer."""
    if location is None:
        return None
    try:
        return opened(location, LOOKUP_SECONDS)
    except TunerError as error:
        logger.warning("Checkpoints are not used: %s", error)
        return None


def _takes_own_last(trial: TrialOrder, bench: Workbench, tree: Tree, run: Run) -> bool:
    """Load this trial's own last checkpoint, even if it was made with different arithmetic.

    Its key differs from the keys that this machine would compute, so it is found by the trial in
    its labels. The labels are only a claim; the proof is what its weights predict.
    """
    try:
        entries = timely(tree.listing, LOOKUP_SECONDS, lambda: None)
    except MachineError:
        return False
    content = bench.prepared(trial.job).content
    mine = [entry for entry in entries if dict(entry.labels) == dict(trial.labels)]
    for entry in mine:
        if entry.epoch != trial.last_epoch:
            continue
        stored = Lookups(tree).longest([*[""] * (entry.epoch - 1), entry.key])
        base = stored.description.base if stored is not None else None
        if stored is None or base is None or base.data != content:
            continue
        # A trial that was trained again on another machine may have left, at the same epoch, a
        # checkpoint of the run whose epochs were removed.
        if stored.state.curve[-1].val_loss != trial.last_val_loss:
            continue
        try:
            run.restore(own_state(stored, trial.labels))
        except UnfitError:
            continue
        return True
    return False


def _check_data(job: Job, order: Order, data: Prepared) -> None:
    if data.fingerprint != order.data_fingerprint:
        where = job.data.get("path")
        raise DataError(
            "The data are not those that the trial was trained on: images, labels or their "
            f"division have changed since{f' in {where}' if where else ''} (fingerprint "
            f"{data.fingerprint[:12]}, then {order.data_fingerprint[:12]}). Put them back as they "
            "were, or launch the study on the new ones with --new-version."
        )


def _with_pixels(order: Order, data: Prepared) -> StoredPredictions:
    """Return the study's predictions, with a hash of every image's pixels."""
    path = order.folder / document.PREDICTIONS
    stored = kept.read(path.read_bytes(), path, len(data.classes), pixels=False)
    splits = _residents(data)
    for name, split in stored.splits.items():
        mine = splits[name]
        if split.ids != mine.ids or not np.array_equal(split.labels, mine.true):
            raise DataError(
                f"The {name} images have different names or labels than when the study was "
                "trained; restore the original data."
            )
    pixels = {name: kept.digests(split.images.cpu().numpy()) for name, split in splits.items()}
    return StoredPredictions(
        stored.splits, {name: pixels[name] for name in (*stored.splits, "train")}
    )


def _residents(data: Prepared) -> dict[Any, Resident]:
    found = {"train": data.train, "val": data.val}
    return found if data.test is None else {**found, "test": data.test}


def _model(
    order: Order,
    bench: Workbench,
    evaluation_size: int,
    origins: Sequence[str],
    files: Mapping[str, bytes],
) -> Model:
    job = order.trials[0].job
    data, base = bench.prepared(job), bench.base(job)
    members = [
        EnsembleNetwork(trial=trial.trial, seed=trial.job.seed, epoch=trial.epoch, origin=origin)
        for trial, origin in zip(order.trials, origins, strict=True)
    ]
    model = Model(
        format=1,
        tuner=version(),
        **order.about,
        objective=job.objective,
        parameters=dict(job.parameters),
        data=dict(job.data),
        metric=job.metric,
        metrics=[asdict(metric) for metric in job.metrics],
        data_fingerprint=data.fingerprint,
        source_fingerprint=base.source,
        classes=list(data.classes),
        inputs=list(data.inputs),
        reading=_reading(data, "unchecked"),
        arithmetic=EvaluationSetup(
            device=cast(Literal["cpu", "cuda", "mps"], data.mean.device.type),
            threads=order.threads,
            evaluation_batch=evaluation_size,
            versions=dict(base.numerics),
        ),
        sizes={name: len(split) for name, split in _residents(data).items()},
        weights_sha256=hashlib.sha256(files[document.WEIGHTS]).hexdigest(),
        predictions_sha256=hashlib.sha256(files[document.PREDICTIONS]).hexdigest(),
        origin="; ".join(dict.fromkeys(origins)),
        agreement={},
        members=members if len(members) > 1 else [],
    )
    how = _files(bench, job, model, data)
    return model.model_copy(update={"reading": _reading(data, how)})


def _reading(data: Prepared, how: Files) -> Preprocessing:
    pixels = str(data.train.images.dtype).removeprefix("torch.")
    reading = data.reading
    return Preprocessing.model_validate(
        {
            "depth": reading.depth if reading is not None else pixels,
            "kind": reading.kind if reading is not None else "",
            "fit": reading.fit if reading is not None else "stretch",
            "depths": reading.depths if reading is not None else "same",
            "window": list(reading.window) if reading is not None and reading.window else None,
            "pixels": pixels,
            "mean": data.mean.flatten().tolist(),
            "scale": data.scale.flatten().tolist(),
            "files": how,
        }
    )


def _files(bench: Workbench, job: Job, model: Model, data: Prepared) -> Files:
    """Check whether tuner's decoder gives the same pixels as the objective."""
    found = bench.found(job)
    if found.reads_files:
        return "own"
    written = job.data.get("path")
    if not isinstance(written, str) or not written:
        return "unchecked"
    below = Path(written) if Path(written).is_dir() else Path(written).parent
    split = data.val if data.test is None else data.test
    some = range(0, len(split), max(1, len(split) // LOOKED_AT))
    places = {below / split.ids[n]: split.images[n].cpu().numpy() for n in some}
    alike = compare_files(ImageReader(model, found), places)
    if alike is None:
        return "unchecked"
    return "alike" if alike else "unlike"


def _agreement(
    data: Prepared, predictor: Predictor, held: StoredPredictions, progress: Progress
) -> dict[str, Agreement]:
    residents = _residents(data)
    agreement: dict[str, Agreement] = {}
    for name in JUDGED:
        if name in held.splits:
            images = [image.cpu().numpy() for image in residents[name].images]
            found = predictor.predict(images, progress)
            agreement[name] = compare(found, held.splits[name].log_probabilities)
    if not agreement:
        raise UserError("The study stored no predictions of this trial; there is nothing to check.")
    return agreement


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror}.") from None


def _work(body: Body, progress: Progress) -> Body:
    model, lines = fulfil(Order.read(body), progress)
    return {"model": model.model_dump(mode="json"), "plain": lines}


def main(_arguments: Sequence[str]) -> int:
    """Do the work described on standard input."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))
