"""A comparison as the cells of a table for people."""

from tuner.answers import words
from tuner.answers.compare import Comparison, Row


def head(comparison: Comparison) -> tuple[str, ...]:
    """Return the names of the columns."""
    against = words.level_name(comparison.reference) if comparison.named else "best"
    metric = comparison.measure.name.replace("_", " ")
    return (
        comparison.factor,
        metric,
        "interval",
        f"against {against}",
        "interval",
        "p",
        "n",
        "done",
        "",
    )


def cells(comparison: Comparison, row: Row) -> tuple[str, ...]:
    """Return one level's cells."""
    standing, measure, against = row.standing, comparison.measure, row.against
    done = f"{standing.complete}/{standing.trials}"
    name = words.level_name(standing.level)
    if row.mean is None:
        return (name, "–", "", "", "", "", "", done, "not compared")
    mean = (words.figure(measure, row.mean.value), words.interval(measure, row.mean))
    if against is None:
        held, mark = ("", "", ""), "named" if comparison.named else "best"
    else:
        shown = against.difference.scaled(measure.scale)
        digits = words.decimals(measure, shown)
        ends = f"{words.signed(shown.low, digits)} to {words.signed(shown.high, digits)}"
        chance = "" if comparison.seeds < 2 else chance_cell(against.p_value)
        held = (words.signed(shown.value, digits), ends, chance)
        mark = "different" if against.differs else "tied" if comparison.seeds > 1 else "one seed"
        mark = "too few patients" if comparison.too_few else mark
    return (name, *mean, *held, str(row.n), done, mark)


def chance_cell(chance: float) -> str:
    """Return a p value as the tables show it."""
    return "<0.001" if chance < 0.001 else f"{chance:.3f}"
