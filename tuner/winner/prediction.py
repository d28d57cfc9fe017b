"""Predicts with a saved network, in a separate process that has no database password."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load

from tuner.errors import DataError, UserError
from tuner.questions import Body, Progress, serve
from tuner.records import SplitName, Value, most_probable
from tuner.text import storable_name
from tuner.train.device import open_device
from tuner.train.objective import FoundObjective, find, source_fingerprint
from tuner.train.state import Weights
from tuner.winner import document, kept
from tuner.winner.agreement import compare, joined
from tuner.winner.document import Agreement, Model
from tuner.winner.kept import JUDGED, StoredPredictions, digest
from tuner.winner.pictures import ReadImage, pictures
from tuner.winner.predictor import Predictor, memory_of

MEMORY = 512 << 20
"""The most bytes of images that are read before they are predicted."""


@dataclass(frozen=True)
class Opened:
    """A saved folder, read and checked, with its network ready."""

    model: Model
    held: StoredPredictions
    found: FoundObjective
    predictor: Predictor


def open_saved(folder: Path, folders: Sequence[Path], device: str) -> Opened:
    """Open a folder that `tuner best --save` wrote; every file in it is checked."""
    model = document.read(folder)
    weights = _weights(folder, model)
    path = folder / document.PREDICTIONS
    held = kept.read(_sound(path, model.predictions_sha256), path, len(model.classes))
    found = find(model.objective, folders)
    _check_parameters(model, found, folder)
    model = _with_defaults(model, found)
    predictor = Predictor(model, weights, found, open_device(device, model.arithmetic.threads))
    return Opened(model, held, found, predictor)


def predict_split(
    opened: Opened, split: SplitName, path: str | None, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Predict a split of the study's own data."""
    model = opened.model
    if split not in opened.held.splits:
        raise UserError(
            f"The study has no {split} images; use --split {next(iter(opened.held.splits))}."
        )
    keys: dict[str, Value] = {**model.data, **({"path": path} if path is not None else {})}
    data = opened.found.load_data(keys, cache, progress)
    if data.fingerprint != model.data_fingerprint:
        raise DataError(
            "The data are not those of the study: images, labels or their division have changed "
            f"(fingerprint {data.fingerprint[:12]}, then {model.data_fingerprint[:12]}). Put them "
            "back as they were, or predict files: `tuner predict DIR IMAGES`."
        )
    part = data.test if split == "test" else data.val
    assert part is not None, "equal data have equal splits"
    stored = opened.held.splits[split]
    images = [image if image.ndim == 3 else image[None] for image in part.images]
    logs = opened.predictor.predict(images, progress)
    return {
        "names": list(stored.ids),
        "patients": list(part.patients) or [None] * len(stored.ids),
        "labels": stored.labels.tolist(),
        "logs": logs.tolist(),
        "taken": most_probable(logs).tolist(),
        "agreement": {split: _plain(compare(logs, stored.log_probabilities))},
    }


def predict_files(opened: Opened, names: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Predict files in order; images of the study are marked."""
    body: dict[str, Any] = {"names": [], "known": [], "logs": [], "taken": [], "faults": []}
    agreements: dict[SplitName, list[Agreement]] = {name: [] for name in JUDGED}
    known = opened.held.known()
    for group in _groups(pictures(names, opened.model, opened.found, progress), opened.model):
        read = [(picture.name, picture.pixels) for picture in group if picture.pixels is not None]
        body["faults"] += [
            [storable_name(picture.name), picture.fault]
            for picture in group
            if picture.pixels is None
        ]
        places = [known.of(digest(pixels), name) for name, pixels in read]
        logs = opened.predictor.predict([pixels for _, pixels in read], progress)
        for split, parts in agreements.items():
            stored = opened.held.splits.get(split)
            pairs = [
                (number, place.number)
                for number, seen in enumerate(places)
                for place in [one for one in seen if one.split == split][:1]
            ]
            if pairs and stored is not None:
                mine, theirs = map(list, zip(*pairs, strict=True))
                parts.append(compare(logs[mine], stored.log_probabilities[theirs]))
        body["names"] += [storable_name(name) for name, _ in read]
        body["known"] += ["+".join(sorted({place.split for place in one})) for one in places]
        body["logs"] += logs.tolist()
        body["taken"] += most_probable(logs).tolist()
    body["agreement"] = {name: _plain(joined(parts)) for name, parts in agreements.items() if parts}
    return body


def _groups(pictures: Iterator[ReadImage], model: Model) -> Iterator[list[ReadImage]]:
    """Group images so that each group's memory is bounded."""
    most = max(1, MEMORY // memory_of(model))
    group: list[ReadImage] = []
    for picture in pictures:
        group.append(picture)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _weights(folder: Path, model: Model) -> Weights:
    path = folder / document.WEIGHTS
    try:
        return dict(load(_sound(path, model.weights_sha256)))
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a file of weights ({error}); save the model again."
        ) from None


def _sound(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{path} does not match {document.NAME} beside it: it was damaged or replaced. "
            "Save the model again, or copy its whole folder again."
        )
    return content


def _check_parameters(model: Model, found: FoundObjective, folder: Path) -> None:
    """Refuse values that no study of this objective could have."""
    declared = found.objective.declarations()
    tables = (("parameters", model.parameters, declared.parameters),)
    faults = []
    for table, given, known in (*tables, ("data", model.data, declared.data)):
        for name, value in given.items():
            fault = (
                known[name].fault(value) if name in known else "the objective does not declare it"
            )
            faults += [f"{table}.{name}: {fault}"] if fault else []
    if faults:
        raise UserError(
            f"{folder / document.NAME} does not fit objective {model.objective!r} as it is in "
            f"{found.folder}: {'; '.join(faults[:5])}. --objectives FOLDER names another place."
        )


def _with_defaults(model: Model, found: FoundObjective) -> Model:
    """Return the document with defaults for parameters that the objective has gained since."""
    declared = found.objective.declarations()
    filled = {
        "parameters": {name: parameter.default for name, parameter in declared.parameters.items()},
        "data": {name: parameter.default for name, parameter in declared.data.items()},
    }
    return model.model_copy(
        update={
            "parameters": {**filled["parameters"], **model.parameters},
            "data": {**filled["data"], **model.data},
        }
    )


def _plain(agreement: Agreement) -> dict[str, Any]:
    return agreement.model_dump()


def _work(body: Body, progress: Progress) -> Body:
    folders = [Path(one) for one in body["folders"]]
    opened = open_saved(Path(body["folder"]), folders, body["device"])
    if body["split"] is None:
        found = predict_files(opened, body["files"], progress)
    else:
        split = cast(SplitName, body["split"])
        found = predict_split(opened, split, body["path"], Path(body["cache"]), progress)
    changed = source_fingerprint(opened.found) != opened.model.source_fingerprint
    return {**found, "source_changed": changed}


def main(_arguments: Sequence[str]) -> int:
    """Do the work described on standard input."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))
