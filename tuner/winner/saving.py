"""Saves the network of a trial as a folder: weights, document, predictions and card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.answers.winner import Winner, described
from tuner.errors import UserError
from tuner.questions import Progress, ask, paths
from tuner.records import SplitName
from tuner.results import Results
from tuner.winner import document
from tuner.winner.agreement import words
from tuner.winner.card import card
from tuner.winner.document import Model
from tuner.winner.folder import written_whole
from tuner.winner.kept import JUDGED, Kept, Split


@dataclass(frozen=True)
class Place:
    """Where things are on this machine, and what to compute on."""

    cache: Path
    folders: tuple[Path, ...]
    """Of objectives."""
    checkpoints: str | None
    labels: Mapping[str, str]
    """What tells this trial's checkpoints from all others."""
    device: str


def stored_predictions(results: Results, winner: Winner) -> Kept:
    """Read what the study stored of the trial's predictions at the epoch it is judged at."""
    splits: dict[SplitName, Split] = {}
    kept = results.kept_splits(winner.number)
    for name in (one for one in JUDGED if one in kept):
        read = results.predicted(winner.number, name)
        splits[name] = Split(read.ids, read.labels, read.log_probabilities)
    return Kept(splits)


def save(
    winner: Winner,
    stored: Kept,
    target: Path,
    place: Place,
    progress: Progress,
    *,
    overwrite: bool,
    allow_different: bool,
    form: str | None = None,
) -> Model:
    """Write the folder, whole or not at all; weights that predict otherwise are refused.

    The weights are got back in a process of its own, which has no password and
    in which alone the objective's code runs.
    """
    with written_whole(target, overwrite=overwrite) as folder:
        (folder / document.PREDICTIONS).write_bytes(stored.content())
        answer = ask(
            "tuner.winner.training",
            order_of(winner, place, folder) | {"form": form},
            progress,
            "trained the winner",
        )
        # Through text, as it will be read again: what is not finite has no place in JSON.
        model = Model.model_validate_json(Model.model_validate(answer["model"]).text())
        if not allow_different:
            _refuse_different(winner, model)
        (folder / document.NAME).write_text(model.text(), "utf-8")
        (folder / document.CARD).write_text(
            card(winner, model, target.name, answer["plain"]), "utf-8"
        )
    return model


def order_of(winner: Winner, place: Place, folder: Path) -> dict[str, Any]:
    """Return what the process that gets the weights back is told, as JSON."""
    spec, row = winner.study.spec, winner.trial.row
    chosen = {name: row[name] for name in spec.varied if row[name] is not None}
    return {
        "job": spec.job(chosen, row["seed"]).plain(),
        "about": {
            "study": winner.study.full_name,
            "question": spec.question,
            "trial": winner.number,
            "at": spec.search.at,
            "epoch": winner.epoch,
            "result": described(winner),
            # A saved folder is passed on; on which machine the study was launched is left out.
            "provenance": {k: v for k, v in winner.study.provenance.items() if k != "host"},
        },
        "last_epoch": row["epochs_run"],
        "last_val_loss": row["last_val_loss"],
        "data_fingerprint": winner.trial.setup["data_fingerprint"],
        "checkpoints": place.checkpoints,
        "labels": dict(place.labels),
        "device": place.device,
        "threads": threads_of(winner),
        "cache": str(place.cache),
        "folders": paths(place.folders),
        "folder": str(folder),
    }


def threads_of(winner: Winner) -> int:
    """Return with how many threads the trial was trained, as its trainer noted it."""
    noted = str(winner.trial.setup.get("notes", {}).get("threads", "")).partition(":")[0]
    return int(noted) if noted.isdigit() and int(noted) > 0 else winner.study.spec.limits.threads


def _refuse_different(winner: Winner, model: Model) -> None:
    told = [
        words(agreement, f"{name} images")
        for name, agreement in model.agreement.items()
        if not agreement.exact
    ]
    if told:
        raise UserError(
            f"These weights do not predict what trial {winner.number} of {winner.study.title} "
            f"predicted when it was trained ({model.origin}). {' '.join(told)} Nothing was saved. "
            "The machine, torch or the objective's code has changed since; save where it was "
            "trained, or use --allow-different, which notes the differences in model.json and "
            "the card."
        )
