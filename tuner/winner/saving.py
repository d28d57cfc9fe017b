"""Saves a network, or an ensemble, as a folder: weights, document, predictions and card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.answers.ensemble import Ensemble
from tuner.answers.ensemble import described as ensemble_described
from tuner.answers.winner import Winner, described, judged_epoch
from tuner.errors import UserError
from tuner.questions import Progress, ask, paths
from tuner.results import Results
from tuner.winner import document
from tuner.winner.agreement import words
from tuner.winner.card import card
from tuner.winner.document import Model
from tuner.winner.folder import written_whole
from tuner.winner.kept import JUDGED, PredictedSplit, StoredPredictions


@dataclass(frozen=True)
class Workspace:
    """This machine's folders, and the device to compute on."""

    cache: Path
    folders: tuple[Path, ...]
    """Of objectives."""
    checkpoints: str | None
    labels: Mapping[int, Mapping[str, str]]
    """By trial, the labels that identify its checkpoints."""
    device: str


def stored(results: Results, subject: Winner | Ensemble) -> StoredPredictions:
    """Return the stored predictions at the judged epoch.

    For an ensemble, they are the mean of its seeds' probabilities.
    """
    if isinstance(subject, Ensemble):
        predicted = subject.predictions
    else:
        kept = results.kept_splits(subject.number)
        predicted = {
            name: results.predicted(subject.number, name) for name in JUDGED if name in kept
        }
    return StoredPredictions(
        {
            name: PredictedSplit(read.ids, read.labels, read.log_probabilities)
            for name, read in predicted.items()
        }
    )


def save(
    subject: Winner | Ensemble,
    stored: StoredPredictions,
    target: Path,
    machine: Workspace,
    progress: Progress,
    *,
    overwrite: bool,
    allow_different: bool,
    form: str | None = None,
) -> Model:
    """Write the folder atomically; weights with different predictions are refused.

    The weights are recovered in a separate process without a password, the only one that runs
    the objective's code.
    """
    with written_whole(target, overwrite=overwrite) as folder:
        (folder / document.PREDICTIONS).write_bytes(stored.content())
        answer = ask(
            "tuner.winner.training",
            order_of(subject, machine, folder) | {"form": form},
            progress,
            "trained the winner",
        )
        # Through JSON text, as it will be read again; JSON has no non-finite numbers.
        model = Model.model_validate_json(Model.model_validate(answer["model"]).text())
        if not allow_different:
            _refuse_different(subject, model)
        (folder / document.NAME).write_text(model.text(), "utf-8")
        (folder / document.CARD).write_text(
            card(subject, model, target.name, answer["plain"]), "utf-8"
        )
    return model


def order_of(subject: Winner | Ensemble, machine: Workspace, folder: Path) -> dict[str, Any]:
    """Return the order for the process that recovers the weights, as JSON."""
    if isinstance(subject, Ensemble):
        winner, rows = subject.winner, list(subject.setting.seeds)
        result = ensemble_described(subject)
    else:
        winner, rows = subject, [subject.trial.row]
        result = described(subject)
    spec = winner.study.spec
    chosen = {name: winner.trial.row[name] for name in spec.varied}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return {
        "trials": [
            {
                "job": spec.job(chosen, row["seed"]).plain(),
                "trial": row["trial"],
                "epoch": judged_epoch(winner.study, row),
                "last_epoch": row["epochs_run"],
                "last_val_loss": row["last_val_loss"],
                "labels": dict(machine.labels[row["trial"]]),
            }
            for row in rows
        ],
        "about": {
            "study": winner.study.full_name,
            "question": spec.question,
            "trial": winner.number,
            "seed": winner.trial.row["seed"],
            "at": spec.search.at,
            "epoch": winner.epoch,
            "result": result,
            # A saved folder may be passed on, so the machine of the launch is left out.
            "provenance": {k: v for k, v in winner.study.provenance.items() if k != "host"},
        },
        "data_fingerprint": winner.trial.setup["data_fingerprint"],
        "checkpoints": machine.checkpoints,
        "device": machine.device,
        "threads": threads_of(winner),
        "cache": str(machine.cache),
        "folders": paths(machine.folders),
        "folder": str(folder),
    }


def threads_of(winner: Winner) -> int:
    """Return the trial's number of threads, as recorded by its trainer."""
    noted = str(winner.trial.setup.get("notes", {}).get("threads", "")).partition(":")[0]
    return int(noted) if noted.isdigit() and int(noted) > 0 else winner.study.spec.limits.threads


def _refuse_different(subject: Winner | Ensemble, model: Model) -> None:
    told = [
        words(agreement, name)
        for name, agreement in model.agreement.items()
        if not agreement.matches
    ]
    if told:
        winner = subject.winner if isinstance(subject, Ensemble) else subject
        raise UserError(
            "These weights do not reproduce the stored predictions of the "
            f"{model.title} of {winner.study.title} "
            f"predicted when the study was trained ({model.origin}). {' '.join(told)} Nothing was "
            "saved. The machine, torch or the objective's code has changed since; save where it "
            "was trained, or use --allow-different, which notes the differences in model.json and "
            "the card."
        )
