"""The model card: `README.md` of a saved network."""

from collections.abc import Iterator, Sequence

from tuner.answers import winner as best
from tuner.answers.ensemble import Ensemble
from tuner.answers.ensemble import figures as ensemble_figures
from tuner.answers.ensemble import sentences as ensemble_sentences
from tuner.answers.winner import Winner
from tuner.answers.words import count, level_name, listed, sampling_unit
from tuner.spec.study import DATA
from tuner.winner.agreement import words as agreement_words
from tuner.winner.document import FILES, Model

OF_FILES = {
    "alike": "Files are read by tuner's own decoder; the study's files, looked at when this was "
    "saved, gave the very pixels that were trained on.",
    "own": "Files are read by the objective's own function `read`.",
    "unlike": "Image files cannot be classified, because the objective decodes files differently "
    "from tuner and defines no `read` function. Splits and NPY arrays work.",
    "unchecked": "The study's images were arrays or generated, so check that files decoded by "
    "tuner match these images.",
}
MEANING = {
    "loss": "mean negative log-likelihood of the true class, in nats",
    "accuracy": "share of images that are classified correctly (Wilson's interval)",
    "sensitivity": "share of class 1 that is found (Wilson's interval)",
    "specificity": "proportion of class 0 classified as class 0 (Wilson's interval)",
    "AUC": "probability that a random class-1 image is ranked above a random class-0 image "
    "(DeLong's interval)",
    "ECE": "mean distance between stated confidence and accuracy",
    "Brier": "mean squared distance of the probabilities from the truth",
}


def card(subject: Winner | Ensemble, model: Model, folder: str, plain: Sequence[str] = ()) -> str:
    """Return the model card in Markdown."""
    winner = subject.winner if isinstance(subject, Ensemble) else subject
    sections = (
        _head(winner, model),
        _figures(subject),
        _chosen(subject),
        _trained(winner, model),
        ["## Limits", "", *(f"- {sentence}" for sentence in best.LIMITS)],
        _use(model, folder),
        _plain_pytorch(model, plain),
        _proof(model),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _head(winner: Winner, model: Model) -> Iterator[str]:
    row = winner.trial.row
    yield f"# {_plain(winner.study.title)}, {model.title}"
    yield ""
    network = f"`{row['model']}`, " if "model" in row.cells else ""
    weights = row["parameter_count"]
    what, each, tells = "A network", "", "tells"
    if model.members:
        what = f"{len(model.members)} networks, whose probabilities are averaged,"
        each, tells = " each", "tell"
    yield (
        f"{what} for `{model.objective}` ({network}{weights:,} weights{each}) that {tells} "
        f"{_plain(listed(model.classes))} apart, from images of "
        f"{model.inputs[1]}×{model.inputs[2]} pixels (height × width, "
        f"{count(model.inputs[0], 'channel')})."
    )
    yield ""
    yield f"It comes from a study that asked: *{_plain(model.question)}*"


def _figures(subject: Winner | Ensemble) -> Iterator[str]:
    yield "## What it does"
    yield ""
    if isinstance(subject, Ensemble):
        winner, figures = subject.winner, ensemble_figures(subject)
    else:
        winner, figures = subject, best.figures(subject)
    own = {metric.name: _plain(metric.meaning.rstrip(".")) for metric in winner.trial.own}
    meaning = {**MEANING, **own}
    yield from _table(figures.head, figures.rows)
    yield ""
    yield (
        "In parentheses 95% intervals over "
        f"{sampling_unit(max(part.patients for part in winner.splits))}. "
        + "; ".join(f"{name}: {meaning[name]}" for name in figures.head if name in meaning)
        + "."
    )
    if winner.rates:
        yield (
            f"Class 1 is {_plain(winner.classes[1])}, class 0 {_plain(winner.classes[0])}; an "
            "image is classified as class 1 if its probability is at least 0.5."
        )
    yield ""
    for sentence in (best.gap_sentence(winner), best.cause_sentence(winner)):
        if sentence:
            yield sentence


def _chosen(subject: Winner | Ensemble) -> Iterator[str]:
    yield "## How it was chosen"
    yield ""
    if isinstance(subject, Ensemble):
        winner = subject.winner
        chosen = (*ensemble_sentences(subject), best.selection(winner), best.over_seeds(winner))
    else:
        winner = subject
        chosen = (best.choice(winner), best.selection(winner), best.over_seeds(winner))
    for sentence in chosen:
        if sentence:
            yield sentence
    if winner.setting is not None and not isinstance(subject, Ensemble):
        yield ""
        seeds = best.seeds(winner)
        yield from _table(seeds.head, seeds.rows)
    yield ""
    varied = [[name, level_name(value), "varied"] for name, value in winner.settings.items()]
    fixed = [[name, level_name(value), "fixed"] for name, value in winner.fixed.items()]
    every = subject.members if isinstance(subject, Ensemble) else ()
    numbers = [str(member.seed) for member in every] or [str(winner.trial.row["seed"])]
    seed = [["seed", ", ".join(numbers), ""]]
    yield from _table(("setting", "value", ""), [*varied, *fixed, *seed])


def _trained(winner: Winner, model: Model) -> Iterator[str]:
    yield "## What it was trained on"
    yield ""
    sizes = ", ".join(f"{number:,} {name}" for name, number in model.sizes.items())
    yield f"Images: {sizes}. Fingerprint of the data: `{model.data_fingerprint[:16]}`."
    said = {*winner.study.spec.data, *(name.removeprefix(DATA) for name in winner.settings)}
    keys = [[name, level_name(value)] for name, value in model.data.items() if name in said]
    if keys:
        yield ""
        yield from _table(("data", "value"), keys)
    notes = winner.trial.setup.get("notes", {})
    yield ""
    if notes.get("data"):
        yield _plain(str(notes["data"]))
    if model.members:
        yield f"Trained on {_plain(str(winner.trial.setup.get('device', '')))}; the weights are:"
        yield ""
        rows = [
            [str(member.trial), str(member.seed), str(member.epoch), member.origin]
            for member in model.members
        ]
        yield from _table(("trial", "seed", "weights of epoch", "taken from"), rows)
        return
    yield (
        f"Trained for {count(winner.trial.row['epochs_run'], 'epoch')} on "
        f"{_plain(str(winner.trial.setup.get('device', '')))}; the weights are those of epoch "
        f"{model.epoch}, the {'best on validation' if model.at == 'best' else 'last'}."
    )


def _use(model: Model, folder: str) -> Iterator[str]:
    yield "## How to predict"
    yield ""
    yield f"    tuner predict {folder} IMAGES… -o predictions.csv"
    yield f"    tuner predict {folder} --split {'test' if 'test' in model.sizes else 'val'}"
    yield ""
    yield (
        "Neither the study's database nor its file is needed, only tuner and the objective "
        f"`{model.objective}`. {OF_FILES[model.reading.files]}"
    )
    yield (
        f"In this folder: {listed([f'`{name}`' for name in FILES])}. Nothing in them is executed "
        "or unpickled. How closely predictions are reproduced: docs/best.md."
    )


def _plain_pytorch(model: Model, lines: Sequence[str]) -> Iterator[str]:
    yield "## Without tuner"
    yield ""
    if lines:
        yield "In this folder, with torch, safetensors and Pillow alone:"
        yield ""
        yield "```python"
        yield from lines
        yield "```"
    else:
        yield (
            f"The network is code of the objective `{model.objective}`, so PyTorch alone cannot "
            "build it from its weights. `tuner best --save --format torchscript` writes it as one "
            "file that `torch.jit.load` reads without that code; `tuner.load` reads this folder."
        )


def _proof(model: Model) -> Iterator[str]:
    yield "## Verification of the weights"
    yield ""
    if not model.members:
        yield f"The weights come from: {model.origin}."
    for name, agreement in model.agreement.items():
        yield f"- {agreement_words(agreement, name)}"
    versions = " ".join(f"{name}={value}" for name, value in model.arithmetic.versions.items())
    yield ""
    yield f"Arithmetic: {_plain(versions)}. Weights: sha256 `{model.weights_sha256}`."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"


def _plain(text: str) -> str:
    """Escape a text for Markdown; a class may have any name."""
    safe = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(safe.replace("*", "\\*").replace("`", "\\`").split())
