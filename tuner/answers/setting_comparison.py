"""Settings against the best one by the study's metric, and what the best one shows on test.

Validation chooses, test checks: a comparison leads by the study's metric, and its check holds the
others against the level that leads, by test accuracy, or by a metric of the study's own there.
"""

from tuner.answers import words
from tuner.answers.compare import Asked, Comparison, compare
from tuner.answers.race import compare_contenders, tell_race
from tuner.answers.settings import has_replicates
from tuner.errors import UserError
from tuner.results import COMBINATIONS_MOST, Results, once

__all__ = ["check", "check_sentence", "compare_settings", "why_not", "with_check"]

USUAL = Asked()
CHECK = "test_acc"


@once
def compare_settings(
    results: Results, *, metric: str | None = None, asked: Asked = USUAL
) -> Comparison | None:
    """Compare every setting with the best by the study's metric; None where that says nothing.

    That is so with one seed a setting, with one setting, and with too many (`why_not`). The
    contenders of a race are compared over their further seeds.
    """
    name = metric or results.spec.search.metric
    if not has_replicates(results.spec) or len(results.ranked_settings) < 2 or why_not(results):
        return None
    if results.spec.replicates.of == "top":
        story = tell_race(results)
        if story is None or not story.spent:
            return None
        return compare_contenders(results, metric=name, asked=asked)
    factor = ",".join(results.spec.varied)
    return compare(results, by=(factor,), metric=name, asked=asked, whole=True)[0]


def why_not(results: Results) -> str:
    """Say why settings with several seeds are not compared one by one; "" where they are."""
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
    """Compare the levels with the leading one on test images; None where there is no such check.

    `whole` says that the levels are whole settings. The leading level was chosen on validation
    images, so it is a reference that test images had no say in.
    """
    if comparison.measure.splits != ("val",) or not results.tested:
        return None
    if comparison.reference is None or comparison.seeds < 2:
        return None
    # A metric of the study's own is checked by itself on test images, any other by accuracy.
    name = comparison.measure.name
    metric = results.check if name == results.metric else CHECK
    asked = Asked(reference=words.level_name(comparison.reference))
    try:
        if comparison.factor == "contender":
            return compare_contenders(results, metric=metric, asked=asked)
        by = (comparison.factor,)
        return compare(results, by=by, metric=metric, asked=asked, whole=whole)[0]
    except UserError:
        # The leading level has no figure on test.
        return None


def with_check(results: Results, comparison: Comparison, said: str) -> str:
    """Return what is said of a comparison, and then what its leading level shows on test."""
    return f"{said} {check_sentence(check(results, comparison))}".strip()


def check_sentence(checked: Comparison | None) -> str:
    """Say what the level that leads on validation shows on test, and who differs from it there."""
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
