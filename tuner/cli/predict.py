"""`tuner predict`: classifies images, or the study's own splits, with a saved network."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import options
from tuner.cli.terminal import REPLACED, clear_progress, echo, echo_json, show_progress, write_bytes
from tuner.errors import EXIT_DONE, EXIT_FAILURES, UserError
from tuner.settings import Settings

if TYPE_CHECKING:
    from tuner.answers.sheets.contents import Sheet
    from tuner.winner.document import Agreement, Model

TOLD = 10
"""The most unreadable files that are named; --json lists all."""


@click.command(
    epilog=options.examples(
        "tuner predict models/lr_sched scans/ one_more.png -o predictions.csv",
        "tuner predict models/lr_sched --split test",
    )
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.argument("images", nargs=-1, metavar="IMAGES…")
@click.option(
    "--split",
    type=click.Choice(["test", "val"]),
    help="Predict the study's own images instead, and compare with the stored predictions.",
)
@click.option(
    "--data-path",
    metavar="PATH",
    help="With --split: current location of the study's data, if it has moved.",
)
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    metavar="FILE",
    help="CSV file to write; - is standard output.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda:N",
    help="Device to use; auto picks the kind the network was trained on.",
)
@options.overwrite_option
@options.objectives_option
@options.json_option
@click.pass_obj
def predict(
    settings: Settings,
    folder: Path,
    images: tuple[str, ...],
    split: str | None,
    data_path: str | None,
    output: str,
    device: str,
    objective_folders: tuple[Path, ...],
    *,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Classify images with a network saved by `tuner best --save`.

    IMAGES are files, NPY or NPZ arrays, or folders of these; they are read
    like the study's images. An image that the study used is recognised by its
    pixels, and its prediction is compared with the stored one; if they differ
    by more than rounding error, the exit code is 1. Unreadable files are
    listed and skipped, and the exit code is 1. Neither the database nor the
    study file is needed. An existing predictions file is replaced; any other
    file only with --overwrite.
    """
    from tuner.answers.sheets.export import as_csv
    from tuner.files import begins_with, check_output, write_output
    from tuner.questions import ask, paths
    from tuner.winner import document
    from tuner.winner.pictures import image_files

    _check(images, split, data_path, output)
    model = document.read(folder)
    # Predicting may take hours, so refuse to replace a file before that.
    earlier = begins_with(as_csv(_columns(model, split), ()))
    if output != "-":
        check_output(Path(output), overwrite=overwrite, recognised=earlier)
    work = {
        "folder": str(folder.absolute()),
        "files": [str(file) for file in image_files(images)],
        "split": split,
        "path": None if data_path is None else str(Path(data_path).expanduser().absolute()),
        "cache": str(settings.home / "cache"),
        "folders": paths(options.objective_folders(None, objective_folders)),
        "device": _device(model, device),
    }
    # The objective's code runs in a child process, which has no database password.
    body = ask("tuner.winner.prediction", work, show_progress, "predicted the images")
    clear_progress()
    sheet = _of_split(model, body, split) if split is not None else _of_files(model, body)
    content = as_csv(sheet.columns, sheet.rows)
    replaced = False
    if as_json:
        echo_json(_described(model, body, sheet))
    if output != "-":
        file = Path(output)
        replaced = write_output(file, content, overwrite=overwrite, recognised=earlier)
    elif not as_json:
        write_bytes(content.encode())
    _tell(model, body, output + REPLACED * replaced if not as_json else "-", split)
    return EXIT_FAILURES if body.get("faults") or _differs(body) else EXIT_DONE


def _check(images: Sequence[str], split: str | None, path: str | None, output: str) -> None:
    if bool(images) == (split is not None):
        raise UserError(
            "Specify images (files or folders), or one of the study's splits with --split."
        )
    if path is not None and split is None:
        raise UserError("--data-path requires --split.")
    if not output or (output != "-" and Path(output).is_dir()):
        raise UserError(f"-o {output or repr(output)} is not a file; give a file name.")
    ending = Path(output).suffix.lower()
    if output != "-" and ending not in ("", ".csv", ".txt"):
        raise UserError(
            f"-o {output}: predictions are written as CSV; name a file that ends in .csv."
        )


def _device(model: "Model", asked: str) -> str:
    if asked != "auto":
        return asked
    from tuner.fleet.devices import crew_devices

    return crew_devices("auto", 1, 1)[0] if model.arithmetic.device == "cuda" else "cpu"


def _of_split(model: "Model", body: Mapping[str, Any], split: str) -> "Sheet":
    """Return the sheet of `tuner export --predictions`, with log-probabilities added."""
    from tuner.answers.sheets.contents import Sheet

    trial, epoch = (None, None) if model.members else (model.trial, model.epoch)
    rows = [
        [
            *(trial, split, model.at, epoch, name, patient, model.classes[label]),
            *(guess, guess == model.classes[label], *shares, *logs),
        ]
        for name, patient, label, (guess, _, shares, logs) in zip(
            body["names"], body["patients"], body["labels"], _numbers(model, body), strict=True
        )
    ]
    return Sheet(_columns(model, split), rows)


def _of_files(model: "Model", body: Mapping[str, Any]) -> "Sheet":
    from tuner.answers.sheets.contents import Sheet

    rows = [
        [name, known, guess, top, *shares, *logs]
        for name, known, (guess, top, shares, logs) in zip(
            body["names"], body["known"], _numbers(model, body), strict=True
        )
    ]
    return Sheet(_columns(model, None), rows)


def _columns(model: "Model", split: str | None) -> tuple[str, ...]:
    from tuner.answers.sheets.contents import PREDICTION_COLUMNS

    shares, logs = ([f"{kind}_{name}" for name in model.classes] for kind in ("p", "log_p"))
    of_image = ("path", "known", "predicted", "probability")
    return (*(of_image if split is None else PREDICTION_COLUMNS), *shares, *logs)


def _numbers(
    model: "Model", body: Mapping[str, Any]
) -> Iterator[tuple[str | None, float, list[float], list[float]]]:
    """Yield each image's class, its probability, and the probabilities of all classes."""
    import numpy as np

    for logs, place in zip(body["logs"], body["taken"], strict=True):
        shares = np.exp(np.array(logs, np.float64)).tolist()
        known = not np.isnan(shares).any()
        yield model.classes[place] if known else None, shares[place], shares, logs


def _described(model: "Model", body: Mapping[str, Any], sheet: "Sheet") -> dict[str, Any]:
    from tuner.answers.sheets.export import json_cell

    return {
        "study": model.study,
        "trial": None if model.members else model.trial,
        "members": [member.trial for member in model.members],
        "classes": model.classes,
        "images": [
            {name: json_cell(cell) for name, cell in zip(sheet.columns, row, strict=True)}
            for row in sheet.rows
        ],
        "unreadable": [{"path": name, "why": why} for name, why in body.get("faults", [])],
        "stored": body["agreement"],
        "source_changed": body["source_changed"],
    }


def _agreements(body: Mapping[str, Any]) -> dict[str, "Agreement"]:
    from tuner.winner.document import Agreement

    return {name: Agreement.model_validate(one) for name, one in body["agreement"].items()}


def _differs(body: Mapping[str, Any]) -> bool:
    return any(not agreement.matches for agreement in _agreements(body).values())


def _tell(model: "Model", body: Mapping[str, Any], output: str, split: str | None) -> None:
    """Print on standard error what the numbers do not show."""
    from tuner.winner.agreement import words

    def say(text: str) -> None:
        echo(text, err=True)

    for name, why in body.get("faults", [])[:TOLD]:
        say(f"Skipped {name}: {why}.")
    more = len(body.get("faults", [])) - TOLD
    if more > 0:
        say(f"{more} more were skipped; --json lists them all.")
    for name, agreement in _agreements(body).items():
        say(words(agreement, name))
    trained = sum("train" in known.split("+") for known in body.get("known", []))
    if trained:
        say(
            f"{trained} image{'s were' if trained > 1 else ' was'} used for training: "
            "predictions for them do not test the network."
        )
    if split is None and model.reading.files == "unchecked" and len(body["names"]):
        known = sum(bool(one) for one in body["known"])
        if known < len(body["names"]):
            say(
                "The study's images did not come from files: check for yourself that these "
                "are like them (view, contrast, polarity)."
            )
    if _differs(body):
        changed = "The code of tuner or of the objective has changed since the model was saved."
        same = "The code is unchanged: compare the versions and the device with model.json."
        say(changed if body["source_changed"] else same)
    if output != "-":
        say(f"{len(body['names'])} images: {output}")
