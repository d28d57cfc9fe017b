"""The winner in plain words: how it was chosen, what its figures mean, and what they do not."""

from tuner.answers import words
from tuner.answers.gap import WORDS
from tuner.answers.one_trial import OnSplit
from tuner.answers.winner import Winner, figure
from tuner.results.measures import MEASURES
from tuner.statistics.means import Mean
from tuner.statistics.variance import Interval


def sentences(winner: Winner) -> tuple[str, ...]:
    """Say how the trial was chosen, what its setting does over seeds, what is luck, and the gap."""
    said = (choice(winner), over_seeds(winner), luck(winner), gap(winner), cause(winner))
    return tuple(one for one in said if one)


def choice(winner: Winner) -> str:
    """Say by what the trial was chosen; test images never had a say."""
    search = winner.study.spec.search
    value = f"{winner.trial.row.value:.4f}" if winner.trial.row.value is not None else "–"
    moment = "best" if search.at == "best" else "last"
    by = f"{search.metric} {value}, {moment} epoch {winner.epoch}"
    complete = words.count(winner.trial.complete, "complete trial")
    if winner.trial.rank == 1:
        return (
            f"Chosen on validation images alone: the best of {complete} by {search.metric} ({by})."
        )
    place = f"rank {winner.trial.rank}" if winner.trial.rank else "unranked"
    return f"Chosen by number: {place} of {complete} by {search.metric} ({by})."


def over_seeds(winner: Winner) -> str:
    """Say what the setting does under all its seeds: what a new training may be expected to do."""
    seeds = len(winner.trial.peers) + 1
    parts = [
        f"{name.replace('_', ' ')} {mean(one)}"
        for name, one in winner.over_seeds.items()
        if name in ("val_acc", "test_acc")
    ]
    count = max((one.n for one in winner.over_seeds.values()), default=0)
    if count < 2:
        return (
            "Its setting was trained to the end under this seed only: how far another seed would "
            "fall is not known."
        )
    left = f" ({seeds - count} of its {seeds} seeds did not complete)" if count < seeds else ""
    said = f"Its setting over {words.count(count, 'seed')}{left}: {', '.join(parts)}."
    test = winner.over_seeds.get("test_acc")
    if test is None:
        return said
    return f"{said} On images like the test set expect {mean(test)}."


def luck(winner: Winner) -> str:
    """Say how much of the winner's figure is luck of having been picked."""
    if winner.luck is None:
        return ""
    measure = MEASURES[winner.study.spec.search.metric]
    by = winner.luck.value * measure.scale
    amount = f"{by:.1f} points" if measure.unit == "points" else f"{by:.3f} nats"
    if float(amount.split(maxsplit=1)[0]) == 0:
        among = words.count(winner.luck.trials, "trial")
        return f"No selection bias is seen in its {measure.name}: it was the best of {among}."
    missing = "" if winner.luck.over_seeds else ", without the variation between seeds"
    return (
        f"About {amount} of its {measure.name} are selection bias, since it was the best of "
        f"{winner.luck.trials}{missing}: expect that much less from its setting."
    )


def gap(winner: Winner) -> str:
    """Say how far this trial's test accuracy is from its validation accuracy."""
    if winner.trial.gap is None:
        return "There is no test set: its accuracy on images that chose nothing is not known."
    own = _points(winner.trial.gap)
    if winner.setting_gap is None or not winner.trial.peers:
        return f"Validation minus test accuracy: {own}."
    over = _points(winner.setting_gap)
    return f"Validation minus test accuracy: {own}; of its setting over seeds {over}."


def cause(winner: Winner) -> str:
    """Say why validation and test differ in this study."""
    if winner.gap is None:
        return ""
    if winner.gap.cause == "neither: within sampling error":
        return "Over all its trials the study's gap is within sampling error."
    return f"Cause of the study's gap: {winner.gap.cause}. {WORDS[winner.gap.cause]}"


LIMITS = (
    (
        "Intervals of accuracy, sensitivity, specificity and AUC are 95 %, over patients where the "
        "data name them and over images else: they are about this network on further ones like "
        "those of the split, from the same source."
    ),
    (
        "They say nothing of images from another hospital, machine, resolution or population; "
        "measure those first."
    ),
    "Validation chose the trial and its epoch, so its figures flatter; test images chose nothing.",
    (
        "A probability is what the network states, not how often it is right; the calibration "
        "error says how far the two are apart here."
    ),
    "It is the result of an experiment, not a medical device: no diagnosis may rest on it.",
)
"""What none of the figures promises, a sentence each."""


def figures(winner: Winner) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the figures of each split as a table: its head and its rows."""
    binary = ("sensitivity", "specificity", "AUC") if winner.rates else ()
    return ("split", "images", "loss", "accuracy", *binary, "ECE", "Brier"), [
        _row(winner, one) for one in winner.splits
    ]


def _row(winner: Winner, one: OnSplit) -> tuple[str, ...]:
    loss = winner.trial.row[figure(winner.study, f"{one.split}_loss")]
    rates = winner.rates.get(one.split)
    sides = (rates.sensitivity, rates.specificity) if rates else (None, None)
    return (
        one.split,
        words.sampled_cell(one.images, one.patients),
        "–" if loss is None else f"{loss:.4f}",
        share(one.accuracy),
        *((*map(share, sides), share(one.auc)) if winner.rates else ()),
        f"{one.calibration_error:.3f}",
        f"{one.brier:.3f}",
    )


def mean(mean: Mean) -> str:
    """Return a mean of fractions with its interval: "0.951 (0.947 to 0.955)"."""
    if mean.low is None or mean.high is None:
        return words.fixed(mean.value, 3)
    return _with_ends(mean.value, mean.low, mean.high)


def share(found: Interval | None) -> str:
    """Return a fraction with its limits, or – for one that is not known."""
    return "–" if found is None else _with_ends(found.value, found.low, found.high)


def _with_ends(value: float, low: float, high: float) -> str:
    return f"{words.fixed(value, 3)} ({words.fixed(low, 3)} to {words.fixed(high, 3)})"


def _points(interval: Interval) -> str:
    shown = interval.scaled(100)
    ends = f"{words.signed(shown.low, 1)} to {words.signed(shown.high, 1)}"
    return f"{words.signed(shown.value, 1)} points (95 % interval {ends})"
