"""What each exported column means: running this module writes docs/columns.md."""

from collections.abc import Mapping, Sequence

from tuner.answers.sheets.contents import COMPARISON_COLUMNS, PREDICTION_COLUMNS
from tuner.results import EPOCH_COLUMNS, FIGURES, LEADING, TRAILING
from tuner.results import FURTHER as FURTHER_COLUMNS

ACCURACY = "fraction"
LOSS = "nats"

TRIALS: Mapping[str, tuple[str, str]] = {
    "trial": ("", "The trial's number in its study, from 0."),
    "state": (
        "",
        "COMPLETE, PRUNED, DIVERGED, FAILED, RUNNING, or WAITING for a worker.",
    ),
    "reason": ("", "Why it failed, or where it was pruned or diverged; else empty."),
    "seed": ("", "The seed of initial weights, order of images, dropout and augmentation."),
    "attempts": ("", "How often it was started or resumed by a worker."),
    "best_epoch": ("epoch", "The epoch that is best by the study's metric, from 1."),
    "train_loss": ("of the loss", "Mean of the loss that was trained on, while training."),
    "train_nll": (LOSS, "Negative log-likelihood of the true class, while training."),
    "train_acc": (ACCURACY, "Accuracy while training, augmentation and dropout included."),
    "val_loss": (
        LOSS,
        "Negative log-likelihood of the true class, regardless of the training loss.",
    ),
    "val_acc": (ACCURACY, "Validation accuracy."),
    "test_loss": (LOSS, "As `val_loss`, on the test images."),
    "test_acc": (ACCURACY, "Test accuracy; measured once, when the trial completes."),
    "gap": (ACCURACY, "`val_acc` minus `test_acc`."),
    "epochs_run": ("", "Epochs recorded, reused ones included."),
    "epochs_reused": ("", "Epochs taken over from another trial that had trained them."),
    "seconds": ("s", "Training time of the epochs that this trial trained itself."),
    "parameter_count": ("", "Weights that are trained."),
    "device": ("", "What it was trained on."),
    "started": ("time, UTC", "When the trial was created."),
    "ended": ("time, UTC", "When it ended; empty while it runs."),
}
FURTHER: Mapping[str, tuple[str, str]] = {
    "val_auc": (ACCURACY, "Area under the ROC curve; one-against-rest mean of several classes."),
    "val_balanced_acc": (ACCURACY, "Mean over the classes of the share that is right."),
    "val_sensitivity": (ACCURACY, "Share of class 1 that is found; of several classes the mean."),
    "val_specificity": (ACCURACY, "Share of class 0 left alone; of several classes the mean."),
    "seconds_per_epoch": ("s", "Mean over all epochs, reused ones with what they once took."),
    "train_seconds": ("s", "Training without validation, over all epochs."),
    "val_seconds": ("s", "Validation, over all epochs."),
    "late_train_slope": ("nats per epoch", "Slope of `train_nll` over the last 40 % of epochs."),
    "late_val_slope": ("nats per epoch", "Slope of `val_loss` over the last 40 % of epochs."),
}
EPOCHS: Mapping[str, tuple[str, str]] = {
    "epoch": ("epoch", "From 1."),
    "lr": ("", "The learning rate at the epoch's first step."),
    "seconds": ("s", "Of the whole epoch; of a reused one the time when it was first trained."),
    "reused": ("", "Whether it was taken over from another trial."),
    "val_seconds": ("s", "The part of `seconds` that validation took."),
}
PREDICTIONS: Mapping[str, tuple[str, str]] = {
    "split": ("", "val or test."),
    "at": ("", "Weights of the best epoch, or of the last."),
    "epoch": ("epoch", "The epoch whose weights predicted."),
    "id": ("", "The image."),
    "patient": ("", "Whose image it is; empty where the data name no patients."),
    "label": ("", "Its true class."),
    "predicted": ("", "Its most probable class; of equal ones the higher."),
    "right": ("", "Whether that is the true one."),
    "p_CLASS": (ACCURACY, "The probability of each class."),
}
COMPARISONS: Mapping[str, tuple[str, str]] = {
    "factor": ("", "The parameter that is compared by."),
    "metric": ("", "The figure that is compared."),
    "level": ("", "One value of the parameter."),
    "trials": ("", "All trials of the level."),
    "complete": ("", "Of these complete."),
    "pruned": ("", "Of these pruned; in no mean."),
    "diverged": ("", "Of these diverged: a loss or the metric was not finite; in no mean."),
    "failed": ("", "Of these failed; in no mean."),
    "n": ("", "Seeds, or drawn configurations, that the mean is over."),
    "images": ("", "Images in the interval; 0 where it is over seeds alone."),
    "patients": ("", "Patients that the images are of, the unit of all intervals; 0 if not named."),
    "mean": ("of the metric", "Mean over seeds, the other parameters' levels and images."),
    "mean_low": ("of the metric", "Lower end of its 95 % interval."),
    "mean_high": ("of the metric", "Upper end of its 95 % interval."),
    "reference": ("", "The reference level: the best, or the one named by `--reference`."),
    "difference": ("of the metric", "Mean minus the reference's mean."),
    "difference_low": ("of the metric", "Lower end; all levels' intervals hold together."),
    "difference_high": ("of the metric", "Upper end."),
    "p": ("", "p-value, corrected for all levels and for having picked the best."),
    "verdict": ("", "best, tied, different, one seed, too few patients, or not compared."),
}
SETTINGS: Mapping[str, tuple[str, str]] = {
    "rank": ("", "From 1, by the mean of the study's metric; empty without a complete seed."),
    "FIGURE": ("of the figure", "Mean over the setting's complete seeds."),
    "FIGURE_low": ("of the figure", "Lower end of its 95 % t interval over these seeds alone."),
    "FIGURE_high": ("of the figure", "Upper end."),
    "n": ("", "Seeds that the means are over."),
    "trials": ("", "All trials of the setting; `complete`, `pruned` and others count them."),
    "median_trial": ("", "The trial of the median seed: the network that stands for the setting."),
}
HEAD = """# Columns of the exports

Generated by `make docs`. The columns are the same in every format (`tuner export --format
csv|json|parquet|markdown|latex|excel`), and in the frames of `tuner.open`. Fractions are between 0
and 1; empty cells (null) are unknown. CSV, JSON and Parquet keep every digit, Excel 15. In CSV a
text that a spreadsheet would run as a formula begins with an apostrophe.

## Tables for a thesis

Markdown and LaTeX are for people. By default they hold what `tuner table` shows: settings with
their means ± half of the 95 % interval over seeds, or the best trials where there is one seed.
`--columns` picks others, `--wide` has all of them.

    tuner export --study lr_sched -o table.tex --caption "Schedules compared" --label tab:schedules
    tuner export --study lr_sched --where scheduler=cosine --sort -test_acc --digits 3 -o cosine.md
    tuner export --study lr_sched --columns trial,scheduler,val_acc,test_acc -o trials.tex

LaTeX needs the package booktabs. With `--caption` the table floats; caption and cells are escaped,
so a percent sign is one. `--where` compares any column with a value (`=`, `!=`, `<`, `<=`, `>`,
`>=`; `test_acc!=` means that there is one), several conditions must all hold, and they come before
`--best`. `--sort COLUMN` orders rows, `-COLUMN` from the largest. `--digits N` rounds figures to N
digits after the point in every format; parameters keep theirs.
"""

OF_TRIALS = """## Trials

One row a trial. After `attempts` come the study's varied and then its fixed parameters, each under
its own name. Figures are of the best epoch; with `last_` before their name, of the last.
A study's metrics beside the built-in ones (`[search] metrics`, or declared by its objective) follow
`gap`: `val_NAME`, `test_NAME` and `gap_NAME`, by how much it is worse on test.
"""
OF_SETTINGS = """## Settings (`--settings`)

One row a setting, the best first. After `rank` come the varied parameters; FIGURE is the study's
metric, val_loss, val_acc, test_acc and gap, and further metrics on validation and test.
"""
OF_COMPARISONS = """## Comparisons (`--comparisons`)

One row a level of each compared factor; [statistics.md](statistics.md) says how.
"""


def page() -> str:
    """Return docs/columns.md."""
    plain = [name for name in TRIALS if name in (*LEADING, "best_epoch", *FIGURES, *TRAILING)]
    parts = [
        HEAD,
        OF_TRIALS,
        _table(plain, TRIALS),
        "With `--wide`, also (the classes' figures for `val_` and `test_`, and with `last_`):\n",
        _table([name for name in FURTHER_COLUMNS if name in FURTHER], FURTHER),
        OF_SETTINGS,
        _table(tuple(SETTINGS), SETTINGS),
        "## Epochs (`--epochs`)\n\nOne row an epoch. Further metrics follow, `val_NAME`.\n",
        _table(EPOCH_COLUMNS, {**TRIALS, **FURTHER, **EPOCHS}),
        "## Predictions (`--predictions`)\n\nOne row an image that a complete trial predicted.\n",
        _table((*PREDICTION_COLUMNS, "p_CLASS"), {**TRIALS, **PREDICTIONS}),
        OF_COMPARISONS,
        _table(COMPARISON_COLUMNS, COMPARISONS),
    ]
    return "\n".join(parts)


def _table(names: Sequence[str], meanings: Mapping[str, tuple[str, str]]) -> str:
    lines = ["| column | unit | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | {meanings[name][0]} | {meanings[name][1]} |" for name in names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
