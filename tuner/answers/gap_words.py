"""A study's gap in plain words."""

from tuner.answers import words
from tuner.answers.causes import WORDS
from tuner.answers.gap import Gap
from tuner.results.measures import MEASURES
from tuner.statistics.variance import Interval


def sentences(gap: Gap) -> tuple[str, ...]:
    """Say how large the gap is, whether choosing on validation helps, what is luck, and why."""
    return tuple(
        one
        for one in (
            size(gap),
            choosing(gap),
            luck(gap),
            _why(gap),
            _left_out(gap),
            *words.patient_remarks(gap.clusters, unknown=gap.patients_unknown),
        )
        if one
    )


def size(found: Gap) -> str:
    """Say how large the gap is, and how sure that is."""
    gap = found.gap.scaled(100)
    images = sampled(found)
    about = f"over {words.count(found.seeds, 'seed')}, {images}"
    if found.seeds == 1:
        about = f"one seed: over {images}"
    elif not found.images_shared:
        about = f"over {words.count(found.seeds, 'seed')} only, each on different images"
    ends = f"{words.signed(gap.low, 1)} to {words.signed(gap.high, 1)}"
    amount = f"{words.signed(gap.value, 1)} points, 95 % interval {ends}"
    val, test = words.percent(found.val_acc.value), words.percent(found.test_acc.value)
    accuracies = f"{val} on validation and {test} on test"
    if found.too_few:
        return f"Too few patients to judge the gap: {accuracies}, {amount} ({about})."
    if found.gap.low > 0:
        return f"Test falls behind validation: {accuracies}, a gap of {amount} ({about})."
    if found.gap.high < 0:
        return f"Test is ahead of validation: {accuracies}, a gap of {amount} ({about})."
    return f"Validation and test are not distinguishable: {accuracies}, {amount} ({about})."


def sampled(gap: Gap) -> str:
    """Return what the gap is over: images of both splits, and of how many patients."""
    patients = gap.val_patients, gap.test_patients
    if not any(patients):
        return f"{gap.val_images:,} validation and {gap.test_images:,} test images"
    val = words.sampled(gap.val_images, patients[0])
    test = words.sampled(gap.test_images, patients[1])
    return f"{val} on validation and {test} on test"


def choosing(gap: Gap) -> str:
    """Say whether choosing on validation helps on test."""
    together = gap.correlation
    if together is None:
        few = len(gap.settings)
        return (
            f"Whether picking by validation score helps on the test set cannot be said from "
            f"{words.count(few, 'configuration')}."
            if few < 4
            else "Validation or test accuracy is the same for all configurations, so neither "
            "chooses between them."
        )
    figures = (
        f"rank correlation {words.signed(together.value, 2)}, "
        f"{words.signed(together.low, 2)} to {words.signed(together.high, 2)}, over "
        f"{len(gap.settings)} configurations"
    )
    if together.low > 0:
        return f"Better on validation means better on test here ({figures})."
    if together.high < 0:
        return f"Better on validation means worse on test here ({figures})."
    return f"No evidence that picking by validation score helps on the test set ({figures})."


def luck(gap: Gap) -> str:
    """Say how much of the winner's figure is luck of having been picked."""
    if gap.optimism is None:
        return ""
    measure = MEASURES[gap.metric]
    much = gap.optimism.value * measure.scale
    amount = f"{words.fixed(much, 1 if measure.unit == 'points' else 3)} {measure.unit}"
    missing = "" if gap.optimism.over_seeds else ", without the variation between seeds"
    return (
        f"About {amount} of the best trial's {gap.metric} (trial {gap.winner}) "
        f"are selection bias: it was the best of {gap.optimism.trials}{missing}."
    )


def _why(gap: Gap) -> str:
    parts = []
    if gap.fitted is not None:
        parts.append(f"training minus validation accuracy {_points(gap.fitted)}")
    for name, kind in (("val", "validation"), ("test", "test")):
        if name in gap.probes:
            auc = gap.probes[name].auc
            parts.append(
                f"training images can be distinguished from {kind} images with AUC "
                f"{auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f}; 0.5 is chance)"
            )
    seen = f" Seen: {'; '.join(parts)}." if parts else ""
    way = f" `tuner check {gap.study}` does it." if gap.cause == "not examined" else ""
    name = "" if gap.cause == "neither: within sampling error" else f"Cause: {gap.cause}. "
    return f"{name}{WORDS[gap.cause]}{way}{_shares(gap)}{seen}"


def _shares(found: Gap) -> str:
    """Say where accuracy is lost on the way from training to test, where it is in two places."""
    if found.cause != "both" or found.fitted is None or found.gap.value <= 0:
        return ""
    fitted, gap = found.fitted.value * 100, found.gap.value * 100
    return (
        f" Of the {words.fixed(fitted + gap, 1)} points from training to test accuracy "
        f"{words.fixed(fitted, 1)} are lost between training and validation, "
        f"{words.fixed(gap, 1)} between validation and test."
    )


def _points(interval: Interval) -> str:
    shown = interval.scaled(100)
    return (
        f"{words.signed(shown.value, 1)} points ({words.signed(shown.low, 1)} to "
        f"{words.signed(shown.high, 1)})"
    )


def _left_out(gap: Gap) -> str:
    said = []
    if gap.without_peers:
        said.append(
            f"{words.count(gap.without_peers, 'complete trial')} of configurations without "
            "all seeds are in the table alone."
        )
    if gap.left_out:
        said.append(_lost(gap))
    return " ".join(said)


def _lost(gap: Gap) -> str:
    return (
        f"{words.count(gap.left_out, 'trial')} pruned, diverged or failed and not included: "
        "these figures are over trials that were good enough to finish."
    )
