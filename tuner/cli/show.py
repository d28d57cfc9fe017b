"""`tuner show`: everything about one trial, with its curves."""

from typing import TYPE_CHECKING

import click

from tuner.cli import options
from tuner.cli.terminal import echo_json

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.answers.trial import OneTrial
    from tuner.results import Results
    from tuner.store.studies import Study

EVENTS_SHOWN = 12


@click.command(epilog=options.examples("tuner show lr_sched 7", "tuner show lr_sched 7 --json"))
@options.answering
@click.argument("trial", type=click.IntRange(0))
def show(results: "Results", trial: int, *, as_json: bool) -> None:
    """Show everything about one trial.

    Includes parameters, metrics with intervals, curves, setup and history.
    The 95% intervals reflect variation over images only: they describe this
    trained network, not its setting.
    """
    from tuner.answers.plain import plain
    from tuner.answers.trial import one_trial
    from tuner.store import identities

    read = one_trial(results, trial)
    marks = identities.marks(results.connection, results.study.study_id)
    changes = [mark.sentence for mark in marks]
    if as_json:
        echo_json({"study": results.title, **plain(read), "changes": changes})
        return
    from tuner.cli.console import open_console, print_sentences

    _print(open_console(), read, results.study, _place(results, trial))
    print_sentences(open_console(), changes)


def _place(results: "Results", trial: int) -> str:
    """Say how the trial's setting ranks over its seeds, if settings have several."""
    from tuner.answers import words
    from tuner.answers.settings import has_replicates, setting_of

    if not has_replicates(results.spec):
        return ""
    setting = setting_of(results, trial)
    metric, ranked = results.spec.search.metric, len(results.ranked_settings)
    if setting.rank is None:
        return "Its setting has no complete seed."
    seeds = words.count(len(setting.seeds), "seed")
    place = words.ordinal(setting.rank)
    return f"Its setting is {place} of {ranked} by its mean {metric} over {seeds}."


def _print(console: "Console", trial: "OneTrial", study: "Study", place: str) -> None:
    from tuner.answers.remarks import remarks
    from tuner.answers.trial import table
    from tuner.cli.console import as_rich
    from tuner.cli.drawing import chart

    console.print()
    console.print(_head(trial, study), style="bold")
    console.print(_chosen(trial, study))
    if place:
        console.print(place)
    if trial.row["reason"]:
        console.print(str(trial.row["reason"]))
    if trial.splits:
        console.print()
        console.print(as_rich(table(trial)))
    for sentence in remarks([trial.row], "" if study.spec.search.at == "best" else "last_"):
        console.print(sentence)
    curves = {name: [epoch[name] for epoch in trial.epochs] for name in ("val_loss", "train_nll")}
    shares = {
        name: [None if epoch[name] is None else 100 * epoch[name] for epoch in trial.epochs]
        for name in ("val_acc", "train_acc")
    }
    if trial.epochs:
        console.print()
        console.print(
            chart(
                "loss (nats)",
                [
                    ("training", "dim cyan", curves["train_nll"]),
                    ("validation", "bold yellow", curves["val_loss"]),
                ],
            )
        )
        console.print(
            chart(
                "accuracy (%)",
                [
                    ("training", "dim cyan", shares["train_acc"]),
                    ("validation", "bold yellow", shares["val_acc"]),
                ],
                height=6,
            )
        )
    for metric in trial.own:
        values = [epoch[f"val_{metric.name}"] for epoch in trial.epochs]
        if any(value is not None for value in values):
            console.print(chart(metric.name, [("validation", "bold yellow", values)], height=6))
    console.print()
    for line in _facts(trial):
        console.print(line)
    _print_events(console, trial)
    console.print()


def _head(trial: "OneTrial", study: "Study") -> str:
    from tuner.answers import words

    row = trial.row
    where = ""
    if trial.rank is not None:
        where = f", {words.ordinal(trial.rank)} of {trial.complete} by {study.spec.search.metric}"
    return f"{study.title}: trial {row['trial']}, {row['state']}{where}"


def _chosen(trial: "OneTrial", study: "Study") -> str:
    from tuner.answers.words import level_name

    varied = [f"{name}={level_name(trial.row[name])}" for name in study.spec.varied]
    fixed = [f"{name}={level_name(trial.row[name])}" for name in study.spec.fixed_names]
    seeds = ""
    if trial.peers:
        word = "trial" if len(trial.peers) == 1 else "trials"
        seeds = f"; other seeds: {word} {', '.join(map(str, trial.peers))}"
    text = " ".join([*varied, f"seed={trial.row['seed']}"]) + seeds
    return f"{text}\nfixed: {' '.join(fixed)}" if fixed else text


def _facts(trial: "OneTrial") -> list[str]:
    row, setup = trial.row, trial.setup
    best = f", best at epoch {row['best_epoch']}" if row["best_epoch"] else ""
    reused = f", {row['epochs_reused']} of them reused" if row["epochs_reused"] else ""
    lines = [f"{row['epochs_run']} epochs{reused}{best}; {row['seconds']:.1f} s of training"]
    if setup:
        count = setup.get("parameter_count")
        weights = f"{count:,} weights" if isinstance(count, int) else ""
        lines.append(", ".join(part for part in (str(setup.get("device", "")), weights) if part))
        print_ = setup.get("data_fingerprint")
        lines += [f"data {str(print_)[:12]}"] if print_ else []
        notes = dict(setup.get("notes") or {})
        lines += [f"{name} {notes[name]}" for name in ("code", "reuse") if name in notes]
    return lines


def _print_events(console: "Console", trial: "OneTrial") -> None:
    shown = trial.events[-EVENTS_SHOWN:]
    if len(trial.events) > len(shown):
        console.print(f"… {len(trial.events) - len(shown)} earlier events")
    for event in shown:
        when = event.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        console.print(f"{when}  {event.described}", style="dim")
