"""Compares settings with the best by the study's metric, and checks that comparison on test.

The best setting is chosen on validation images. The check then compares the
others with it on test images, by accuracy or by the study's own metric.
"""

from tuner.answers import words
from tuner.answers.compare import Comparison, Options, compare
from tuner.answers.race import compare_contenders, race_story
from tuner.answers.settings import has_replicates
from tuner.errors import UserError
from tuner.results import COMBINATIONS_MOST, Results, once

__all__ = ["check", "check_sentence", "compare_settings", "why_not", "with_check"]

USUAL = Options()
CHECK = "test_acc"


@once
def compare_settings(
    results: Results, *, metric: str | None = None, options: Options = USUAL
) -> Comparison | None:
    """Compare every setting with the best by the study's metric; None if that is not possible.

    That is so with one seed per setting, with one setting, and with too many (`why_not`). The
    contenders of a race are compared over their further seeds.
    """
    name = metric or results.spec.search.metric
    if not has_replicates(results.spec) or len(results.ranked_settings) < 2 or why_not(results):
        return None
    if results.spec.replicates.of == "top":
        story = race_story(results)
        if story is None or not story.spent:
            return None
        return compare_contenders(results, metric=name, options=options)
    factor = ",".join(results.spec.varied)
    return compare(results, by=(factor,), metric=name, options=options, whole=True)[0]


def why_not(results: Results) -> str:
    """Say why settings with several seeds are not compared one by one; "" if they are."""
    count = len({row.configuration for row in results.rows})
    if not has_replicates(results.spec) or results.spec.replicates.of == "top":
        return ""
    if count <= COMBINATIONS_MOST:
        return ""
    return (
        f"There are too many settings ({count}) to compare one by one; `tuner table "
        f"{results.title}` ranks them by their means over seeds."
    )


def check(results: Results, comparison: Comparison, *, whole: bool = False) -> Comparison | None:
    """Compare the levels with the leading one on test images; None if that is not possible.

    With `whole`, levels are whole settings. The leading level was chosen on validation
    images, so as a reference on test images it is free of selection bias.
    """
    if comparison.measure.splits != ("val",) or not results.tested:
        return None
    if comparison.reference is None or comparison.seeds < 2:
        return None
    # The study's own metric is checked by that metric on test images, any other by accuracy.
    name = comparison.measure.name
    metric = results.check if name == results.metric else CHECK
    options = Options(reference=words.level_name(comparison.reference))
    try:
        if comparison.factor == "contender":
            return compare_contenders(results, metric=metric, options=options)
        by = (comparison.factor,)
        return compare(results, by=by, metric=metric, options=options, whole=whole)[0]
    except UserError:
        # The leading level has no test figure.
        return None


def with_check(results: Results, comparison: Comparison, said: str) -> str:
    """Return what is said of a comparison, followed by the check on test."""
    return f"{said} {check_sentence(check(results, comparison))}".strip()


def check_sentence(checked: Comparison | None) -> str:
    """Say what the leading level reaches on test, and which levels differ from it there."""
    if checked is None or checked.too_few or checked.seeds < 2:
        return ""
    first = next((row for row in checked.rows if row.standing.level == checked.reference), None)
    if first is None or first.mean is None:
        return ""
    leading = words.level_phrase(checked.factor, checked.reference)
    measure = checked.measure
    shown, ends = words.figure(measure.unit, first.mean.value), words.ends(measure.unit, first.mean)
    said = f"On test, {leading} has an accuracy of {shown} ({ends})"
    if measure.name != CHECK:
        said = f"On test, {leading} has a {measure.name.removeprefix('test_')} of {shown} ({ends})"
    others = [row for row in checked.rows if row.against is not None]
    if not others:
        return f"{said}."
    parts = []
    for better, word in ((True, "better"), (False, "worse")):
        apart = [
            words.level_phrase(checked.factor, row.standing.level)
            for row in others
            if row.against is not None
            and row.against.differs
            and ((row.against.difference.value > 0) == measure.larger) == better
        ]
        if apart:
            listed = words.listed(apart) if len(apart) <= 5 else f"{len(apart)} others"
            verb = "is" if len(apart) == 1 else "are"
            parts.append(f"{listed} {verb} significantly {word}")
    if parts:
        return f"{said}; {', '.join(parts)}."
    if len(others) == 1:
        other = words.level_phrase(checked.factor, others[0].standing.level)
        return f"{said}; {other} is not significantly different."
    if len(others) == 2:
        return f"{said}; neither of the others is significantly different."
    return f"{said}; none of the other {len(others)} is significantly different."
