"""What each column of tables and exports means, its unit, which determines how it is shown.

Running this module writes docs/columns.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuner.records import (
    BUILT_IN,
    EPOCH_SECONDS,
    FRACTION,
    NATS,
    READY,
    SECONDS,
    SHARE,
    Metric,
    Unit,
)

if TYPE_CHECKING:
    from tuner.results import Results

__all__ = ["unit_of", "units"]

SLOPE = Unit("nats per epoch", 1, scientific=True)
OF_THE_LOSS = replace(NATS, name="of the loss", low=-math.inf)
Meanings = Mapping[str, tuple[Unit | str, str]]
"""The unit and meaning of each column; the unit is a text if the column has no figures."""

TRIALS: Meanings = {
    "trial": ("", "The trial's number in its study, from 0."),
    "state": (
        "",
        "COMPLETE, PRUNED, DIVERGED, FAILED, PAUSED, RUNNING, or WAITING for a worker.",
    ),
    "reason": ("", "Why it failed, or at which epoch it was pruned or diverged; empty otherwise."),
    "seed": ("", "The seed of initial weights, order of images, dropout and augmentation."),
    "attempts": ("", "How often it was started or resumed by a worker."),
    "best_epoch": ("epoch", "The epoch that is best by the study's metric, from 1."),
    "train_loss": (OF_THE_LOSS, "Training loss, averaged over the epoch."),
    "train_nll": (NATS, "Negative log-likelihood of the true class, while training."),
    "train_acc": (SHARE, "Accuracy while training, augmentation and dropout included."),
    "val_loss": (
        NATS,
        "Negative log-likelihood of the true class, regardless of the training loss.",
    ),
    "val_acc": (SHARE, "Validation accuracy."),
    "test_loss": (NATS, "Like `val_loss`, on the test images."),
    "test_acc": (SHARE, "Test accuracy; measured once, when the trial completes."),
    "gap": (SHARE.difference, "`val_acc` minus `test_acc`."),
    "epochs_run": ("", "Number of epochs recorded, including reused ones."),
    "epochs_reused": ("", "Number of epochs reused from another trial."),
    "seconds": (SECONDS, "Training time of the epochs that this trial trained itself."),
    "parameter_count": ("", "Number of trainable parameters."),
    "device": ("", "Device used for training."),
    "started": ("time, UTC", "When the trial was created."),
    "ended": ("time, UTC", "When it ended; empty while it runs."),
}
FURTHER: Meanings = {
    "val_auc": (FRACTION, "Area under the ROC curve; one-vs-rest mean if more than two classes."),
    "val_balanced_acc": (SHARE, "Mean of the per-class recalls."),
    "val_sensitivity": (
        SHARE,
        "Recall of class 1 (true positive rate); mean if more than two classes.",
    ),
    "val_specificity": (
        SHARE,
        "Recall of class 0 (true negative rate); mean if more than two classes.",
    ),
    "seconds_per_epoch": (
        EPOCH_SECONDS,
        "Mean over all epochs, reused ones with their original duration.",
    ),
    "train_seconds": (SECONDS, "Total training time over all epochs, excluding validation."),
    "val_seconds": (EPOCH_SECONDS, "Validation, over all epochs."),
    "late_train_slope": (SLOPE, "Slope of `train_nll` over the last 40% of epochs."),
    "late_val_slope": (SLOPE, "Slope of `val_loss` over the last 40% of epochs."),
}
EPOCHS: Meanings = {
    "epoch": ("epoch", "From 1."),
    "lr": ("", "The learning rate at the epoch's first step."),
    "seconds": (EPOCH_SECONDS, "Duration of the epoch; for reused epochs, the original duration."),
    "reused": ("", "Whether it was reused from another trial."),
    "val_seconds": (EPOCH_SECONDS, "The part of `seconds` that validation took."),
}
PREDICTIONS: Meanings = {
    "split": ("", "val or test."),
    "at": ("", "Whether the weights are from the best or the last epoch."),
    "epoch": ("epoch", "The epoch whose weights made the prediction."),
    "id": ("", "The image."),
    "patient": ("", "Patient ID; empty if unknown."),
    "label": ("", "Its true class."),
    "predicted": ("", "Most probable class; ties go to the higher class number."),
    "right": ("", "Whether the prediction is correct."),
    "p_CLASS": (FRACTION, "The probability of each class."),
}
COMPARISONS: Meanings = {
    "factor": ("", "The factor being compared."),
    "metric": ("", "The metric that is compared."),
    "level": ("", "One value of the parameter."),
    "trials": ("", "All trials of the level."),
    "complete": ("", "Number of these that completed."),
    "pruned": ("", "Number pruned (excluded from means)."),
    "diverged": ("", "Number diverged (loss or metric not finite; excluded from means)."),
    "failed": ("", "Number failed (excluded from means)."),
    "n": ("", "Number of seeds (or sampled configurations) in the mean."),
    "images": ("", "Images in the interval; 0 if it is over seeds only."),
    "patients": ("", "Number of patients (the sampling unit of all intervals); 0 if unknown."),
    "mean": ("of the metric", "Mean over seeds, the other parameters' levels and images."),
    "mean_low": ("of the metric", "Lower end of its 95% interval."),
    "mean_high": ("of the metric", "Upper end of its 95% interval."),
    "reference": ("", "The reference level: the best, or the one given by `--reference`."),
    "difference": ("of the metric", "Mean minus the reference's mean."),
    "difference_low": (
        "of the metric",
        "Lower end; the intervals are simultaneous over all levels.",
    ),
    "difference_high": ("of the metric", "Upper end."),
    "p": ("", "p-value, corrected for all levels and for having picked the best."),
    "verdict": (
        "",
        (
            "best, tied, different (in Markdown and LaTeX: better or worse), one seed, too few "
            "patients, or not compared."
        ),
    ),
}
SETTINGS: Meanings = {
    "rank": ("", "Rank by the mean of the study's metric, from 1; empty if no seed completed."),
    "FIGURE": ("of the figure", "Mean over the setting's complete seeds."),
    "FIGURE_low": ("of the figure", "Lower end of its 95% t interval over these seeds only."),
    "FIGURE_high": ("of the figure", "Upper end."),
    "n": ("", "Seeds that the means are over."),
    "trials": ("", "Number of trials of the setting; `complete`, `pruned` etc. break it down."),
    "median_trial": ("", "The trial of the median seed: the network that stands for the setting."),
}
HEAD = """# Columns of the exports

Generated by `make docs`. The columns are the same in every format (`tuner export --format
csv|json|parquet|markdown|latex|excel`), and in the frames of `tuner.open`. Fractions are between 0
and 1, and Markdown and LaTeX give accuracies and other shares in per cent. An empty cell (null)
means that the value is unknown. CSV, JSON and Parquet keep every digit, Excel 15. In CSV files,
text that a spreadsheet would interpret as a formula is prefixed with an apostrophe.

## Tables for a thesis

Markdown and LaTeX are for people. By default they hold what `tuner table` shows: settings with
their means ± half of the 95% interval over seeds, or the best trials if there is one seed.
`--columns` picks others, `--wide` has all of them.

    tuner export lr_sched -o table.tex --caption "Schedules compared" --label tab:schedules
    tuner export lr_sched --where scheduler=cosine --sort -test_acc --digits 2 -o cosine.md
    tuner export lr_sched --columns trial,scheduler,val_acc,test_acc -o trials.tex

LaTeX needs the package booktabs. With `--caption` the table floats; caption and cells are escaped,
so `%` can be used as is. `--where` compares any column with a value (`=`, `!=`, `<`, `<=`, `>`,
`>=`; `test_acc!=` keeps rows with a value). Several conditions must all hold and are applied before
`--best`. `--sort COLUMN` orders rows, `-COLUMN` from the largest. `--digits N` rounds figures to N
digits after the point in every format; parameters keep theirs.
"""

OF_TRIALS = """## Trials

One row per trial. After `attempts` come the study's varied and then its fixed parameters, each
under its own name. Values are from the best epoch; columns prefixed with `last_` are from the last
epoch.
A study's additional metrics (`[search] metrics`, or declared by its objective) follow
`gap`: `val_NAME`, `test_NAME` and `gap_NAME`, by how much it is worse on test.
"""
OF_SETTINGS = """## Settings (`--settings`)

One row per setting, best first. After `rank` come the varied parameters; FIGURE is the study's
metric, val_loss, val_acc, test_acc and gap, and further metrics on validation and test.
"""
OF_COMPARISONS = """## Comparisons (`--comparisons`)

One row per level of each compared factor; [statistics.md](statistics.md) says how.
"""


ENDS = ("", "_low", "_high")


def unit_of(column: str, metrics: Sequence[Metric] = ()) -> Unit | None:
    """Return the unit of a column of figures; None for a column that holds none.

    `metrics` are the study's metrics in addition to the built-in ones.
    """
    name = column.removeprefix("last_")
    for meanings in (TRIALS, FURTHER, EPOCHS):
        if name in meanings:
            unit = meanings[name][0]
            return unit if isinstance(unit, Unit) else None
    split, _, figure = name.partition("_")
    for metric in (*metrics, *BUILT_IN, *READY.values()):
        if metric.name == figure and split in ("val", "test"):
            return metric.read_in
        if metric.name == figure and split == "gap":
            return metric.read_in.difference
    return None


def units(columns: Sequence[str], results: "Results", compared: str | None) -> dict[str, Unit]:
    """Return the units of a sheet's columns; means and differences have that of `compared`."""
    found = {name: unit_of(name, results.spec.metrics) for name in columns}
    metric = unit_of(compared or results.metric, results.spec.metrics)
    if metric is not None:
        found |= {f"mean{end}": metric for end in ENDS}
        found |= {f"difference{end}": metric.difference for end in ENDS}
    for name in columns:
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem != name:
            found[name] = found[name] or unit_of(stem, results.spec.metrics)
    return {name: unit for name, unit in found.items() if unit is not None}


def page() -> str:
    """Return docs/columns.md."""
    from tuner.answers.sheets.contents import COMPARISON_COLUMNS, PREDICTION_COLUMNS
    from tuner.results import EPOCH_COLUMNS, FIGURES, LEADING, TRAILING
    from tuner.results import FURTHER as FURTHER_COLUMNS

    plain = [name for name in TRIALS if name in (*LEADING, "best_epoch", *FIGURES, *TRAILING)]
    parts = [
        HEAD,
        OF_TRIALS,
        _table(plain, TRIALS),
        "`--wide` adds these columns (`val_` and `test_` metrics also with the prefix `last_`):\n",
        _table([name for name in FURTHER_COLUMNS if name in FURTHER], FURTHER),
        OF_SETTINGS,
        _table(tuple(SETTINGS), SETTINGS),
        "## Epochs (`--epochs`)\n\nOne row per epoch. Further metrics follow, `val_NAME`.\n",
        _table(EPOCH_COLUMNS, {**TRIALS, **FURTHER, **EPOCHS}),
        "## Predictions (`--predictions`)\n\nOne row per image predicted by a complete trial.\n",
        _table((*PREDICTION_COLUMNS, "p_CLASS"), {**TRIALS, **PREDICTIONS}),
        OF_COMPARISONS,
        _table(COMPARISON_COLUMNS, COMPARISONS),
    ]
    return "\n".join(parts)


def _table(names: Sequence[str], meanings: Meanings) -> str:
    lines = ["| column | unit | what it is |", "|---|---|---|"]
    for name in names:
        unit, meaning = meanings[name]
        lines.append(f"| `{name}` | {unit.name if isinstance(unit, Unit) else unit} | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
